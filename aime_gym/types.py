"""Types that the parts of the package exchange: trajectories, sequence batches and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

Array: TypeAlias = npt.NDArray[Any]
#: One observation or a stack of them: an array, or one array per sensor (a Gymnasium ``Dict`` space).
Observation: TypeAlias = Array | dict[str, Array]
#: Shape of one observation of a sensor: ``(D,)`` of a vector; ``(H, W, C)`` or ``(C, H, W)`` of an image.
SensorShape: TypeAlias = tuple[int, ...]
#: Scalars of one update, by name. Tensors are allowed, so that logging costs no synchronisation.
Metrics: TypeAlias = dict[str, float | torch.Tensor]


def sensors(observation: Observation) -> dict[str, Array]:
    """View an observation as one array per sensor; a plain array is the single sensor ``"observation"``."""
    return observation if isinstance(observation, dict) else {"observation": observation}


def is_image(shape: SensorShape) -> bool:
    """Return whether a sensor of this shape is an image, rather than a vector."""
    return len(shape) == 3


def channels_first(shape: SensorShape) -> bool:
    """Return whether an image has its channels first: by SB3's rule, if they are the smallest of its sides."""
    return shape[0] < min(shape[1:])


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One episode, or a part of one: ``T`` actions between ``T + 1`` observations.

    :param observations: array ``(T + 1, ...)``, or one such array per sensor. Images are ``uint8``.
    :param actions: array ``(T, ...)``, or ``None`` if not recorded. ``actions[t]`` leads to observation
        ``t + 1``.
    :param rewards: array ``(T,)``, or ``None`` if unknown. ``rewards[t]`` is received with observation ``t + 1``.
    :param terminated: whether the last observation is a terminal state of the task.
    :param truncated: whether the episode was cut at the last observation, by a time limit for example.
    :param rendering: quality in which the images were rendered (``quality`` of [`make_env`][]); ``None`` if
        unknown, or without images.
    :raises ValueError: lengths that do not fit together, or fewer than two observations.
    """

    observations: Observation
    actions: Array | None = None
    rewards: Array | None = None
    terminated: bool = False
    truncated: bool = False
    rendering: str | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in sensors(self.observations).items()}
        if not lengths:
            raise ValueError("Trajectory.observations: expected at least one sensor, got an empty dict")
        if len(set(lengths.values())) != 1:
            raise ValueError(f"Trajectory.observations: expected sensors of equal length, got {lengths}")
        count = next(iter(lengths.values()))
        if count < 2:
            raise ValueError(f"Trajectory.observations: expected at least 2 observations, got {count}")
        for name in ("actions", "rewards"):
            values = getattr(self, name)
            if values is not None and len(values) != count - 1:
                raise ValueError(
                    f"Trajectory.{name}: expected {count - 1} entries for {count} observations, got {len(values)}"
                )

    def __len__(self) -> int:
        """Return the number of transitions ``T``."""
        return len(next(iter(sensors(self.observations).values()))) - 1

    @property
    def prev_actions(self) -> Array:
        """Actions that led to each observation, ``(T + 1, ...)``; zeros for the first one.

        This is the only place that shifts actions against observations.
        """
        if self.actions is None:
            raise ValueError("Trajectory.prev_actions: this trajectory has no actions")
        return np.concatenate([np.zeros_like(self.actions[:1]), self.actions])

    @property
    def episode_return(self) -> float:
        """Sum of the rewards.

        :raises ValueError: when the rewards are unknown.
        """
        if self.rewards is None:
            raise ValueError("Trajectory.episode_return: this trajectory has no rewards")
        return float(np.sum(self.rewards))

    def without_actions(self) -> Trajectory:
        """Return a copy without the actions."""
        return replace(self, actions=None)

    def with_actions(self, actions: Array) -> Trajectory:
        """Return a copy with ``actions``, ``(T, ...)``, in place of its own."""
        return replace(self, actions=actions)


@dataclass(frozen=True)
class SequenceBatch:
    """Batch of sequences of equal length, time-major.

    :param observations: one tensor ``(T, B, ...)`` per sensor.
    :param prev_actions: actions ``(T, B, A)`` that led to each observation; ``None`` for demonstrations.
    :param is_first: flags ``(B,)``, bool: whether the sequence starts where its episode starts.
    :param valid: mask ``(T, B)``, bool: false after the end of a trajectory that is shorter than the sequence.
    :param rows: row ``(T, B)`` of each record in its dataset, which further data per record are looked up by.
    """

    observations: Mapping[str, torch.Tensor]
    prev_actions: torch.Tensor | None
    is_first: torch.Tensor
    valid: torch.Tensor
    rows: torch.Tensor


class Predictor(Protocol):
    """Interface of a policy: ``predict`` of an SB3 model."""

    def predict(
        self,
        observation: Observation,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Return the action, and the state to pass to the next call."""
        ...


Trajectories: TypeAlias = Sequence[Trajectory]
