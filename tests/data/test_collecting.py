"""A recording is what happened: replayed, it happens again."""

import re
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym import make_env
from aime_gym.data import HeldRandomPolicy, check_trajectories, collect
from aime_gym.types import sensors


def assert_same_observations(left, right):
    for name, values in sensors(left).items():
        np.testing.assert_array_equal(values, sensors(right)[name])


def make(name):
    if name == "Pendulum-v1":
        return gym.make(name)
    task, modality = name.split(":")
    return make_env(task, modality=modality)


@pytest.mark.parametrize("name", ["Pendulum-v1", "walker-walk:position", "reach-v3:position", "cartpole-swingup:state"])
def test_pre_actions_replay_to_the_same_observations(name):
    trajectories = collect(make(name), "play", 2, seed=7, progress=False)
    assert trajectories[0].actions.dtype == np.float32  # what agents learn from, also where the space is float64
    fresh = make(name)
    for index, trajectory in enumerate(trajectories):
        assert_same_observations(fresh.reset(seed=7 if index == 0 else None)[0], first(trajectory, 0))
        assert not np.any(trajectory.prev_actions[0])
        for step, action in enumerate(trajectory.prev_actions[1:], start=1):
            observation, reward, terminated, truncated, _ = fresh.step(action.astype(fresh.action_space.dtype))
            assert_same_observations(observation, first(trajectory, step))
            assert np.float32(reward) == trajectory.rewards[step - 1]
            assert (terminated or truncated) == (step == len(trajectory))
        assert trajectory.truncated
        assert not trajectory.terminated


def first(trajectory, step):
    if isinstance(trajectory.observations, dict):
        return {name: values[step] for name, values in trajectory.observations.items()}
    return trajectory.observations[step]


def test_collected_data_passes_the_checks():
    env = make_env("walker-walk", modality="position")
    trajectories = collect(env, "random", 1, seed=0, progress=False)
    (checked,) = check_trajectories(
        trajectories,
        argument="play",
        observation_space=env.observation_space,
        action_space=env.action_space,
        need_actions=True,
    )
    assert checked.observations is trajectories[0].observations


@pytest.mark.parametrize("policy", ["random", "play", "held", "model"])
def test_same_seed_same_recording(policy):
    env = gym.make("Pendulum-v1")
    chosen = {
        "held": HeldRandomPolicy(env.action_space),
        "model": PPO("MlpPolicy", env, n_steps=8, batch_size=8, seed=0, device="cpu"),
    }.get(policy, policy)

    def record(seed):
        return collect(env, chosen, 2, seed=seed, deterministic=False, progress=False)

    one, again, other = record(0), record(0), record(1)
    for left, right in zip(one, again, strict=True):
        np.testing.assert_array_equal(left.observations, right.observations)
        np.testing.assert_array_equal(left.actions, right.actions)
    assert np.any(one[0].actions != other[0].actions)
    assert np.any(one[0].actions != one[1].actions)


def test_the_callers_random_numbers_stay():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    collect(gym.make("Pendulum-v1"), "random", 1, seed=0, progress=False)
    assert torch.rand(1) == expected


class Counting(gym.Env):
    """Shows the step number in a buffer that it uses again, and ends after `length` steps."""

    action_space: spaces.Space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    observation_space = spaces.Dict({"step": spaces.Box(0, 100, (1,), np.float32)})

    def __init__(self, length=5, interrupt_at=None, action_space=None):
        self.length, self.interrupt_at = length, interrupt_at
        self.buffer = np.zeros(1, np.float32)
        self.steps = self.episodes = 0
        self.received = []
        self.action_space = action_space or self.action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.buffer[:] = 0
        self.episodes += 1
        return {"step": self.buffer}, {}

    def step(self, action):
        self.steps += 1
        if self.steps == self.interrupt_at:
            raise KeyboardInterrupt
        self.received.append(np.array(action))
        self.buffer += 1
        return {"step": self.buffer}, float(self.buffer[0]), bool(self.buffer[0] == self.length), False, {}


def test_true_final_observation_and_reused_buffers():
    (trajectory, _) = collect(Counting(), lambda observation: np.zeros(2), 2, progress=False)
    np.testing.assert_array_equal(trajectory.observations["step"][:, 0], np.arange(6))
    np.testing.assert_array_equal(trajectory.rewards, np.arange(1, 6))
    assert trajectory.terminated
    assert not trajectory.truncated


