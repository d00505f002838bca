"""Loading of trajectories from whatever holds them: memory, data sets, files of arrays, videos."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from aime_gym.data.aime_folder import SUFFIXES, aime_files, open_arrays, trajectory_of_records
from aime_gym.data.minari import is_minari_folder, local_minari_folder, read_minari, refuse_malformed_id
from aime_gym.data.shipped import list_shipped, load_shipped
from aime_gym.data.stored_arrays import read_npy
from aime_gym.data.video_decoding import VIDEO_SUFFIXES
from aime_gym.data.video_demonstrations import find_videos, matching_paths, read_videos
from aime_gym.types import Array, Observation, Trajectory

_STACKED_KEYS = ("observations", "actions", "rewards", "terminated", "truncated")
_FLAGS = ("terminated", "truncated")
#: Of transitions that lie end to end, as D4RL has them.
_FLAT_KEYS = ("observations", "actions", "rewards", "next_observations")
_FLAT_FLAGS = {"terminals", "timeouts"}


def load_trajectories(
    source: Any,
    *,
    sensors: str | Sequence[str] | None = None,
    flatten: bool = True,
    actions: bool = True,
    frame_rate: float | None = None,
    frame_shape: tuple[int, ...] | None = None,
    check_digests: bool = True,
    progress: bool = False,
    argument: str = "source",
) -> list[Trajectory]:
    """Load trajectories from whatever holds them.

    ``source`` is one of:

    - a :class:`Trajectory`, or a sequence of them;
    - observations alone: an array ``(E, T + 1, ...)`` of ``E`` episodes, or a list of ``E`` arrays ``(T + 1, ...)``;
    - a dict of such: ``{"observations": ..., "actions": (E, T, ...), "rewards": (E, T), "terminated": (E,),
      "truncated": (E,)}``, all but the first optional; ``observations`` may be a dict of sensors;
    - a list of dicts, one for each episode: of such arrays without their first axis, or of sensors ``(T + 1, ...)``;
    - a dict of transitions that lie end to end, as D4RL has them: ``observations``, ``actions`` and ``rewards``
      ``(N, ...)``, with the flags ``terminals`` or ``timeouts`` ``(N,)`` at the last one of each episode, and
      ``next_observations``, without which each episode ends one action earlier;
    - a Minari dataset: the object, its id, or the path of its folder. Images that
      :func:`~aime_gym.data.save_minari` wrote stay on disk: their arrays are read-only views of the mapped file;
    - the path of an AIME folder (one ``.npz`` or ``.hdf5`` file per trajectory), or of one such file; an ``.npz`` or
      ``.hdf5`` file of the dicts above; an ``.npy`` file of observations, ``(T + 1, D)`` or ``(E, T + 1, ...)``;
    - videos: a file (``.mp4``, ``.mkv``, ``.avi``, ``.mov``, ``.webm``, ``.gif``), a folder of numbered frames
      (``.png``, ``.jpg``), or a folder of such files or of such folders; each video is an episode of images, without
      actions or rewards;
    - a pattern such as ``"demos/*.mp4"``, or a list of paths and patterns;
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
    :param frame_rate: decisions per second of the environment: videos of another rate are resampled to it, with one
        warning for all of them. Each decision then sees the latest frame at its time. A gif rounds the time between two
        frames to whole centiseconds, and rates that agree within that are the same; folders of frames have no rate.
        ``None`` takes videos as they are.
    :param frame_shape: ``(H, W, C)`` of the environment's images; a video of another shape is refused before it is
        decoded.
    :param check_digests: compare the files of a Minari dataset, and videos, with the digests that
        :func:`~aime_gym.data.save_minari` and :func:`~aime_gym.data.save_videos` wrote beside them; ``False`` saves one
        pass over large files.
    :param progress: show a progress bar while videos are read.
    :param argument: what the user calls this data; errors start with it.
    :raises FileNotFoundError: nothing is stored there. The message names the path, or the pattern.
    :raises ValueError: a corrupted file (the message names it), another kind of source, a string that looks like a
        Minari id but is none, lengths that do not fit together, or sensors that are not there; a video that is damaged,
        cut short, of another shape than ``frame_shape`` or of fewer than 2 frames, or a folder of frames with gaps.
    :raises ImportError: a Minari dataset in a format whose library is not installed.
    """
    if frame_rate is not None and not 0 < frame_rate < float("inf"):
        raise ValueError(f"frame_rate: expected a positive number, got {frame_rate}")
    wanted = [sensors] if isinstance(sensors, str) else sensors
    if isinstance(source, str | os.PathLike):
        source = [source]
    if isinstance(source, Sequence) and source and all(isinstance(entry, str | os.PathLike) for entry in source):
        read = partial(
            read_videos,
            frame_rate=frame_rate,
            frame_shape=frame_shape,
            check_digests=check_digests,
            progress=progress,
            argument=argument,
        )
        stored = _Stored(wanted, actions, check_digests, argument)
        trajectories = _from_paths(source, read, stored)
    elif hasattr(source, "iterate_episodes") and hasattr(source, "storage"):
        trajectories = read_minari(source, actions=actions, wanted=wanted, check_digests=check_digests)
    else:
        trajectories = _from_memory(source, argument)
    if not actions:
        trajectories = [trajectory.without_actions() for trajectory in trajectories]
    if sensors is not None:
        trajectories = [
            _with_sensors(trajectory, sensors, flatten, f"{argument}[{index}]")
            for index, trajectory in enumerate(trajectories)
        ]
    return trajectories


@dataclass(frozen=True)
class _Stored:
    """Reader of what is stored at a path, with the options of :func:`load_trajectories`."""

    sensors: Sequence[str] | None
    actions: bool
    check_digests: bool
    argument: str

    def read(self, path: Path) -> list[Trajectory]:
        """Read all trajectories that are stored there, videos excepted."""
        if path.is_file() and path.suffix in (*SUFFIXES, ".npy"):
            return self._file(path)
        if path.is_dir():
            if is_minari_folder(path):
                return self._minari(path)
            files = aime_files(path)
            if not files:
                raise FileNotFoundError(
                    f"{self.argument}: expected a Minari dataset or files ({', '.join(SUFFIXES)}, videos, numbered "
                    f"frames), found none in {path}"
                )
            return [trajectory for file in files for trajectory in self._file(file)]
        if path.exists():
            suffixes = ", ".join((*SUFFIXES, ".npy", *VIDEO_SUFFIXES))
            raise ValueError(
                f"{self.argument}: expected a folder, or a file ending in one of {suffixes}, got {path}"
                f"{'' if path.is_file() else ', which is none but a device'}"
            )
        folder = local_minari_folder(str(path))
        if folder is None:
            if path.as_posix() in list_shipped():
                return load_shipped(path.as_posix(), actions=self.actions)
            raise FileNotFoundError(
                f"{self.argument}: nothing is stored at {path}, and no local Minari dataset has that id "
                f"(`minari list local` shows them, `minari download {path}` gets one; {', '.join(list_shipped())} come "
                f"with this package)"
            )
        return self._minari(folder)

    def _minari(self, folder: Path) -> list[Trajectory]:
        return read_minari(folder, actions=self.actions, wanted=self.sensors, check_digests=self.check_digests)

    def _file(self, path: Path) -> list[Trajectory]:
        if path.suffix == ".npy":
            return _from_array(read_npy(path), f"{self.argument}: {path}")
        with open_arrays(path) as arrays:
            if "observations" in arrays and "pre_action" not in arrays:  # as in memory, rather than as in AIME's files
                dropped = () if self.actions else ("actions",)
                known = {name: arrays[name] for name in arrays if name not in dropped}
                return _from_stacked(known, f"{self.argument}: {path}")
            return [trajectory_of_records(arrays, path, actions=self.actions, sensors=self.sensors)]


def _from_paths(
    sources: Sequence[str | os.PathLike[str]], read: Callable[[list[Path]], list[Trajectory]], stored: _Stored
) -> list[Trajectory]:
    """Read all videos in one go, which has one progress bar and one warning; their places are kept."""
    for source in sources:
        refuse_malformed_id(source, stored.argument)
    paths = [path for source in sources for path in matching_paths(source, stored.argument)]
    known = [path.is_dir() and (is_minari_folder(path) or bool(aime_files(path))) for path in paths]
    videos = [None if other else find_videos(path, stored.argument) for path, other in zip(paths, known, strict=True)]
    episodes = iter(read([video for found in videos for video in found or ()]))
    trajectories: list[Trajectory] = []
    for path, found in zip(paths, videos, strict=True):
        trajectories += islice(episodes, len(found)) if found else stored.read(path)
    return trajectories


def _from_memory(source: Any, argument: str) -> list[Trajectory]:
    if isinstance(source, Trajectory):
        return [source]
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
        if all(isinstance(entry, Mapping) for entry in source):
            return [_from_episode(entry, f"{argument}[{index}]") for index, entry in enumerate(source)]
        if all(hasattr(entry, "obs") and hasattr(entry, "acts") for entry in source):
            return [_from_imitation(entry, f"{argument}[{index}]") for index, entry in enumerate(source)]
    kinds = f" of {', '.join(sorted({type(entry).__name__ for entry in source}))}" if isinstance(source, list) else ""
    raise ValueError(
        f"{argument}: expected trajectories, arrays, a Minari dataset, or a path, got {type(source).__name__}{kinds}"
    )


def _from_array(values: Array, where: str) -> list[Trajectory]:
    """Make trajectories of observations alone: of one episode, (T + 1, D) or images, or of several."""
    if values.ndim == 2 or (values.ndim == 4 and values.dtype == np.uint8):
        values = values[None]
    if values.ndim < 3:
        raise ValueError(f"{where}: expected observations (T+1, D) or (episodes, T+1, ...), got shape {values.shape}")
    return _from_stacked({"observations": values}, where)


def _from_stacked(source: Mapping[str, Any], argument: str) -> list[Trajectory]:
    """Make trajectories of a dict of arrays: stacked, or end to end with flags that say where each one ends."""
    if _FLAT_FLAGS & set(source):
        return _from_flat(source, argument)
    _check_keys(source, _STACKED_KEYS, argument)
    given = {name: values for name, values in source.items() if values is not None}
    observations = given.pop("observations")
    stacks = dict(observations) if isinstance(observations, Mapping) else {"observations": observations}
    counts = {}
    for name, values in {**stacks, **given}.items():
        if not hasattr(values, "__len__") or np.ndim(values[0] if len(values) else values) < (name not in _FLAGS):
            raise ValueError(
                f"{argument}: expected one array per episode under {name!r}, got {_described(values)}; transitions in "
                f"flat arrays need the flags {' and '.join(sorted(_FLAT_FLAGS))} to be cut into episodes"
            )
        counts[name] = len(values)
    if len(set(counts.values())) != 1:
        raise ValueError(f"{argument}: expected as many episodes in every array, got {counts}")
    return [
        _trajectory(
            f"{argument}[{index}]",
            observations=(
                {name: _array(values[index]) for name, values in stacks.items()}
                if isinstance(observations, Mapping)
                else _array(observations[index])
            ),
            actions=_array(given["actions"][index]) if "actions" in given else None,
            rewards=_array(given["rewards"][index]) if "rewards" in given else None,
            **{name: _flag(given[name][index], f"{argument}[{index}].{name}") for name in _FLAGS if name in given},
        )
        for index in range(next(iter(counts.values())))
    ]


def _from_episode(source: Mapping[str, Any], where: str) -> Trajectory:
    """Make a trajectory of a dict: of its fields, or of its sensors."""
    if "observations" not in source:
        return _trajectory(where, observations={name: _array(values) for name, values in source.items()})
    _check_keys(source, _STACKED_KEYS, where)
    given = {name: values for name, values in source.items() if values is not None}
    observations = given["observations"]
    return _trajectory(
        where,
        observations=(
            {name: _array(values) for name, values in observations.items()}
            if isinstance(observations, Mapping)
            else _array(observations)
        ),
        actions=_array(given["actions"]) if "actions" in given else None,
        rewards=_array(given["rewards"]) if "rewards" in given else None,
        **{name: _flag(given[name], f"{where}.{name}") for name in _FLAGS if name in given},
    )


def _from_flat(source: Mapping[str, Any], argument: str) -> list[Trajectory]:
    """Cut transitions that lie end to end, as D4RL has them, into trajectories.

    Row ``t`` is an observation and the action that was taken there.

    The observation that the last action of an episode led to is known by ``next_observations`` alone. Without them the
    episode ends one action earlier, and nobody saw how.
    """
    source = {name: values for name, values in source.items() if "/" not in name}  # D4RL's infos and metadata
    _check_keys(source, (*_FLAT_KEYS, *sorted(_FLAT_FLAGS)), argument)
    rows = {name: _array(values) for name, values in source.items() if values is not None}
    lengths = {name: len(values) if values.ndim else 0 for name, values in rows.items()}
    if len(set(lengths.values())) != 1 or rows["observations"].ndim < 2:
        raise ValueError(f"{argument}: expected arrays (N, ...) of as many transitions, got {lengths}")
    flags = {name: rows[name].reshape(-1).astype(bool) for name in _FLAT_FLAGS if name in rows}
    count = lengths["observations"]
    if any(len(values) != count for values in flags.values()):
        raise ValueError(f"{argument}: expected one flag for each of {count} transitions under {sorted(flags)}")
    ends = np.flatnonzero(np.any(list(flags.values()), axis=0)) + 1
    trajectories: list[Trajectory] = []
    for start, end in pairwise(sorted({0, *ends.tolist(), count})):
        known, where = "next_observations" in rows, f"{argument}[{len(trajectories)}]"
        observations, actions = rows["observations"][start:end], end if known else end - 1
        if known:
            observations = np.concatenate([observations, rows["next_observations"][end - 1 : end]])
        if len(observations) < 2:
            continue
        terminated = known and "terminals" in flags and bool(flags["terminals"][end - 1])
        trajectories.append(
            _trajectory(
                where,
                observations=observations,
                actions=rows["actions"][start:actions] if "actions" in rows else None,
                rewards=rows["rewards"][start:actions] if "rewards" in rows else None,
                terminated=terminated,
                truncated=not terminated and "timeouts" in flags and bool(flags["timeouts"][end - 1]),
            )
        )
    return trajectories


def _check_keys(source: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    unknown = sorted(set(map(str, source)) - set(known))
    if unknown or source.get("observations") is None:
        raise ValueError(
            f"{where}: expected a dict with 'observations' and optionally {', '.join(known[1:])}, "
            f"got the keys {sorted(map(str, source))}"
        )


def _flag(value: Any, where: str) -> bool:
    if np.ndim(value) or np.asarray(value).dtype.kind not in "biu":
        raise ValueError(f"{where}: expected True or False for an episode, got {_described(value)}")
    return bool(value)


def _described(value: Any) -> str:
    return f"an array {np.shape(value)}" if isinstance(value, np.ndarray) else repr(value)[:60]


def _from_imitation(entry: Any, where: str) -> Trajectory:
    observations = entry.obs.unwrap() if hasattr(entry.obs, "unwrap") else entry.obs  # their DictObs
    # Their `terminal` means "done"; whether a time limit did it is in the last info, or nowhere.
    infos = getattr(entry, "infos", None)
    last = infos[-1] if infos is not None and len(infos) else {}
    cut = last.get("TimeLimit.truncated")
    rewards = getattr(entry, "rews", None)
    return _trajectory(
        where,
        observations=dict(observations) if isinstance(observations, Mapping) else _array(observations),
        actions=_array(entry.acts),
        rewards=None if rewards is None else _array(rewards),
        terminated=bool(entry.terminal) and cut is not None and not cut,
        truncated=bool(cut),
    )


def _trajectory(where: str, **fields: Any) -> Trajectory:
    try:
        return Trajectory(**fields)
    except (ValueError, TypeError) as error:  # a TypeError by what has no length
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
