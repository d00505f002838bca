"""Replay buffer of whole episodes: the experience of an online phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aime_gym.training.checkpoint import Frozen
from aime_gym.types import Array, Trajectories, Trajectory


class EpisodeReplayBuffer:
    """Trajectories that an agent has collected, oldest first, and their state for files and checkpoints.

    A trajectory never changes once it is here. So each has one document, made when it is added, whose tensors share its
    memory: a state costs nothing, however much experience it holds and however often it is taken.
    """

    def __init__(self) -> None:
        self.trajectories: list[Trajectory] = []
        self._documents: list[Frozen] = []

    def add(self, trajectories: Trajectories) -> None:
        """Add collected trajectories, in their own dtypes; their arrays must not be written to from now on."""
        self.trajectories += trajectories
        self._documents += [_document(trajectory) for trajectory in trajectories]

    def state_dict(self) -> dict[str, Any]:
        """Return all trajectories as JSON values and tensors."""
        return {"trajectories": list(self._documents)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the content by the trajectories of a state."""
        self._documents = [Frozen(document) for document in state["trajectories"]]
        self.trajectories = [_trajectory(document) for document in self._documents]


def _document(trajectory: Trajectory) -> Frozen:
    observations, actions, rewards = trajectory.observations, trajectory.actions, trajectory.rewards
    return Frozen(
        observations=(
            {name: _tensor(values) for name, values in observations.items()}
            if isinstance(observations, dict)
            else _tensor(observations)
        ),
        actions=None if actions is None else _tensor(actions),
        rewards=None if rewards is None else _tensor(rewards),
        terminated=trajectory.terminated,
        truncated=trajectory.truncated,
        rendering=trajectory.rendering,
    )


def _trajectory(document: Mapping[str, Any]) -> Trajectory:
    observations, actions, rewards = (document[name] for name in ("observations", "actions", "rewards"))
    return Trajectory(
        observations=(
            observations.numpy()
            if isinstance(observations, Tensor)
            else {name: values.numpy() for name, values in observations.items()}
        ),
        actions=None if actions is None else actions.numpy(),
        rewards=None if rewards is None else rewards.numpy(),
        terminated=document["terminated"],
        truncated=document["truncated"],
        rendering=document.get("rendering"),
    )


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))  # a copy of what PyTorch cannot share