def test_interruption_keeps_complete_episodes():
    env = Counting(length=5, interrupt_at=13)
    with pytest.warns(UserWarning, match="interrupted, returning 2 of 10 episodes"):
        trajectories = collect(env, "random", 10, seed=0, progress=False)
    assert [len(trajectory) for trajectory in trajectories] == [5, 5]
    with pytest.warns(UserWarning, match="returning 0 of 10"):
        assert collect(Counting(interrupt_at=1), "random", 10, progress=False) == []


def test_actions_are_recorded_as_clipped():
    env = Counting()
    (trajectory,) = collect(env, lambda observation: np.array([9.0, -1e300]), 1, progress=False)
    np.testing.assert_array_equal(trajectory.actions, np.tile(np.float32([1, -1]), (5, 1)))
    np.testing.assert_array_equal(trajectory.actions, env.received)
    assert trajectory.actions.dtype == np.float32


@pytest.mark.parametrize("action", [1, np.int64(1), np.array(1), np.array([1])])
def test_discrete_actions_are_scalars(action):
    env = Counting(action_space=spaces.Discrete(2))
    (trajectory,) = collect(env, lambda observation: action, 1, progress=False)
    np.testing.assert_array_equal(trajectory.actions, np.ones(5, np.int64))
    assert trajectory.actions.dtype == np.int64


class Recurrent:
    """A model as sb3-contrib's RecurrentPPO: its state must go round, and restart with the episode."""

    def __init__(self):
        self.calls = []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        count = 0 if state is None else int(state[0][0])
        self.calls.append((count, episode_start.tolist(), deterministic))
        return np.full(2, count / 10), (np.array([count + 1]),)


def test_state_of_recurrent_models():
    model = Recurrent()
    trajectories = collect(Counting(length=3), model, 2, progress=False)
    assert model.calls == [(0, [True], True), (1, [False], True), (2, [False], True)] * 2
    np.testing.assert_allclose(trajectories[1].actions[:, 0], [0, 0.1, 0.2])


def test_policy_is_reset_where_episodes_start():
    resets = []

    class Policy:
        def reset(self, *, seed=None):
            resets.append(seed)

        def __call__(self, observation):
            return np.zeros(2)

    collect(Counting(), Policy(), 2, seed=4, progress=False)
    assert resets == [4, None, None]


def test_environment_by_name():
    (by_name,) = collect("Pendulum-v1", "random", 1, seed=0, progress=False)
    (by_env,) = collect(make_env("Pendulum-v1"), "random", 1, seed=0, progress=False)
    np.testing.assert_array_equal(by_name.observations, by_env.observations)


def test_progress_bar(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collect(Counting(), "random", 3)
    assert "3/3" in capsys.readouterr().err
    collect(Counting(), "random", 3, progress=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"episodes": 0}, "episodes: expected at least 1, got 0"),
        ({"env": DummyVecEnv([Counting])}, "env: expected a Gymnasium environment or an id, got DummyVecEnv"),
        (
            {"policy": "expret"},
            "policy: expected a callable, a model, or one of 'random', 'play', 'expert', got 'expret'",
        ),
        ({"policy": 3}, "policy: expected a callable, a model with `predict`, or one of"),
        ({"policy": "expert"}, "env: expected a Meta-World task"),
        ({"policy": lambda observation: np.zeros(3)}, "policy: expected actions of shape (2,), got (3,)"),
        ({"policy": lambda observation: np.full(2, np.nan)}, "policy: expected finite actions"),
        (
            {"policy": lambda observation: 2, "env": Counting(action_space=spaces.Discrete(2))},
            "policy: expected one action in Discrete(2), got 2",
        ),
        (
            {"policy": lambda observation: 0.5, "env": Counting(action_space=spaces.Discrete(2))},
            "policy: expected one action in Discrete(2), got 0.5",
        ),
        (
            {"policy": lambda observation: [1, 0], "env": Counting(action_space=spaces.MultiBinary(2))},
            "env: expected a Box or Discrete action space",
        ),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        collect(**({"env": Counting(), "policy": "random", "episodes": 1, "progress": False} | arguments))
