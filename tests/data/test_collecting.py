"""A recording is what happened: replayed, it happens again."""

import multiprocessing
import os
import re
import signal
import threading
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym import make_env, processes
from aime_gym.agents import BCAgent
from aime_gym.data import HeldRandomPolicy, ScriptedExpert, check_trajectories, collect, collecting, episode_seeds
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
        assert_same_observations(fresh.reset(seed=episode_seeds(7, 2)[index])[0], first(trajectory, 0))
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


def assert_same_recordings(left, right):
    for one, other in zip(left, right, strict=True):
        assert_same_observations(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.rewards, other.rewards)
        assert (one.terminated, one.truncated) == (other.terminated, other.truncated)


def pendulum():
    return gym.make("Pendulum-v1", max_episode_steps=20)


def policy_of(kind, env):
    """A policy by name, one with random numbers of its own, SB3's model, or an agent with a generator of its own."""
    return {
        "held": lambda: HeldRandomPolicy(env.action_space),
        "model": lambda: PPO("MlpPolicy", env, n_steps=8, batch_size=8, seed=0, device="cpu"),
        "agent": lambda: BCAgent(env, seed=0, device="cpu"),
    }.get(kind, lambda: kind)()


KINDS = ["random", "play", "held", "model", "agent"]


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_recording(kind):
    env = pendulum()
    policy = policy_of(kind, env)

    def record(seed, episodes=2):
        return collect(env, policy, episodes, seed=seed, deterministic=False, progress=False)

    one, again, other = record(0), record(0), record(1)
    assert_same_recordings(one, again)
    assert_same_recordings(one[:1], record(0, 1))
    assert np.any(one[0].actions != other[0].actions)
    assert np.any(one[0].actions != one[1].actions)


def test_another_seed_starts_all_episodes_elsewhere():
    assert not set(episode_seeds(0, 100)) & set(episode_seeds(1, 100))
    assert episode_seeds(0, 100)[:3] == episode_seeds(0, 3)


# ---- in several processes ----


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


@pytest.mark.parametrize("kind", KINDS)
def test_processes_record_the_same(kind, in_processes):
    env = pendulum()
    policy = policy_of(kind, env)
    options = {"seed": 3, "deterministic": False, "progress": False}
    assert_same_recordings(collect(env, policy, 4, **options), collect(env, policy, 4, workers=2, **options))


def test_processes_make_the_environment_of_an_id_or_a_function(in_processes):
    for env in ("CartPole-v1", Counting):
        one, other = (collect(env, "random", 3, seed=0, progress=False, workers=workers) for workers in (1, 2))
        assert_same_recordings(one, other)


def test_processes_know_what_was_registered_here(in_processes):
    gym.register("Short-v0", "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=3)
    try:
        recorded = collect("Short-v0", "random", 3, seed=0, progress=False, workers=2)
    finally:
        del gym.registry["Short-v0"]
    assert [len(trajectory) for trajectory in recorded] == [3, 3, 3]


def test_this_process_records_while_others_start(monkeypatch):
    ready = []

    def first_ready(running, timeout):
        ready.append(timeout)
        return None if timeout == 0 else wait(running)

    wait = processes.first_ready
    monkeypatch.setattr(collecting, "_LONG_RECORDING", 0.0)
    monkeypatch.setattr(processes, "first_ready", first_ready)
    recorded = collect(pendulum, "random", 4, seed=0, progress=False, workers=2)
    assert_same_recordings(recorded, collect(pendulum, "random", 4, seed=0, progress=False))
    assert ready == [0, 0, 0]
    assert multiprocessing.active_children() == []


def test_without_a_seed_processes_record_different_episodes(in_processes):
    recorded = collect(pendulum(), "random", 4, progress=False, workers=2)
    assert len({trajectory.actions.tobytes() for trajectory in recorded}) == 4


def test_a_short_recording_starts_no_process(monkeypatch):
    monkeypatch.setattr(processes, "map_in_processes", lambda *_, **__: pytest.fail("started processes"))
    assert len(collect(Counting, "random", 3, seed=0, progress=False, workers=8)) == 3


def elsewhere(act):
    """Policy that does nothing in this process, and something else in others."""
    here = os.getpid()
    return lambda observation: np.zeros(2) if os.getpid() == here else act()


def test_an_error_in_a_process_ends_the_recording(in_processes):
    with pytest.raises(ValueError, match=re.escape("policy: expected actions of shape (2,), got (3,)")) as caught:
        collect(Counting, elsewhere(lambda: np.zeros(3)), 9, seed=0, progress=False, workers=2)
    assert "In a worker process:\nTraceback" in caught.value.__notes__[0]
    assert multiprocessing.active_children() == []


def test_the_death_of_a_process_ends_the_recording(in_processes):
    killed = elsewhere(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(processes.ProcessEndedError, match="the process ended with SIGKILL"):
        collect(Counting, killed, 9, seed=0, progress=False, workers=2)
    assert multiprocessing.active_children() == []


def test_ctrl_c_keeps_the_episodes_before_it(in_processes, monkeypatch):
    first_ready = processes.first_ready
    calls = iter(range(9))

    def interrupted(running, timeout):
        if next(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return first_ready(running, timeout)

    monkeypatch.setattr(processes, "first_ready", interrupted)
    with pytest.warns(UserWarning, match=r"interrupted, returning \d of 9 episodes"):
        recorded = collect(pendulum(), "random", 9, seed=0, progress=False, workers=2)
    assert 1 <= len(recorded) <= 5
    assert_same_recordings(recorded, collect(pendulum(), "random", 9, seed=0, progress=False)[: len(recorded)])
    assert multiprocessing.active_children() == []


def test_an_interruption_in_a_process_is_one_here(in_processes):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted, returning 1 of 9 episodes"):
        collect(Counting, elsewhere(interrupt), 9, seed=0, progress=False, workers=2)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "workers: expected at least 1, got 0"),
        ({"env": Counting()}, "env: expected an id, a function that makes the environment, or one whose `spec` does"),
        ({"env": Monitor(pendulum())}, "env: expected an id, a function that makes the environment, or one whose"),
        ({"policy": elsewhere(threading.Lock())}, "policy: expected one that can be copied to other processes"),
    ],
)
def test_what_processes_cannot_make_ends_before_any_work(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        collect(**({"env": pendulum, "policy": "random", "episodes": 3, "workers": 2, "progress": False} | arguments))


def test_the_expert_of_one_environment_cannot_be_copied():
    with make_env("reach-v3") as env, pytest.raises(ValueError, match="policy: expected 'expert' for several workers"):
        collect(env, ScriptedExpert(env), 3, workers=2, progress=False)


# ---- what is recorded ----


def test_the_callers_random_numbers_stay():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    collect(gym.make("Pendulum-v1"), "random", 1, seed=0, progress=False)
    assert torch.rand(1) == expected


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
    assert resets == episode_seeds(4, 2)


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
