"""Environments as SB3's algorithm sees them: flat, standardised observations and learned rewards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from torch import Tensor

from aime_gym.data import ActionEncoding, ObservationEncoding
from aime_gym.models.flat_layout import FlatLayout, FrameStacker
from aime_gym.training.rollouts import copy_observation, next_observations
from aime_gym.types import Array, Observation


class TransitionRewardFunction(Protocol):
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

    def __init__(self, venv: VecEnv, reward: TransitionRewardFunction) -> None:
        super().__init__(venv)
        self.reward = reward

    def reset(self) -> VecEnvObs:
        self._observations = self.venv.reset()
        return copy_observation(self._observations)

    def step_async(self, actions: Array) -> None:
        self._actions = np.array(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        observations, _, dones, infos = self.venv.step_wait()
        reached, terminated = next_observations(observations, dones, infos), np.array(dones, bool)
        for index in np.flatnonzero(dones):
            terminated[index] = not infos[index].get("TimeLimit.truncated", False)
        rewards = self.reward(self._observations, self._actions, reached, terminated)  # type: ignore[arg-type]
        self._observations = copy_observation(observations)
        return observations, np.asarray(rewards, np.float32), dones, infos


class FlatVecEnv(VecEnvWrapper):
    """An environment whose observations are flat, with the last frames of its images.

    An episode starts with its first frame over and over. ``terminal_observation`` is the true last observation, with
    the frames before it.

    :param observations: encoding of the sensors.
    :param stacked: how they are flat.
    """

    def __init__(self, venv: VecEnv, observations: ObservationEncoding, stacked: FrameStacker) -> None:
        super().__init__(venv, flat_space(stacked.layout))
        self.observations, self.stacked = observations, stacked

    def reset(self) -> VecEnvObs:
        self._rows = self.stacked.start(self._encoded(self.venv.reset()))  # type: ignore[arg-type]
        return self._rows.numpy()

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        reached = next_observations(observations, dones, infos)
        rows = self.stacked.push(self._rows, self._encoded(reached))
        if np.any(dones):
            infos = [
                info | {"terminal_observation": row.numpy()} if done else info
                for info, done, row in zip(infos, dones, rows, strict=True)
            ]
            started = self.stacked.start(self._encoded(observations))  # type: ignore[arg-type]
            rows = torch.where(torch.tensor(dones, dtype=torch.bool)[:, None], started, rows)
        self._rows = rows
        return rows.numpy(), rewards, dones, infos

    def _encoded(self, observation: Observation) -> dict[str, Tensor]:
        return self.observations.encode(observation, torch.device("cpu"))[0]


class EncodedVecEnv(VecEnvWrapper):
    """An environment as the generator sees it: standardised, with actions in [-1, 1] or 0 ... n - 1.

    :param encode: flat observations (n, D) -> those that the generator sees.
    :param encoding: of its actions.
    """

    def __init__(
        self, venv: VecEnv, encode: Callable[[Array], Array], layout: FlatLayout, encoding: ActionEncoding
    ) -> None:
        super().__init__(venv, *encoded_spaces(layout, encoding))
        self.encode, self.encoding = encode, encoding

    def reset(self) -> VecEnvObs:
        return self.encode(self.venv.reset())  # type: ignore[arg-type]

    def step_async(self, actions: Array) -> None:
        if isinstance(self.encoding.space, spaces.Discrete):
            decoded = (actions + self.encoding.space.start).astype(self.encoding.space.dtype)
        else:
            decoded = self.encoding.decode(actions)
        self.venv.step_async(decoded)

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        infos = [
            info | {"terminal_observation": self._encode_one(info["terminal_observation"])} if done else info
            for info, done in zip(infos, dones, strict=True)
        ]
        return self.encode(observations), rewards, dones, infos  # type: ignore[arg-type]

    def _encode_one(self, observation: Array) -> Array:
        row: Array = self.encode(observation[None])[0]
        return row


def flat_space(layout: FlatLayout) -> spaces.Box:
    """Of flat observations."""
    if layout.dtype == np.uint8:
        return spaces.Box(0, 255, (layout.size,), np.uint8)
    return spaces.Box(-np.inf, np.inf, (layout.size,), np.float32)


def encoded_spaces(layout: FlatLayout, encoding: ActionEncoding) -> tuple[spaces.Box, spaces.Space]:
    """What the generator sees and does."""
    seen = flat_space(layout)
    if isinstance(encoding.space, spaces.Discrete):
        return seen, spaces.Discrete(encoding.size)
    return seen, spaces.Box(-1.0, 1.0, (encoding.size,), np.float32)
