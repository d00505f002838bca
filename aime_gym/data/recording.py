"""Recording of an episode, step by step, and what is asked of the environment that it is recorded in."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import NormalizeObservation, TimeLimit
from stable_baselines3.common.env_util import is_wrapped

from aime_gym.types import Array, Observation, Trajectory, sensors

#: Steps within which an episode has to end where the environment has no time limit.
EPISODE_LIMIT = 10_000


def has_time_limit(env: gym.Env) -> bool:
    """Whether every episode of an environment ends, as far as it says so."""
    return is_wrapped(env, TimeLimit) or (env.spec is not None and env.spec.max_episode_steps is not None)


def normalizes_observations(env: gym.Env) -> bool:
    """Whether an environment shows observations in units that change as it runs."""
    return is_wrapped(env, NormalizeObservation)


def endless_episode(steps: int) -> ValueError:
    """Return the error for an episode that has not ended after so many steps."""
    return ValueError(
        f"env: expected episodes that end, got one that has not ended after {steps} steps in an environment without a "
        f"time limit; gymnasium.wrappers.TimeLimit(env, max_episode_steps=...) gives it one"
    )


class EpisodeRecorder:
    """Record of an episode that is under way.

    :param observation: the first one.
    """

    def __init__(self, observation: Observation) -> None:
        self._observations = [_copy(observation)]
        self._actions: list[Array] = []
        self._rewards: list[float] = []

    def __len__(self) -> int:
        """Number of steps so far."""
        return len(self._actions)

    def add(self, action: Any, reward: Any, observation: Observation) -> None:
        """Add a step: the action, and what it led to."""
        self._actions.append(np.array(action))
        self._rewards.append(reward)
        self._observations.append(_copy(observation))

    def trajectory(self, *, terminated: bool, truncated: bool, rendering: str | None = None) -> Trajectory:
        """Return all of it, with rewards in ``float32``.

        :param rendering: quality in which the images were rendered, as in [`Trajectory`][].
        :raises ValueError: not a single step.
        """
        by_sensor = [sensors(observation) for observation in self._observations]
        stacked = {name: np.stack([entry[name] for entry in by_sensor]) for name in by_sensor[0]}
        return Trajectory(
            observations=stacked if isinstance(self._observations[0], dict) else stacked["observation"],
            actions=np.stack(self._actions) if self._actions else None,
            rewards=np.array(self._rewards, dtype=np.float32),
            terminated=terminated,
            truncated=truncated,
            rendering=rendering,
        )


def _copy(observation: Any) -> Observation:
    # Environments may hand out the same buffer again and again.
    if isinstance(observation, dict):
        return {name: np.array(values) for name, values in observation.items()}
    return np.array(observation)
