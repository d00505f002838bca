"""Transitions end to end in one file, as offline libraries take them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aime_gym.serialization import atomically
from aime_gym.types import Array, Trajectory


def save_transitions(path: str | os.PathLike[str], trajectories: Sequence[Trajectory]) -> Path:
    """Save trajectories as one ``.npz`` file of transitions end to end, in D4RL's layout.

    The arrays are ``observations``, ``actions``, ``next_observations``, ``terminals`` and ``timeouts``, each
    ``(N, ...)`` for ``N`` transitions, and ``rewards`` if all are known. The last transition of an episode has one of
    the two flags: an episode of which neither end is known was cut there. Only NumPy is needed to read it, and
    [`load_trajectories`][aime_gym.data.load_trajectories] reads it too.

    :param path: gets the suffix ``.npz`` if it has none.
    :return: the path of the file.
    :raises ValueError: no trajectories, one without actions or with several sensors, or another suffix.
    """
    path = transitions_path(path)
    if not trajectories:
        raise ValueError("trajectories: expected at least one, got none")
    observations: list[Array] = []
    actions: list[Array] = []
    for index, trajectory in enumerate(trajectories):
        if trajectory.actions is None:
            raise ValueError(f"trajectories[{index}].actions: expected one action per transition, got None")
        if isinstance(trajectory.observations, dict):
            raise ValueError(f"trajectories[{index}].observations: expected one array, got one for each sensor")
        observations.append(np.asarray(trajectory.observations))
        actions.append(trajectory.actions)
    lengths = [len(trajectory) for trajectory in trajectories]
    ends = np.cumsum(lengths) - 1
    terminals = np.zeros(sum(lengths), bool)
    timeouts = np.zeros(sum(lengths), bool)
    terminals[ends] = [trajectory.terminated for trajectory in trajectories]
    timeouts[ends] = ~terminals[ends]
    arrays = {
        "observations": np.concatenate([values[:-1] for values in observations]),
        "actions": np.concatenate(actions),
        "next_observations": np.concatenate([values[1:] for values in observations]),
        "terminals": terminals,
        "timeouts": timeouts,
    }
    rewards = [trajectory.rewards for trajectory in trajectories if trajectory.rewards is not None]
    if len(rewards) == len(trajectories):
        arrays["rewards"] = np.concatenate(rewards)
    with atomically(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # NumPy's stub takes them for its own options
    return path


def transitions_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file of transitions.

    :raises ValueError: another suffix than ``.npz``.
    """
    path = Path(path)
    path = path if path.suffix else path.with_suffix(".npz")
    if path.suffix != ".npz":
        raise ValueError(f"path: expected a file that ends in .npz, got {path}")
    return path
