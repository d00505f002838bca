"""A learned reward in place of the environment's, for any algorithm of SB3."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from aime_gym.training.reached import copied, reached_observations
from aime_gym.types import Array, Observation


class TransitionReward(Protocol):
    """A reward of transitions: ``agent.transition_reward`` of GAIfO and GAIL, or a function of one's own."""

    def __call__(self, obs: Observation, actions: Array, next_obs: Observation, terminated: Array, /) -> Array:
        """Rewards (n,) of n transitions, where ``terminated`` (n,) says which of them ended in a terminal state."""
        ...


class LearnedRewardVecEnv(VecEnvWrapper):
    """Pays a learned reward for each step.

    >>> env = LearnedRewardVecEnv(make_vec_env("CartPole-v1", n_envs=4), agent.transition_reward)
    >>> SAC("MlpPolicy", env).learn(100_000)

    The reward sees the observation that ended an episode, not the one that the next episode starts with. Where a time
    limit cut the episode, ``terminated`` is false. ``Monitor`` inside reports the environment's own return.

    :param venv: whose observations and actions the reward knows.
    :param reward: of transitions.
    """

    def __init__(self, venv: VecEnv, reward: TransitionReward) -> None:
        super().__init__(venv)
        self.reward = reward

    def reset(self) -> VecEnvObs:
        self._observations = self.venv.reset()
        return copied(self._observations)

    def step_async(self, actions: Array) -> None:
        self._actions = np.array(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        observations, _, dones, infos = self.venv.step_wait()
        reached, terminated = reached_observations(observations, dones, infos), np.array(dones, bool)
        for index in np.flatnonzero(dones):
            terminated[index] = not infos[index].get("TimeLimit.truncated", False)
        rewards = self.reward(self._observations, self._actions, reached, terminated)  # type: ignore[arg-type]
        self._observations = copied(observations)
        return observations, np.asarray(rewards, np.float32), dones, infos
