"""Vectorised environments: rewarded by a function of transitions, and encoded for the networks of SB3's algorithms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import TensorDict
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from torch import Tensor

from aime_gym.data import ActionEncoding, ObservationEncoding
from aime_gym.learned_reward.frame_stack import FrameStack
from aime_gym.training.rollouts import copy_observation, next_observations
from aime_gym.types import Array, Observation


class TransitionRewardFunction(Protocol):
    """A reward of transitions: ``agent.transition_reward`` of GAIfO and GAIL, or a function of one's own."""

    def __call__(self, obs: Observation, actions: Array, next_obs: Observation, terminated: Array, /) -> Array:
        """Return rewards (n,) of n transitions; ``terminated`` (n,) says which of them led to a terminal state."""
        ...


class LearnedRewardVecEnv(VecEnvWrapper):
    """A vectorised environment whose reward is a function of transitions.

        >>> env = LearnedRewardVecEnv(make_vec_env("CartPole-v1", n_envs=4), agent.transition_reward)
        >>> SAC("MlpPolicy", env).learn(100_000)

    The function sees the observation that ended an episode, not the one that the next episode starts with. Where a time
    limit cut the episode, ``terminated`` is false. ``Monitor`` inside reports the environment's own return.

    :param venv: environment with the observations and actions that the function knows.
    :param reward: reward of transitions.
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
        next_obs = next_observations(observations, dones, infos)
        terminated = np.array(dones, bool)
        for index in np.flatnonzero(dones):
            terminated[index] = not infos[index].get("TimeLimit.truncated", False)
        rewards = self.reward(self._observations, self._actions, next_obs, terminated)  # type: ignore[arg-type]
        self._observations = copy_observation(observations)
        return observations, np.asarray(rewards, np.float32), dones, infos


class EncodedVecEnv(VecEnvWrapper):
    """A vectorised environment as networks see it: a ``Dict`` of sensors with stacked images, and encoded actions.

    ``terminal_observation`` is the true last observation, with the frames before it. Actions are in [-1, 1], or
    0 ... n - 1.

    :param observations: encoding of the sensors.
    :param frame_stack: stacker of the frames of images.
    :param actions: encoding of the actions.
    """

    def __init__(
        self, venv: VecEnv, observations: ObservationEncoding, frame_stack: FrameStack, actions: ActionEncoding
    ) -> None:
        super().__init__(venv, frame_stack.space, encoded_action_space(actions))
        self.observations, self.frame_stack, self.actions = observations, frame_stack, actions

    def reset(self) -> VecEnvObs:
        self._stacked = self.frame_stack.reset(self._encode(self.venv.reset()))
        return as_arrays(self._stacked)

    def step_async(self, actions: Array) -> None:
        self.venv.step_async(decode_actions(actions, self.actions))

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        stacked = self.frame_stack.append(self._stacked, self._encode(next_observations(observations, dones, infos)))
        if np.any(dones):
            infos = [
                info | {"terminal_observation": {name: values[index].numpy() for name, values in stacked.items()}}
                if dones[index]
                else info
                for index, info in enumerate(infos)
            ]
            ended = torch.from_numpy(np.array(dones, bool))
            started = self.frame_stack.reset(self._encode(observations))
            stacked = {
                name: torch.where(ended.view(-1, *[1] * (values.ndim - 1)), started[name], values)
                for name, values in stacked.items()
            }
        self._stacked = stacked
        return as_arrays(stacked), rewards, dones, infos

    def _encode(self, observation: VecEnvObs) -> TensorDict:
        return self.observations.encode(observation, torch.device("cpu"))[0]  # type: ignore[arg-type]


def as_arrays(observation: Mapping[str, Tensor]) -> dict[str, Array]:
    """View tensors of the CPU as arrays."""
    return {name: values.numpy() for name, values in observation.items()}


def encoded_action_space(encoding: ActionEncoding) -> spaces.Space:
    """Return the space of the actions that an RL algorithm chooses from."""
    if encoding.discrete:
        return spaces.Discrete(encoding.size)
    return spaces.Box(-1.0, 1.0, (encoding.size,), np.float32)


def decode_actions(actions: Array, encoding: ActionEncoding) -> Array:
    """Return actions of the environment for those of an RL algorithm."""
    if isinstance(encoding.space, spaces.Discrete):
        decoded: Array = (actions + encoding.space.start).astype(encoding.space.dtype)
        return decoded
    return encoding.decode(actions)
