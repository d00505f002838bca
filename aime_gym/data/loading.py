"""Loading of trajectories from whatever holds them: memory, data sets, files of arrays, videos."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from aime_gym.data.aime_folder import trajectory_of_records
from aime_gym.data.lerobot import is_lerobot_folder, read_lerobot
from aime_gym.data.minari import is_minari_folder, local_minari_folder, read_minari, refuse_malformed_id
from aime_gym.data.paths import files_in
from aime_gym.data.resampling import check_frame_rate
from aime_gym.data.shipped import list_shipped, load_shipped
from aime_gym.data.stored_arrays import ARRAYS_SUFFIXES, open_arrays, read_npy
from aime_gym.data.video_decoding import VIDEO_SUFFIXES
from aime_gym.data.video_demonstrations import find_videos, matching_paths, read_videos
from aime_gym.types import Array, Trajectory

_FLAGS = ("terminated", "truncated")
_FIELDS = ("observations", "actions", "rewards", *_FLAGS)
#: Fields and flags of transitions that lie end to end, as D4RL has them.
_FLAT_FLAGS = ("terminals", "timeouts")
_FLAT_FIELDS = ("observations", "actions", "rewards", "next_observations", *_FLAT_FLAGS)


def load_trajectories(
    source: Any,
    *,
    sensors: str | Sequence[str] | None = None,
    flatten: bool = True,
    actions: bool = True,
    frame_rate: float | None = None,
    frame_shape: tuple[int, ...] | None = None,
    check_digests: bool = True,
    resize: bool = False,
    progress: bool = False,
    argument: str = "source",
) -> list[Trajectory]:
    """Load trajectories from whatever holds them.

    ``source`` is one of:

    - a [`Trajectory`][], or a sequence of them;
    - observations alone: an array ``(E, T + 1, ...)`` of ``E`` episodes, or a list of ``E`` arrays ``(T + 1, ...)``;
    - a dict of such: ``{"observations": ..., "actions": (E, T, ...), "rewards": (E, T), "terminated": (E,),
      "truncated": (E,)}``, all but the first optional; ``observations`` may be a dict of sensors;
    - a list of dicts, one for each episode: of such arrays without their first axis, or of sensors ``(T + 1, ...)``;
    - a dict of transitions that lie end to end, as D4RL has them: ``observations``, ``actions`` and ``rewards``
      ``(N, ...)``, with the flags ``terminals`` or ``timeouts`` ``(N,)`` at the last one of each episode, and
      ``next_observations``, without which each episode ends one action earlier;
    - a Minari dataset: the object, its id, or the path of its folder. Images that
      [`save_minari`][] wrote stay on disk: their arrays are read-only views of the mapped file;
    - the path of a LeRobotDataset's folder, of version 2.0 to 3.0: ``sensors`` names its columns. Without them it is
      one: ``observation.state``, or the only camera where ``frame_shape`` asks for images. Other cameras are not
      decoded. An episode has one action less than frames: what the last one led to is not recorded;
    - the path of an AIME folder (one ``.npz`` or ``.hdf5`` file per trajectory), or of one such file; an ``.npz`` or
      ``.hdf5`` file of the dicts above; an ``.npy`` file of observations, ``(T + 1, D)`` or ``(E, T + 1, ...)``;
    - videos: a file (``.mp4``, ``.mkv``, ``.avi``, ``.mov``, ``.webm``, ``.gif``), a folder of numbered frames
      (``.png``, ``.jpg``), or a folder of such files or of such folders; each video is an episode of images, without
      actions or rewards;
    - a pattern such as ``"demos/*.mp4"``, or a list of paths and patterns;
    - trajectories of the ``imitation`` library;
    - ``"classic/CartPole-v1"``, ``"classic/Acrobot-v1"``, ``"classic/MountainCar-v0"`` or ``"metaworld/reach-v3"``: 20
      demonstrations of an expert, which come with this package.

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
    :param frame_shape: shape ``(H, W, C)`` of the environment's images; a video of another shape is refused before it
        is decoded.
    :param resize: whether videos of another size than ``frame_shape`` are resized to it instead, without regard to
        their proportions.
    :param check_digests: compare the files of a Minari dataset, and videos, with the digests that
        [`save_minari`][] and [`save_videos`][] wrote beside them; ``False`` saves one
        pass over large files.
    :param progress: show a progress bar while videos are read.
    :param argument: name of this data for the user; errors start with it.
    :raises FileNotFoundError: nothing is stored there. The message names the path, or the pattern.
    :raises ValueError: a corrupted file (the message names it), another kind of source, a string that looks like a
        Minari id but is none, lengths that do not fit together, or sensors that are not there; a video that is damaged,
        cut short, of another shape than ``frame_shape`` or of fewer than 2 frames, or a folder of frames with gaps.
    :raises ImportError: a Minari dataset in a format whose library is not installed.
    """
    if frame_rate is not None:
        check_frame_rate(frame_rate)
    if resize and frame_shape is None:
        raise ValueError(
            "resize: expected together with frame_shape, for an environment that shows images, got it alone"
        )
    wanted = [sensors] if isinstance(sensors, str) else sensors
    if isinstance(source, str | os.PathLike):
        source = [source]
    if isinstance(source, Sequence) and source and all(isinstance(entry, str | os.PathLike) for entry in source):
        frames: dict[str, Any] = {
            "frame_rate": frame_rate,
            "frame_shape": frame_shape,
            "resize": resize,
            "progress": progress,
        }
        stored = _Stored(wanted, actions, check_digests, argument, frames)
        places = stored.find(source)
        # All videos in one go, which has one progress bar and one warning; their places are kept.
        episodes = iter(
            read_videos(
                [video for _, videos in places for video in videos or ()],
                argument,
                check_digests=check_digests,
                **frames,
            )
        )
        trajectories: list[Trajectory] = []
        for path, videos in places:
            trajectories += islice(episodes, len(videos)) if videos else stored.read(path)
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
    """Reader of what is stored at a path, with the options of [`load_trajectories`][]."""

    sensors: Sequence[str] | None
    actions: bool
    check_digests: bool
    argument: str
    frames: Mapping[str, Any]

    def find(self, sources: Sequence[str | os.PathLike[str]]) -> list[tuple[Path, list[Path] | None]]:
        """Return the paths of names and patterns, each with the videos there; ``None`` where other data is."""
        for source in sources:
            refuse_malformed_id(source, self.argument)
        paths = [path for source in sources for path in matching_paths(source, self.argument)]
        paths = [path if path.exists() else local_minari_folder(str(path)) or path for path in paths]
        return [(path, None if self._is_other(path) else find_videos(path, self.argument)) for path in paths]

    def _is_other(self, path: Path) -> bool:
        return path.is_dir() and (
            is_minari_folder(path) or is_lerobot_folder(path) or bool(files_in(path, ARRAYS_SUFFIXES))
        )

    def read(self, path: Path) -> list[Trajectory]:
        """Read all trajectories that are stored there, videos excepted."""
        suffixes = (*ARRAYS_SUFFIXES, ".npy")
        if path.is_file() and path.suffix.lower() in suffixes:
            return self._file(path)
        if path.is_dir():
            if is_minari_folder(path):
                return read_minari(path, actions=self.actions, wanted=self.sensors, check_digests=self.check_digests)
            if is_lerobot_folder(path):
                options = {"actions": self.actions, "wanted": self.sensors, **self.frames}
                return read_lerobot(path, self.argument, **options)
            if files := files_in(path, ARRAYS_SUFFIXES):
                return [trajectory for file in files for trajectory in self._file(file)]
            raise FileNotFoundError(
                f"{self.argument}: expected a Minari or LeRobot dataset or files ({', '.join(ARRAYS_SUFFIXES)}, "
                f"videos, numbered frames), found none in {path}"
            )
        if path.exists():
            raise ValueError(
                f"{self.argument}: expected a folder, or a file ending in one of "
                f"{', '.join((*suffixes, *VIDEO_SUFFIXES))}, got {path}"
                f"{'' if path.is_file() else ', which is none but a device'}"
            )
        if path.as_posix() in list_shipped():
            return load_shipped(path.as_posix(), actions=self.actions)
        raise FileNotFoundError(
            f"{self.argument}: nothing is stored at {path}, and no local Minari dataset has that id (`minari list "
            f"local` shows them, `minari download {path}` gets one; {', '.join(list_shipped())} come with this package)"
        )

    def _file(self, path: Path) -> list[Trajectory]:
        if path.suffix.lower() == ".npy":
            return _from_array(read_npy(path), f"{self.argument}: {path}")
        with open_arrays(path) as arrays:
            if "observations" in arrays and "pre_action" not in arrays:  # as in memory, rather than as in AIME's files
                known = {name: read() for name, read in arrays.items() if self.actions or name != "actions"}
                return _from_stacked(known, f"{self.argument}: {path}")
            return [trajectory_of_records(arrays, path, actions=self.actions, sensors=self.sensors)]


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
            return [
                _from_fields(entry if "observations" in entry else {"observations": entry}, f"{argument}[{index}]")
                for index, entry in enumerate(source)
            ]
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
    if set(_FLAT_FLAGS) & set(source):
        return _from_flat(source, argument)
    fields = _known(source, _FIELDS, argument)
    observations = fields["observations"]
    stacks = dict(observations) if isinstance(observations, Mapping) else {"observations": observations}
    counts = {}
    for name, values in {**stacks, **{name: fields[name] for name in fields if name != "observations"}}.items():
        if not hasattr(values, "__len__") or np.ndim(values[0] if len(values) else values) < (name not in _FLAGS):
            raise ValueError(
                f"{argument}: expected one array per episode under {name!r}, got {_described(values)}; transitions in "
                f"flat arrays need the flags {' and '.join(_FLAT_FLAGS)} to be cut into episodes"
            )
        counts[name] = len(values)
    if len(set(counts.values())) != 1:
        raise ValueError(f"{argument}: expected as many episodes in every array, got {counts}")
    return [
        _from_fields({name: _entry(values, index) for name, values in fields.items()}, f"{argument}[{index}]")
        for index in range(next(iter(counts.values())))
    ]


def _entry(values: Any, index: int) -> Any:
    return {name: part[index] for name, part in values.items()} if isinstance(values, Mapping) else values[index]


def _from_flat(source: Mapping[str, Any], argument: str) -> list[Trajectory]:
    """Cut transitions that lie end to end, as D4RL has them, into trajectories.

    Row ``t`` is an observation and the action that was taken there.

    The observation that the last action of an episode led to is known by ``next_observations`` alone. Without them the
    episode ends one action earlier, and nobody saw how.
    """
    source = {name: values for name, values in source.items() if "/" not in name}  # D4RL's infos and metadata
    rows = {name: np.asarray(values) for name, values in _known(source, _FLAT_FIELDS, argument).items()}
    lengths = {name: len(values) if values.ndim else 0 for name, values in rows.items()}
    if len(set(lengths.values())) != 1 or rows["observations"].ndim < 2:
        raise ValueError(f"{argument}: expected arrays (N, ...) of as many transitions, got {lengths}")
    count = lengths["observations"]
    flags = {name: rows[name].reshape(-1).astype(bool) for name in _FLAT_FLAGS if name in rows}
    if any(len(values) != count for values in flags.values()):
        raise ValueError(f"{argument}: expected one flag for each of {count} transitions under {sorted(flags)}")
    known = "next_observations" in rows
    ends = np.flatnonzero(np.any(list(flags.values()), axis=0)) + 1
    trajectories: list[Trajectory] = []
    for start, end in pairwise(sorted({0, *ends.tolist(), count})):
        last = end if known else end - 1
        if last == start:
            continue
        fields: dict[str, Any] = {name: rows[name][start:last] for name in ("actions", "rewards") if name in rows}
        fields["observations"] = rows["observations"][start:end]
        if known:
            fields["observations"] = np.concatenate([fields["observations"], rows["next_observations"][end - 1 : end]])
        terminated, cut = (name in flags and bool(flags[name][end - 1]) for name in _FLAT_FLAGS)
        ended = {"terminated": terminated and known, "truncated": cut and not (terminated and known)}
        trajectories.append(_from_fields({**fields, **ended}, f"{argument}[{len(trajectories)}]"))
    return trajectories


def _from_imitation(entry: Any, where: str) -> Trajectory:
    # Their `terminal` means "done"; whether a time limit did it is in the last info, or nowhere.
    infos = getattr(entry, "infos", None)
    cut = infos[-1].get("TimeLimit.truncated") if infos is not None and len(infos) else None
    fields = {
        "observations": entry.obs.unwrap() if hasattr(entry.obs, "unwrap") else entry.obs,  # their DictObs
        "actions": entry.acts,
        "rewards": getattr(entry, "rews", None),
        "terminated": bool(entry.terminal) and cut is not None and not cut,
        "truncated": bool(cut),
    }
    return _from_fields(fields, where)


def _from_fields(source: Mapping[str, Any], where: str) -> Trajectory:
    """Make a trajectory of its fields, as arrays or what becomes one."""
    fields = _known(source, _FIELDS, where)
    for name, values in fields.items():
        if name in _FLAGS:
            if np.ndim(values) or np.asarray(values).dtype.kind not in "biu":
                raise ValueError(f"{where}.{name}: expected True or False for an episode, got {_described(values)}")
            fields[name] = bool(values)
        elif name == "observations" and isinstance(values, Mapping):
            fields[name] = {sensor: np.asarray(part) for sensor, part in values.items()}
        else:
            fields[name] = np.asarray(values)
    try:
        return Trajectory(**fields)
    except (ValueError, TypeError) as error:  # a TypeError by what has no length
        raise ValueError(f"{where}: {error}") from error


def _known(source: Mapping[str, Any], fields: Sequence[str], where: str) -> dict[str, Any]:
    """Return the fields that are given, which are no others than the known ones."""
    if set(map(str, source)) - set(fields) or source.get("observations") is None:
        raise ValueError(
            f"{where}: expected a dict with 'observations' and optionally {', '.join(fields[1:])}, "
            f"got the keys {sorted(map(str, source))}"
        )
    return {name: values for name, values in source.items() if values is not None}


def _described(value: Any) -> str:
    return f"an array {np.shape(value)}" if isinstance(value, np.ndarray) else repr(value)[:60]


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
    if isinstance(names, str):
        return replace(trajectory, observations=stored[names])
    if not flatten:
        return replace(trajectory, observations={name: stored[name] for name in wanted})
    for name in wanted:
        if stored[name].ndim > 2:
            raise ValueError(
                f"{where}: expected flat sensors (T+1, D) to join, but {name!r} has shape {stored[name].shape}; "
                "pass flatten=False to keep the sensors apart"
            )
    joined = [stored[name].reshape(len(stored[name]), -1) for name in wanted]
    return replace(trajectory, observations=np.concatenate(joined, axis=1))
