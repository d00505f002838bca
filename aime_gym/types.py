"""What the rooms of the package exchange: trajectories, sequences and metrics."""

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
#: Of one observation of a sensor: ``(D,)`` for a vector; ``(H, W, C)`` for an image, or ``(C, H, W)``.
SensorShape: TypeAlias = tuple[int, ...]
#: Scalars of one update, by name. Tensors are allowed, so that logging costs no synchronisation.
Metrics: TypeAlias = dict[str, float | torch.Tensor]


def sensors(observation: Observation) -> dict[str, Array]:
    """View an observation as one array per sensor; a plain array is the single sensor ``"observation"``."""
    return observation if isinstance(observation, dict) else {"observation": observation}


def is_image(shape: SensorShape) -> bool:
    """Whether a sensor of this shape is an image, rather than a vector."""
    return len(shape) == 3


def channels_first(shape: SensorShape) -> bool:
    """Whether an image has its channels first: by SB3's rule, those are the smallest of its sides."""
    return shape[0] < min(shape[1:])


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One episode, or a part of one: ``T`` actions between ``T + 1`` observations.

    :param observations: array ``(T + 1, ...)``, or one such array per sensor. Images are ``uint8``.
    :param actions: ``(T, ...)``; ``None`` when nobody recorded them. ``actions[t]`` leads from observation ``t`` to
        ``t + 1``.
    :param rewards: ``(T,)``; ``rewards[t]`` is received on arriving at observation ``t + 1``. ``None`` when unknown.
    :param terminated: the last observation is a terminal state of the task.
    :param truncated: the episode was cut at the last observation, by a time limit for example.
    :param rendering: the quality in which its images were drawn, as :func:`aime_gym.make_env` has it; ``None`` when
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
        """Number of transitions ``T``."""
        return len(next(iter(sensors(self.observations).values()))) - 1

    @property
    def prev_actions(self) -> Array:
        """The action that led to each observation, ``(T + 1, ...)``; zeros lead to the first one.

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
        """The same observations as an observer sees them."""
        return replace(self, actions=None)

    def with_actions(self, actions: Array) -> Trajectory:
        """The same observations under other actions ``(T, ...)``."""
        return replace(self, actions=actions)


@dataclass(frozen=True)
class SequenceBatch:
    """A batch of equally long windows, time-major.

    :param observations: one tensor ``(T, B, ...)`` per sensor.
    :param prev_actions: ``(T, B, A)``; the action that led to each observation. ``None`` for demonstrations.
    :param is_first: ``(B,)`` bool; whether the window starts where its episode starts.
    :param valid: ``(T, B)`` bool; false after the end of a trajectory that is shorter than the window.
    :param rows: ``(T, B)``; each record's row in its dataset, to look up what else is known of it.
    """

    observations: Mapping[str, torch.Tensor]
    prev_actions: torch.Tensor | None
    is_first: torch.Tensor
    valid: torch.Tensor
    rows: torch.Tensor


class Predictor(Protocol):
    """Anything that acts as an SB3 model does."""

    def predict(
        self,
        observation: Observation,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Return the action, and the state to hand back at the next call."""
        ...


Trajectories: TypeAlias = Sequence[Trajectory]
