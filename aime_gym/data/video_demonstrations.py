"""Demonstrations from video: each file, or folder of numbered frames, is an episode of observations alone."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

from aime_gym.data.paths import files_in, natural_order
from aime_gym.data.resampling import frames_at_decisions, rate_in_words
from aime_gym.data.video_decoding import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Video, read_video, same_suffix
from aime_gym.data.video_description import DESCRIPTION, check_digest, described_quality, read_description
from aime_gym.progress import progress_bar
from aime_gym.types import Trajectory


def frame_shape(space: spaces.Space) -> tuple[int, int, int] | None:
    """Return the shape ``(H, W, C)`` of an image space; ``None`` for any other space."""
    if isinstance(space, spaces.Box) and is_image_space(space) and not is_image_space_channels_first(space):
        height, width, channels = space.shape
        return height, width, channels
    return None


def matching_paths(pattern: str | os.PathLike[str], argument: str) -> list[Path]:
    """Return the paths that match a pattern such as ``"demos/*.mp4"`` in natural order, or a plain path as it is.

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
    """Return the videos at a path in natural order: files, or folders of frames; ``None`` where there are none.

    :raises ValueError: a single frame, or a folder with several kinds of videos.
    """
    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise ValueError(f"{argument}: expected a video, got the single frame {path}; name its folder")
        return [path] if path.suffix.lower() in VIDEO_SUFFIXES else None
    if not path.is_dir():
        return None
    files = files_in(path, VIDEO_SUFFIXES)
    frames = files_in(path, IMAGE_SUFFIXES)
    folders = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    folders = sorted((folder for folder in folders if files_in(folder, IMAGE_SUFFIXES)), key=natural_order)
    kinds = {"video files": files, "frames": frames, "folders of frames": folders}
    found = [kind for kind, entries in kinds.items() if entries]
    if len(found) > 1:
        raise ValueError(
            f"{argument}: expected videos of one kind in {path}, got {' and '.join(found)}; name those you mean, as "
            f"*.mp4"
        )
    same_suffix(path, files)
    return [path] if frames else files or folders or None


def read_videos(
    paths: Sequence[Path],
    argument: str,
    *,
    frame_rate: float | None,
    frame_shape: tuple[int, ...] | None,
    resize: bool,
    check_digests: bool,
    progress: bool,
) -> list[Trajectory]:
    """Read one trajectory of images for each video; see [`load_trajectories`][]."""
    if not paths:
        return []
    trajectories: list[Trajectory] = []
    others: list[str] = []
    with progress_bar("videos", len(paths), enabled=progress) as advance:
        for path in paths:
            described = read_description(path)
            if described is not None and check_digests:
                check_digest(path, described)
            check_shape = partial(check_frame_shape, expected=frame_shape, resize=resize, path=path, argument=argument)
            size = (frame_shape[0], frame_shape[1]) if resize and frame_shape is not None else None
            video = read_video(path, check_shape, size)
            if described is not None:  # believed more than the container, which rounds
                times = np.arange(len(video.frames) + 1) / described["frame_rate"]
                video = Video(video.frames, times, rounding=0.0)
            frames = video.frames
            chosen = frames_at_decisions(video, frame_rate)
            if chosen is not None:
                frames = frames[chosen]
                others.append(rate_in_words(video))
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


def check_frame_shape(
    shape: tuple[int, ...], expected: tuple[int, ...] | None, resize: bool, path: Path, argument: str
) -> None:
    """Check the shape of a video's frames against what the environment shows.

    :param expected: the environment's shape ``(H, W, C)``; ``None`` if it shows no images.
    :param resize: whether frames of another size will be resized.
    :raises ValueError: another shape.
    """
    if expected is None or shape == tuple(expected) or (resize and shape[2] == expected[2]):
        return
    advice = "make the environment with image_size=, or resize the video (resize=True, --resize)"
    if resize or shape[:2] == tuple(expected[:2]):
        advice = f"the video has {shape[2]} channels, the environment {expected[2]}"
    raise ValueError(f"{argument}: expected frames (H, W, C) of {tuple(expected)}, got {shape} in {path}; {advice}")
