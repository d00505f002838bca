"""Demonstrations from video: each file, or folder of numbered frames, is an episode of observations alone."""

from __future__ import annotations

import glob
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

from aime_gym.data.aime_folder import natural_order
from aime_gym.data.decoding import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Video, pictures, read_video, same_suffix, videos
from aime_gym.progress import progress_bar
from aime_gym.types import Array, Trajectory
from aime_gym.wrappers.quality import as_quality

#: What is known of the videos in a folder that :func:`~aime_gym.data.save_videos` wrote.
DESCRIPTION = "videos.json"
#: Rates closer than this are one: 29.97 and 30 frames per second, but not 24 and 25.
_SAME_RATE = 0.02
#: Decisions per second beyond which an environment's word is no rate.
_HIGHEST_RATE = 1000.0


def frame_shape(space: spaces.Space) -> tuple[int, int, int] | None:
    """The image ``(H, W, C)`` that an observation is; ``None`` where it is something else."""
    if isinstance(space, spaces.Box) and is_image_space(space) and not is_image_space_channels_first(space):
        height, width, channels = space.shape
        return height, width, channels
    return None


def frame_rate_of(env: gym.Env) -> float | None:
    """Decisions per second of an environment; ``None`` where it does not say."""
    return frame_rate(env.metadata, env.spec.id if env.spec is not None else "")


def frame_rate(metadata: Mapping[str, Any], env_id: str) -> float | None:
    """Decisions per second, by an environment's ``metadata``; ``None`` where it does not say.

    :func:`aime_gym.make_env` sees to a rate that is true. Others are believed within reason, except for Shimmy's
    dm_control, which gives the milliseconds of a step.
    """
    rate = metadata.get("render_fps")
    if env_id.startswith("dm_control/") or not isinstance(rate, int | float | np.number):
        return None
    return float(rate) if 0 < rate <= _HIGHEST_RATE else None


def matching_paths(pattern: str | os.PathLike[str], argument: str) -> list[Path]:
    """What a pattern such as ``"demos/*.mp4"`` stands for, in natural order; a path without ``*?[`` is itself.

    :raises FileNotFoundError: nothing matches.
    """
    text = os.fspath(pattern)
    if not glob.has_magic(text) or Path(text).exists():
        return [Path(text)]
    found = [Path(name) for name in glob.glob(text, recursive=True)]  # noqa: PTH207 - takes any pattern
    paths = sorted((path for path in found if path.name != DESCRIPTION), key=natural_order)
    if not paths:
        raise FileNotFoundError(f"{argument}: nothing matches the pattern {text!r}")
    return paths


def find_videos(path: Path, argument: str) -> list[Path] | None:
    """The videos that a path stands for, in natural order: files, or folders of frames; ``None`` if it has none.

    :raises ValueError: a single frame, or a folder with several kinds of videos.
    """
    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise ValueError(f"{argument}: expected a video, got the single frame {path}; name its folder")
        return [path] if path.suffix.lower() in VIDEO_SUFFIXES else None
    if not path.is_dir():
        return None
    files, frames = videos(path), pictures(path)
    folders = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    folders = sorted((folder for folder in folders if pictures(folder)), key=natural_order)
    if (bool(files) + bool(frames) + bool(folders)) > 1:
        kinds = {"video files": files, "frames": frames, "folders of frames": folders}
        raise ValueError(
            f"{argument}: expected videos of one kind in {path}, got "
            f"{' and '.join(kind for kind, entries in kinds.items() if entries)}; name those you mean, as *.mp4"
        )
    same_suffix(path, files)
    return [path] if frames else files or folders or None


