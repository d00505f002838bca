import numpy as np
from gymnasium.wrappers import RepeatAction
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from wrapper_fakes import Counter

from aime_gym.wrappers import SuccessLatch

ACTION = np.zeros(1, dtype=np.float32)


def test_a_flash_in_the_middle_of_a_repeat_is_remembered():
    env = RepeatAction(SuccessLatch(Counter(success_at=1)), 3)
    env.reset()
    for _ in range(3):
        *_, info = env.step(ACTION)
        assert info["success"] is True
        assert info["is_success"] is True


def test_success_is_forgotten_at_reset():
    env = SuccessLatch(Counter(success_at=1))
    env.reset()
    assert env.step(ACTION)[-1]["is_success"] is True
    env.unwrapped.success_at = 5
    env.reset()
    assert env.step(ACTION)[-1]["is_success"] is False


def test_tasks_without_success_are_left_alone():
    env = SuccessLatch(Counter(success_at=None))
    env.reset()
    assert env.step(ACTION)[-1] == {}


def test_sb3_reads_the_success():
    class Still:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros((len(observation), 1), dtype=np.float32), state

    callback = EvalCallback(Monitor(Counter()))
    for success_at, expected in ((2, True), (50, False)):
        env = Monitor(RepeatAction(SuccessLatch(Counter(success_at)), 2))
        callback._is_success_buffer = []
        evaluate_policy(Still(), env, n_eval_episodes=2, callback=callback._log_success_callback)
        assert callback._is_success_buffer == [expected, expected]
