"""Transitions that a reward function is asked about, and the rewards that SB3 gets."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym.learned_reward.vec_envs import LearnedRewardVecEnv

START = -7.0


class Counter(gym.Env):
    """Shows the number of steps so far, and START at the start; terminates after ``length``."""

    action_space = spaces.Discrete(2)

    def __init__(self, length=3, sensors=False):
        self.length, self.sensors = length, sensors
        box = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.observation_space = spaces.Dict({"count": box}) if sensors else box

    def observe(self):
        value = np.array([self.steps or START], np.float32)
        return {"count": value} if self.sensors else value

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        return self.observe(), 100.0, self.steps == self.length, False, {}


def transitions(env, steps=7):
    """All that the reward is asked about: obs, action, next_obs, terminated of each copy."""
    asked = []

    def reward(obs, actions, next_obs, terminated):
        first, second = (one["count"] if isinstance(one, dict) else one for one in (obs, next_obs))
        asked.append((first[:, 0].copy(), np.array(actions), second[:, 0].copy(), np.array(terminated)))
        return second[:, 0] * 10

    wrapped = LearnedRewardVecEnv(env, reward)
    wrapped.reset()
    given, shown = [], []
    for step in range(steps):
        observations, rewards, _, _ = wrapped.step(np.full(env.num_envs, step % 2))
        given.append(rewards)
        shown.append((observations["count"] if isinstance(observations, dict) else observations)[:, 0].copy())
    return asked, np.stack(given), np.stack(shown)


@pytest.mark.parametrize("sensors", [False, True])
def test_the_last_observation_of_an_episode_is_the_true_one(sensors):
    env = DummyVecEnv([lambda: Counter(3, sensors), lambda: Counter(4, sensors)])
    asked, rewards, shown = transitions(env)
    assert [first.tolist() for first, *_ in asked] == [
        [START, START], [1, 1], [2, 2], [START, 3], [1, START], [2, 1], [START, 2]
    ]  # fmt: skip
    assert [second.tolist() for _, _, second, _ in asked] == [[1, 1], [2, 2], [3, 3], [1, 4], [2, 1], [3, 2], [1, 3]]
    assert [terminated.tolist() for *_, terminated in asked][2:6] == [
        [True, False], [False, True], [False, False], [True, False]
    ]  # fmt: skip
    assert [actions.tolist() for _, actions, _, _ in asked][:2] == [[0, 0], [1, 1]]
    assert rewards[2].tolist() == [30, 30]
    assert shown[2].tolist() == [START, 3]  # the algorithm sees the new episode


def test_a_time_limit_is_no_termination():
    asked, rewards, _ = transitions(DummyVecEnv([lambda: TimeLimit(Counter(100), 2)]))
    assert [second[0] for _, _, second, _ in asked] == [1, 2, 1, 2, 1, 2, 1]
    assert not any(terminated.any() for *_, terminated in asked)
    assert rewards[1].tolist() == [20]


def test_sb3_learns_from_it():
    env = LearnedRewardVecEnv(DummyVecEnv([Counter] * 2), lambda obs, actions, next_obs, ends: np.asarray(actions))
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=64, learning_rate=1e-2, seed=0).learn(1500)
    assert model.predict(np.array([1.0], np.float32), deterministic=True)[0] == 1
