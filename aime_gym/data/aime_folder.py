"""Reader of the AIME authors' folders: one ``.npz`` or ``.hdf5`` file per trajectory, one array per sensor.

Every array has one record per observation (``T + 1``): the sensors, ``pre_action`` (the action that led to this
observation; row 0 is zero), ``reward`` (received on arriving at it; row 0 is zero), and optionally the flags
``is_first``, ``is_last``, ``is_terminal`` and ``success``. Source: the data that https://github.com/argmax-ai/aime and
https://github.com/argmax-ai/aime-v2 read and write.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aime_gym.data.stored_arrays import ArrayReaders
from aime_gym.types import Array, Trajectory

#: Names of arrays that are no sensor.
_RESERVED = ("pre_action", "reward", "is_first", "is_last", "is_terminal", "success")


def trajectory_of_records(
    arrays: ArrayReaders, path: Path, *, actions: bool, sensors: Sequence[str] | None = None
) -> Trajectory:
    """Make one trajectory of the arrays of a file.

    :param arrays: function that reads each array; those that nobody asked for are left unread.
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
    if "is_first" in arrays and np.any(arrays["is_first"]()[1:]):
        raise ValueError(f"{path}: expected one trajectory per file, but is_first is set after record 0 as well")
    try:
        terminated = "is_terminal" in arrays and bool(arrays["is_terminal"]()[-1])
        return Trajectory(
            observations={name: _as_records(arrays[name]()) for name in (sensors or names)},
            actions=arrays["pre_action"]()[1:] if actions else None,
            rewards=_as_records(arrays["reward"]())[1:, 0] if "reward" in arrays else None,
            terminated=terminated,
            truncated=not terminated and "is_last" in arrays and bool(arrays["is_last"]()[-1]),
        )
    except (ValueError, IndexError) as error:
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from error


def _as_records(values: Array) -> Array:
    if values.ndim == 0:
        raise ValueError("expected arrays with one record per observation, got a scalar")
    return values[:, None] if values.ndim == 1 else values
