"""Readers of the AIME authors' folders: one ``.npz`` or ``.hdf5`` file per trajectory, one array per sensor.

Every array has one record per observation (``T + 1``): the sensors, ``pre_action`` (the action that led to this
observation; row 0 is zero), ``reward`` (received on arriving at it; row 0 is zero), and optionally the flags
``is_first``, ``is_last``, ``is_terminal`` and ``success``. Source: the data that https://github.com/argmax-ai/aime and
https://github.com/argmax-ai/aime-v2 read and write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from aime_gym.data.stored_arrays import Hdf5Arrays, open_hdf5, open_npz
from aime_gym.types import Array, Trajectory

SUFFIXES = (".npz", ".hdf5")
#: Names of arrays that are no sensor.
_RESERVED = ("pre_action", "reward", "is_first", "is_last", "is_terminal", "success")


def aime_files(folder: Path) -> list[Path]:
    """Return the trajectories of a folder, in numerical order: ``2.npz`` before ``10.npz``; hidden files are none."""
    files = [path for path in folder.iterdir() if path.suffix in SUFFIXES and not path.name.startswith(".")]
    return sorted((path for path in files if path.is_file()), key=natural_order)


def natural_order(path: Path) -> list[str | int]:
    """Return a key to sort paths by: ``2`` before ``10``."""
    # re.split alternates text and digits, so that a text is compared with texts only.
    parts = re.split(r"([0-9]+)", path.as_posix())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def trajectory_of_records(
    arrays: Mapping[str, Array], path: Path, *, actions: bool, sensors: Sequence[str] | None = None
) -> Trajectory:
    """Make one trajectory of the arrays of a file.

    :param arrays: as :func:`open_arrays` gives them; those that nobody asked for are left unread.
    :param sensors: read these only (images are large); ``None`` reads all.
    :param actions: ``False`` leaves the actions in the file.
    :return: a trajectory with one array ``(T + 1, ...)`` per sensor; a scalar sensor ``(T + 1,)`` becomes
        ``(T + 1, 1)``.
    :raises ValueError: the file is corrupted, holds pickled objects, lacks what is needed, or its arrays do not fit
        together. The message names the file.
    """
    names = [name for name in arrays if name not in _RESERVED]
    if not names:
        raise ValueError(f"{path}: expected at least one sensor beside {', '.join(_RESERVED)}, got none")
    missing = [name for name in sensors or () if name not in names]
    if missing:
        raise ValueError(f"{path}: expected sensors out of {sorted(names)}, got {missing}")
    if actions and "pre_action" not in arrays:
        raise ValueError(f"{path}: expected actions under the key 'pre_action', got the keys {sorted(arrays)}")
    if "is_first" in arrays and np.any(arrays["is_first"][1:]):
        raise ValueError(f"{path}: expected one trajectory per file, but is_first is set after record 0 as well")
    try:
        terminated = "is_terminal" in arrays and bool(arrays["is_terminal"][-1])
        return Trajectory(
            observations={name: _as_records(arrays[name]) for name in (sensors or names)},
            actions=arrays["pre_action"][1:] if actions else None,
            rewards=_as_records(arrays["reward"])[1:, 0] if "reward" in arrays else None,
            terminated=terminated,
            truncated=not terminated and "is_last" in arrays and bool(arrays["is_last"][-1]),
        )
    except (ValueError, IndexError) as error:
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from error


@contextmanager
def open_arrays(path: Path) -> Iterator[Mapping[str, Array]]:
    """Open a file as arrays by name, each read when it is asked for; groups of HDF5 are passed over.

    :raises ValueError: the file is corrupted. The message names it.
    """
    if path.suffix == ".npz":
        with open_npz(path) as arrays:
            yield arrays
    else:
        with open_hdf5(path) as file:
            yield _Hdf5Records(file)


class _Hdf5Records(Mapping[str, Array]):
    """The arrays at the top of an HDF5 file."""

    def __init__(self, file: Hdf5Arrays) -> None:
        self._file = file
        self._names = [name for name in file.file if isinstance(file.find(file.file, name), h5py.Dataset)]
        if not self._names:
            raise ValueError(
                f"{file.path}: expected arrays with one record per observation, one trajectory per file, got the "
                f"groups {', '.join(sorted(file.file)) or 'of an empty file'}"
            )

    def __getitem__(self, name: str) -> Array:
        return self._file.read(self._file.file, name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _as_records(values: Array) -> Array:
    if values.ndim == 0:
        raise ValueError("expected arrays with one record per observation, got a scalar")
    return values[:, None] if values.ndim == 1 else values
