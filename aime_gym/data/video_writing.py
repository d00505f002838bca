"""Videos that hold the frames bit by bit: a discriminator tells compressed frames from raw ones at a glance."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
from PIL import Image

from aime_gym.data.minari import described_env
from aime_gym.data.video import DESCRIPTION, frame_rate_of
from aime_gym.types import Array, Trajectory, sensors

#: LazyImages per second at most: a gif counts in centiseconds.
_GIF_RATE = 100
_GIF_COLOURS = 256


def save_video(
    path: str | os.PathLike[str], video: Array | Trajectory, frame_rate: float, *, sensor: str | None = None
) -> Path:
    """Write frames as they are: :func:`load_trajectories` gives back the same, to the last bit.

    Of a gif that holds for up to 256 colours in each frame; beyond that it warns.

    :param path: ``.mp4`` (H.264 without loss, which browsers do not play), ``.gif``; or the folder, without a suffix
        and not there yet, of one ``.png`` for each frame.
    :param video: frames ``(T + 1, H, W, C)``, ``uint8``; or a trajectory of them.
    :param frame_rate: frames per second. A gif rounds it, and a folder forgets it.
    :param sensor: which of the trajectory's sensors; ``None`` takes the one that has images.
    :raises ValueError: another suffix, no images, channels that the format has no room for, a rate that is not
        positive, or one above 100 for a gif.
    :raises FileExistsError: the folder exists.
    """
    path = Path(path)
    frames = _frames(video, sensor)
    if not frame_rate > 0:
        raise ValueError(f"frame_rate: expected a positive number, got {frame_rate}")
    suffix = path.suffix.lower()
    if suffix not in (".mp4", ".gif", ""):
        raise ValueError(f"path: expected .mp4, .gif or a folder without a suffix, got {path}")
    channels = frames.shape[3]
    if channels != 3 and (suffix or channels not in (1, 4)):
        kinds = "3 channels" if suffix else "1, 3 or 4 channels"
        raise ValueError(f"video: expected frames of {kinds} for {path.name}, got {channels}")
    if suffix == ".gif" and frame_rate > _GIF_RATE:
        raise ValueError(f"frame_rate: expected at most {_GIF_RATE} for a gif, got {frame_rate:g}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not suffix:
        path.mkdir()
        for index, frame in enumerate(frames):
            Image.fromarray(frame[..., 0] if channels == 1 else frame).save(path / f"{index:06d}.png")
    elif suffix == ".gif":
        # Not by Pillow, which makes one of two equal frames. Whole frames: their palettes differ.
        options = ["-gifflags", "-offsetting-transdiff"]
        _encode(path, _with_palettes(frames, path), frames.shape, frame_rate, "gif", "pal8", options)
    else:
        # In RGB: the conversion to YUV, which most videos are stored in, rounds.
        options = ["-qp", "0", "-preset", "veryfast"]
        _encode(path, map(bytes, frames), frames.shape, frame_rate, "libx264rgb", "rgb24", options)
    return path


def save_videos(
    folder: str | os.PathLike[str],
    trajectories: Sequence[Trajectory],
    env: gym.Env,
    *,
    sensor: str | None = None,
    policy: str | None = None,
) -> Path:
    """Write the images of trajectories, without actions and rewards: ``000.mp4`` and so on, without loss.

    Beside them stands ``videos.json``: the environment's id and arguments, its exact frame rate, and the policy.

    :param folder: does not exist yet.
    :param env: where they come from; says how many decisions it takes per second.
    :param sensor: see :func:`save_video`.
    :param policy: whose episodes they are.
    :raises FileExistsError: the folder exists.
    :raises ValueError: nothing to write, no images, or an environment without a frame rate.
    """
    folder = Path(folder)
    rate = frame_rate_of(env)
    if rate is None:
        raise ValueError(f"env: expected decisions per second in metadata['render_fps'], got {env.metadata}")
    if not trajectories:
        raise ValueError("trajectories: expected at least one trajectory, got none")
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: choose another name, or remove it first")
    digits = max(3, len(str(len(trajectories) - 1)))
    names = [f"{index:0{digits}d}.mp4" for index in range(len(trajectories))]
    # Built beside its place and moved at the end, so that an interruption leaves no half of a dataset there.
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for name, trajectory in zip(names, trajectories, strict=True):
            save_video(partial / name, trajectory, rate, sensor=sensor)
        described = {**described_env(env.spec), "frame_rate": rate, "policy": policy, "videos": names}
        (partial / DESCRIPTION).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _frames(video: Array | Trajectory, sensor: str | None) -> Array:
    if isinstance(video, Trajectory):
        shown = sensors(video.observations)
        images = [name for name, values in shown.items() if values.dtype == np.uint8 and values.ndim == 4]
        if sensor is None and len(images) != 1:
            raise ValueError(f"sensor: expected the name of one that has images, out of {images}, got None")
        if sensor is not None and sensor not in shown:
            raise ValueError(f"sensor: expected one of {sorted(shown)}, got {sensor!r}")
        video = shown[images[0] if sensor is None else sensor]
    frames = np.asarray(video)
    if frames.dtype != np.uint8 or frames.ndim != 4 or not frames.size:
        raise ValueError(f"video: expected uint8 frames (T+1, H, W, C), got {frames.dtype} {frames.shape}")
    return np.ascontiguousarray(frames)


def _with_palettes(frames: Array, path: Path) -> Iterator[bytes]:
    """Each frame as ffmpeg's ``pal8``: numbers of colours, then the colours in BGRA."""
    reduced = False
    for frame in frames:
        packed = frame.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        colours, numbers = np.unique(packed, return_inverse=True)
        if len(colours) > _GIF_COLOURS:
            image = Image.fromarray(frame).quantize(_GIF_COLOURS, dither=Image.Dither.NONE)
            numbers = np.asarray(image)
            table = np.array(image.getpalette(), np.uint32).reshape(-1, 3)
            colours = table @ np.array([1 << 16, 1 << 8, 1], np.uint32)
            reduced = True
        palette = np.full(_GIF_COLOURS, 0xFF << 24, "<u4")
        palette[: len(colours)] |= colours.astype("<u4")
        yield numbers.astype(np.uint8).tobytes() + palette.tobytes()
    if reduced:
        warnings.warn(
            f"{path}: a gif has {_GIF_COLOURS} colours in a frame at most, and some frames have more: it does not hold "
            f"the frames that the environment showed; .mp4 does",
            stacklevel=3,
        )


def _encode(
    path: Path,
    frames: Iterator[bytes],
    shape: Sequence[int],
    rate: float,
    codec: str,
    pixels: str,
    options: list[str],
) -> None:
    height, width = shape[1:3]
    writer = imageio_ffmpeg.write_frames(
        f"file:{path}",
        (width, height),
        pix_fmt_in=pixels,
        pix_fmt_out=pixels,
        fps=rate,
        codec=codec,
        quality=None,  # the codec's options say it
        macro_block_size=1,  # any size, without scaling
        ffmpeg_log_level="error",
        output_params=options,
    )
    writer.send(None)
    for frame in frames:
        writer.send(frame)
    writer.close()
