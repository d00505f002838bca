"""One door for data: whatever holds trajectories, made a list of :class:`Trajectory`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from aime_gym.data.aime_folder import SUFFIXES, aime_files, read_aime_file
from aime_gym.data.minari import is_minari_folder, local_minari_folder, read_minari, refuse_malformed_id
from aime_gym.data.shipped import list_shipped, load_shipped
from aime_gym.data.video_decoding import VIDEO_SUFFIXES
from aime_gym.data.video_demonstrations import find_videos, matching_paths, read_videos
from aime_gym.types import Array, Observation, Trajectory

_STACKED_KEYS = ("observations", "actions", "rewards", "terminated", "truncated")


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
    - a Minari dataset: the object, its id, or the path of its folder. Images that
      :func:`~aime_gym.data.save_minari` wrote stay on disk: their arrays are read-only views of the mapped file;
    - the path of an AIME folder (one ``.npz`` or ``.hdf5`` file per trajectory), or of one such file;
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
    :param check_digests: compare each video with the digest that :func:`~aime_gym.data.save_videos` wrote beside it;
        ``False`` saves one pass over large files.
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
        trajectories = _from_paths(source, read, wanted, actions, argument)
    else:
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


def _from_paths(
    sources: Sequence[str | os.PathLike[str]],
    read: Callable[[list[Path]], list[Trajectory]],
    wanted: Sequence[str] | None,
    actions: bool,
    argument: str,
) -> list[Trajectory]:
    """All videos are read in one go, which has one progress bar and one warning; their places are kept."""
    for source in sources:
        refuse_malformed_id(source, argument)
    paths = [path for source in sources for path in matching_paths(source, argument)]
    stored = [path.is_dir() and (is_minari_folder(path) or bool(aime_files(path))) for path in paths]
    videos = [None if known else find_videos(path, argument) for path, known in zip(paths, stored, strict=True)]
    episodes = iter(read([video for found in videos for video in found or ()]))
    trajectories: list[Trajectory] = []
    for path, found in zip(paths, videos, strict=True):
        trajectories += islice(episodes, len(found)) if found else _from_path(path, wanted, actions, argument)
    return trajectories


def _from_path(path: Path, wanted: Sequence[str] | None, actions: bool, argument: str) -> list[Trajectory]:
    if path.is_file() and path.suffix in SUFFIXES:
        return [read_aime_file(path, actions=actions, sensors=wanted)]
    if path.is_dir():
        if is_minari_folder(path):
            return read_minari(path, actions=actions, wanted=wanted)
        files = aime_files(path)
        if not files:
            raise FileNotFoundError(
                f"{argument}: expected a Minari dataset or files ({', '.join(SUFFIXES)}, videos, numbered frames), "
                f"found none in {path}"
            )
        return [read_aime_file(file, actions=actions, sensors=wanted) for file in files]
    if path.exists():
        suffixes = ", ".join((*SUFFIXES, *VIDEO_SUFFIXES))
        raise ValueError(f"{argument}: expected a folder, or a file ending in one of {suffixes}, got {path}")
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
