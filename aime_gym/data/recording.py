"""An episode that is under way, on its way to a trajectory."""

from __future__ import annotations

from typing import Any

import numpy as np

from aime_gym.types import Array, Observation, Trajectory, sensors


class EpisodeRecorder:
    """Takes what happens step by step.

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
        """One step: the action, and what it led to."""
        self._actions.append(np.array(action))
        self._rewards.append(reward)
        self._observations.append(_copy(observation))

    def trajectory(self, *, terminated: bool, truncated: bool, rendering: str | None = None) -> Trajectory:
        """All of it, with rewards in ``float32``.

        :param rendering: see :class:`Trajectory`.
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