def read_videos(
    paths: Sequence[Path],
    *,
    frame_rate: float | None,
    frame_shape: tuple[int, ...] | None,
    progress: bool,
    argument: str,
) -> list[Trajectory]:
    """Read one trajectory of images for each video; see :func:`~aime_gym.data.load_trajectories`."""
    if not paths:
        return []
    trajectories, others = [], []
    with progress_bar("videos", len(paths), enabled=progress) as advance:
        for path in paths:
            check_shape = partial(_check_shape, expected=frame_shape, path=path, argument=argument)
            video = _at_stated_rate(read_video(path, check_shape), path)
            frames, chosen = video.frames, _decisions(video, frame_rate)
            if chosen is not None:
                frames = frames[chosen]
                others.append(_rate_in_words(video))
            if len(frames) < 2:
                taken = "" if chosen is None else f" at {frame_rate:g} a second, of {len(video.frames)} frames"
                raise ValueError(f"{argument}: expected at least 2 frames, got {len(frames)}{taken} in {path}")
            trajectories.append(Trajectory(np.ascontiguousarray(frames), rendering=described_quality(path)))
            advance(1, path.name)
    if others:
        warnings.warn(
            f"{argument}: {len(others)} of {len(paths)} videos have another frame rate "
            f"({', '.join(sorted(set(others)))} frames per second) than the environment, which decides {frame_rate:g} "
            f"times a second: they are resampled, to the latest frame at each decision",
            stacklevel=3,
        )
    return trajectories


def described_quality(video: Path) -> str | None:
    """How a video was rendered, as :func:`aime_gym.make_env` calls it; ``None`` if nobody knows."""
    described = _described(video)
    return None if described is None else as_quality(described.get("env_arguments", {}).get("quality", "default"))


def _described(video: Path) -> dict[str, Any] | None:
    """What was written beside a video."""
    path = video.parent / DESCRIPTION
    if not path.is_file():
        return None
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        rate, names = described.get("frame_rate"), described.get("videos", [])
        if not isinstance(rate, int | float) or not rate > 0 or not isinstance(names, list):
            raise ValueError(f"frame_rate: {rate!r}, videos: {names!r}")
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected a description as save_videos writes it, but it is damaged ({error})"
        ) from error
    return dict(described) if video.name in names else None


def _at_stated_rate(video: Video, path: Path) -> Video:
    """Believe what was written beside a video more than its container, which rounds."""
    described = _described(path)
    if described is None:
        return video
    return Video(video.frames, np.arange(len(video.frames) + 1) / described["frame_rate"], rounding=0.0)


def _check_shape(shape: tuple[int, ...], expected: tuple[int, ...] | None, path: Path, argument: str) -> None:
    if expected is None or shape == tuple(expected):
        return
    advice = "make the environment with image_size=, or scale the video"
    if shape[:2] == tuple(expected[:2]):
        advice = f"the video has {shape[2]} channels, the environment {expected[2]}"
    raise ValueError(f"{argument}: expected frames (H, W, C) of {tuple(expected)}, got {shape} in {path}; {advice}")


def _decisions(video: Video, rate: float | None) -> Array | None:
    """The frame that is there at each decision; ``None`` for all of them, one after the other."""
    if rate is None or video.times is None:
        return None
    delays, period, count = np.diff(video.times), 1 / rate, len(video.frames)
    mean_is_off = abs(delays.mean() - period) > _SAME_RATE * period + video.rounding / count
    if not mean_is_off and (abs(delays - period) < period / 2).all():
        return None
    # Of a gif, each delay may be rounded the same way: then all of them are off.
    if (abs(delays - period) < video.rounding - 1e-9).all():
        return None
    # A frame that is due at a decision may be stored a little late, and the end too.
    rounding = max(video.rounding, 1e-6)
    count = math.ceil((video.times[-1] - min(rounding, period / 4) - 1e-9) * rate)
    due = np.arange(count) * period + min(rounding / 2, float(np.median(delays)) / 4) + 1e-9
    return np.searchsorted(video.times[:-1], due, side="right") - 1


def _rate_in_words(video: Video) -> str:
    assert video.times is not None
    delays = np.diff(video.times)
    rate = f"{1 / delays.mean():.4g}"
    steady = (abs(delays - delays.mean()) <= max(0.1 * delays.mean(), video.rounding)).all()
    return rate if steady else f"{rate} on average, unsteady"
