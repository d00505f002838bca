"""One door for data: whatever holds trajectories, made a list of :class:`Trajectory`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aime_gym.data.aime_folder import SUFFIXES, aime_files, read_aime_file
from aime_gym.data.minari import is_minari_folder, local_minari_folder, read_minari, refuse_malformed_id
from aime_gym.data.shipped import list_shipped, load_shipped
from aime_gym.types import Array, Observation, Trajectory

_STACKED_KEYS = ("observations", "actions", "rewards", "terminated", "truncated")


def load_trajectories(
    source: Any,
    *,
    sensors: str | Sequence[str] | None = None,
    flatten: bool = True,
    actions: bool = True,
    argument: str = "source",
) -> list[Trajectory]:
    """Load trajectories from whatever holds them.

    ``source`` is one of:

    - a :class:`Trajectory`, or a sequence of them;
    - observations alone: an array ``(E, T + 1, ...)`` of ``E`` episodes, or a list of ``E`` arrays ``(T + 1, ...)``;
    - a dict of such: ``{"observations": ..., "actions": (E, T, ...), "rewards": (E, T), "terminated": (E,),
      "truncated": (E,)}``, all but the first optional; ``observations`` may be a dict of sensors;
    - a Minari dataset: the object, its id, or the path of its folder;
    - the path of an AIME folder (one ``.npz`` or ``.hdf5`` file per trajectory), or of one such file;
    - trajectories of the ``imitation`` library;
    - ``"classic/CartPole-v1"``, ``"classic/Acrobot-v1"`` or ``"classic/MountainCar-v0"``: 20 demonstrations of an
      expert, which come with this package.

    Folders have one array per sensor. ``sensors`` makes of them what an environment shows. For
    ``make_env("walker-walk", modality="position")``, whose observation is flat:

    >>> load_trajectories("datasets/walker", sensors=["orientations", "height"])

    :param sensors: ``None`` keeps the observations as they are stored; one name takes that sensor (``"image"``); a list
        joins its sensors in this order to ``(T + 1, D)``.
    :param flatten: ``False`` keeps the sensors of the list apart, for an environment with a Dict observation.
    :param actions: ``False`` loads observations and rewards only; stored actions are then not even read.
    :param argument: what the user calls this data; errors start with it.
    :raises FileNotFoundError: nothing is stored there. The message names the path.
    :raises ValueError: a corrupted file (the message names it), another kind of source, a string that looks like a
        Minari id but is none, lengths that do not fit together, or sensors that are not there.
    :raises ImportError: a Minari dataset in a format whose library is not installed.
    """
    wanted = [sensors] if isinstance(sensors, str) else sensors
    trajectories = _load(source, wanted, actions, argument)
    if not actions:
        trajectories = [trajectory.without_actions() for trajectory in trajectories]
    if sensors is not None:
        trajectories = [
            _with_sensors(trajectory, sensors, flatten, f"{argument}[{index}]")
            for index, trajectory in enumerate(trajectories)
        ]
    return trajectories


def _load(source: Any, wanted: Sequence[str] | None, actions: bool, argument: str) -> list[Trajectory]:
    if isinstance(source, Trajectory):
        return [source]
    if isinstance(source, str | os.PathLike):
        refuse_malformed_id(source, argument)
        return _from_path(Path(source), wanted, actions, argument)
    if hasattr(source, "iterate_episodes") and hasattr(source, "storage"):
        return read_minari(source, actions=actions, wanted=wanted)
    if isinstance(source, Mapping):
        return _from_stacked(source, argument)
    if isinstance(source, np.ndarray):
        if source.ndim < 3:
            raise ValueError(
                f"{argument}: expected an array (episodes, T+1, ...), got shape {source.shape}; "
                "pass a single episode as a list of one array"
            )
        return _from_stacked({"observations": source}, argument)
    if isinstance(source, Sequence):
        if all(isinstance(entry, Trajectory) for entry in source):
            return list(source)
        if all(isinstance(entry, np.ndarray) for entry in source):
            return _from_stacked({"observations": source}, argument)
        if all(hasattr(entry, "obs") and hasattr(entry, "acts") for entry in source):
            return [_from_imitation(entry, f"{argument}[{index}]") for index, entry in enumerate(source)]
    kinds = f" of {', '.join(sorted({type(entry).__name__ for entry in source}))}" if isinstance(source, list) else ""
    raise ValueError(
        f"{argument}: expected trajectories, arrays, a Minari dataset, or a path, got {type(source).__name__}{kinds}"
    )


def _from_path(path: Path, wanted: Sequence[str] | None, actions: bool, argument: str) -> list[Trajectory]:
    if path.is_file() and path.suffix in SUFFIXES:
        return [read_aime_file(path, actions=actions, sensors=wanted)]
    if path.is_dir():
        if is_minari_folder(path):
            return read_minari(path, actions=actions, wanted=wanted)
        files = aime_files(path)
        if not files:
            raise FileNotFoundError(
                f"{argument}: expected a Minari dataset or {' or '.join(SUFFIXES)} files, found none in {path}"
            )
        return [read_aime_file(file, actions=actions, sensors=wanted) for file in files]
    if path.exists():
        raise ValueError(f"{argument}: expected a folder, or a file ending in {' or '.join(SUFFIXES)}, got {path}")
    folder = local_minari_folder(str(path))
    if folder is None:
        if path.as_posix() in list_shipped():
            return load_shipped(path.as_posix(), actions=actions)
        raise FileNotFoundError(
            f"{argument}: nothing is stored at {path}, and no local Minari dataset has that id "
            f"(`minari list local` shows them, `minari download {path}` gets one; {', '.join(list_shipped())} come "
            f"with this package)"
        )
    return read_minari(folder, actions=actions, wanted=wanted)


def _from_stacked(source: Mapping[str, Any], argument: str) -> list[Trajectory]:
    unknown = sorted(set(source) - set(_STACKED_KEYS))
    if unknown or "observations" not in source:
        raise ValueError(
            f"{argument}: expected a dict with 'observations' and optionally {', '.join(_STACKED_KEYS[1:])}, "
            f"got the keys {sorted(source)}"
        )
    given = {name: values for name, values in source.items() if values is not None}
    observations = given.pop("observations")
    stacks = observations if isinstance(observations, Mapping) else {"observations": observations}
    counts = {name: len(values) for name, values in {**stacks, **given}.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"{argument}: expected as many episodes in every array, got {counts}")
    trajectories = []
    for index in range(next(iter(counts.values()))):
        where = f"{argument}[{index}]"
        one: Observation = (
            {name: _array(values[index]) for name, values in observations.items()}
            if isinstance(observations, Mapping)
            else _array(observations[index])
        )
        trajectories.append(
            _trajectory(
                where,
                observations=one,
                actions=_array(given["actions"][index]) if "actions" in given else None,
                rewards=_array(given["rewards"][index]) if "rewards" in given else None,
                terminated=bool(given["terminated"][index]) if "terminated" in given else False,
                truncated=bool(given["truncated"][index]) if "truncated" in given else False,
            )
        )
    return trajectories


def _from_imitation(entry: Any, where: str) -> Trajectory:
    observations = entry.obs.unwrap() if hasattr(entry.obs, "unwrap") else entry.obs  # their DictObs
    # Their `terminal` means "done"; only the last info says whether a time limit did it.
    infos = getattr(entry, "infos", None)
    cut = bool(infos is not None and len(infos) and infos[-1].get("TimeLimit.truncated", False))
    rewards = getattr(entry, "rews", None)
    return _trajectory(
        where,
        observations=dict(observations) if isinstance(observations, Mapping) else _array(observations),
        actions=_array(entry.acts),
        rewards=None if rewards is None else _array(rewards),
        terminated=bool(entry.terminal) and not cut,
        truncated=cut,
    )


def _trajectory(where: str, **fields: Any) -> Trajectory:
    try:
        return Trajectory(**fields)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _array(values: Any) -> Array:
    return np.asarray(values)


def _with_sensors(trajectory: Trajectory, names: str | Sequence[str], flatten: bool, where: str) -> Trajectory:
    stored = trajectory.observations
    if not isinstance(stored, dict):
        raise ValueError(
            f"{where}: expected observations with one array per sensor to choose {names} from, got one array"
        )
    wanted = [names] if isinstance(names, str) else list(names)
    missing = [name for name in wanted if name not in stored]
    if missing or not wanted:
        raise ValueError(f"{where}: expected sensors out of {sorted(stored)}, got {missing or wanted}")
    observations: Observation
    if isinstance(names, str):
        observations = stored[names]
    elif not flatten:
        observations = {name: stored[name] for name in wanted}
    else:
        for name in wanted:
            if stored[name].ndim > 2:
                raise ValueError(
                    f"{where}: expected flat sensors (T+1, D) to join, but {name!r} has shape {stored[name].shape}; "
                    "pass flatten=False to keep the sensors apart"
                )
        observations = np.concatenate([stored[name].reshape(len(stored[name]), -1) for name in wanted], axis=1)
    return replace(trajectory, observations=observations)
