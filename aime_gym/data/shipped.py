"""Demonstrations that come with the package: ``load_trajectories("classic/CartPole-v1")``.

A file holds all trajectories of a task, one after the other; the JSON file beside it says who made them, with what.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aime_gym.serialization import atomically, file_digest, write_text
from aime_gym.types import Trajectory

#: One folder for each collection in it.
FOLDER = Path(__file__).resolve().parent / "demonstrations"


def list_shipped() -> list[str]:
    """Return the names that ``load_shipped`` knows."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("*/*.npz"))


def load_shipped(name: str, *, actions: bool) -> list[Trajectory]:
    """Load the trajectories of a name in ``list_shipped``.

    :param actions: ``False`` leaves the actions in the file, unread.
    """
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        ends = np.cumsum(arrays["lengths"])
        # One observation more than transitions in each trajectory.
        observations = np.split(arrays["observations"], (ends + np.arange(1, len(ends) + 1))[:-1])
        rewards = np.split(arrays["rewards"], ends[:-1])
        taken = np.split(arrays["actions"], ends[:-1]) if actions else [None] * len(ends)
        return [
            Trajectory(observations[index], taken[index], rewards[index], bool(terminated), bool(truncated))
            for index, (terminated, truncated) in enumerate(zip(arrays["terminated"], arrays["truncated"], strict=True))
        ]


def save_shipped(folder: Path, name: str, trajectories: Sequence[Trajectory], about: Mapping[str, Any]) -> Path:
    """Write trajectories with actions and rewards, and a description of them; return the file of arrays."""
    path = folder / f"{name}.npz"
    with atomically(path) as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            lengths=np.array([len(trajectory) for trajectory in trajectories]),
            terminated=np.array([trajectory.terminated for trajectory in trajectories]),
            truncated=np.array([trajectory.truncated for trajectory in trajectories]),
            observations=np.concatenate([np.asarray(trajectory.observations) for trajectory in trajectories]),
            actions=np.concatenate([np.asarray(trajectory.actions) for trajectory in trajectories]),
            rewards=np.concatenate([np.asarray(trajectory.rewards, np.float32) for trajectory in trajectories]),
        )
    about = {**about, "digest": file_digest(path)}
    write_text(path.with_suffix(".json"), json.dumps(about, indent=1) + "\n")
    return path
