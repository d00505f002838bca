"""Read the folders of the AIME authors: one ``.npz`` or ``.hdf5`` file per trajectory, one array per sensor.

Every array has one record per observation (``T + 1``): the sensors, ``pre_action`` (the action that led to this
observation; row 0 is zero), ``reward`` (received on arriving at it; row 0 is zero), and optionally the flags
``is_first``, ``is_last``, ``is_terminal`` and ``success``. Source: the data that https://github.com/argmax-ai/aime and
https://github.com/argmax-ai/aime-v2 read and write.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from aime_gym.types import Array, Trajectory

SUFFIXES = (".npz", ".hdf5")
#: What is no sensor.
_RESERVED = ("pre_action", "reward", "is_first", "is_last", "is_terminal", "success")


def aime_files(folder: Path) -> list[Path]:
    """The trajectories of a folder, in numerical order: ``2.npz`` before ``10.npz``."""
    files = [path for path in folder.iterdir() if path.suffix in SUFFIXES]
    return sorted(files, key=natural_order)


def natural_order(path: Path) -> list[str | int]:
    """A key to sort paths by: ``2`` before ``10``."""
    # re.split alternates text and digits, so that a text is compared with texts only.
    parts = re.split(r"([0-9]+)", path.as_posix())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def read_aime_file(path: Path, *, actions: bool, sensors: Sequence[str] | None = None) -> Trajectory:
    """Read one trajectory.

    :param sensors: read these only (images are large); ``None`` reads all.
    :param actions: ``False`` leaves the actions in the file, unread.
    :return: a trajectory with one array ``(T + 1, ...)`` per sensor; a scalar sensor ``(T + 1,)`` becomes
        ``(T + 1, 1)``.
    :raises ValueError: the file is corrupted, holds pickled objects, lacks what is needed, or its arrays do not fit
        together. The message names the file.
    """
    with _arrays(path) as arrays:
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
            raise ValueError(f"{path}: {error}") from error


def _as_records(values: Array) -> Array:
    if values.ndim == 0:
        raise ValueError("expected arrays with one record per observation, got a scalar")
    return values[:, None] if values.ndim == 1 else values


@contextmanager
def _arrays(path: Path) -> Iterator[Mapping[str, Array]]:
    """The arrays of a file by name, each read when it is asked for."""
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                yield _Reader(path, file)
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise _corrupted(path, error) from error
        except ValueError as error:
            # np.load on what is no zip archive; errors of our own name the file already.
            raise error if str(path) in str(error) else _corrupted(path, error) from error
    else:
        try:
            with h5py.File(path, "r") as file:
                yield _Reader(path, file)
        except OSError as error:
            raise _corrupted(path, error) from error


class _Reader(Mapping[str, Array]):
    def __init__(self, path: Path, file: Mapping[str, Array]) -> None:
        self._path, self._file = path, file

    def __getitem__(self, name: str) -> Array:
        try:
            return np.asarray(self._file[name][()])
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise _corrupted(self._path, error) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._file)

    def __len__(self) -> int:
        return len(self._file)


def _corrupted(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: expected a readable {path.suffix} file, but it is corrupted or holds objects ({error})")
