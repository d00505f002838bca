"""Writing of videos, in one piece or not at all: demonstrations without loss, and others as browsers play them.

A discriminator tells compressed frames from raw ones at a glance, so demonstrations hold the frames bit by bit.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
import gymnasium as gym
import imageio.v3 as imageio
import numpy as np
from PIL import Image

from aime_gym.data.minari import described_env
from aime_gym.data.resampling import check_frame_rate, frame_rate_of
from aime_gym.data.video_description import write_description
from aime_gym.serialization import atomically, new_folder
from aime_gym.types import Array, Trajectory, sensors

#: Frames per second at most: a gif counts in centiseconds.
_GIF_RATE = 100
_GIF_COLOURS = 256


class _Codec(NamedTuple):
    """Way in which FFmpeg stores frames."""

    container: str
    name: str
    pixels: str
    options: dict[str, str]


#: H.264 in RGB: the conversion to YUV, which most videos are stored in, rounds.
_LOSSLESS = _Codec("mp4", "libx264rgb", "rgb24", {"qp": "0", "preset": "veryfast"})
_SMALL = _Codec("mp4", "libx264", "yuv420p", {"crf": "10"})
#: Not by Pillow, which makes one of two equal frames. Whole frames: their palettes differ.
_GIF = _Codec("gif", "gif", "pal8", {"gifflags": "-offsetting-transdiff"})
_SUFFIXES = (".mp4", ".gif")


def check_video_path(path: Path, argument: str = "path") -> None:
    """Make sure that a video can be written to a path.

    :raises ValueError: a suffix other than ``.mp4`` and ``.gif``.
    :raises IsADirectoryError: a folder.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{argument}: expected a file that ends in {' or '.join(_SUFFIXES)}, got {path}")
    if path.is_dir():
        raise IsADirectoryError(f"{argument}: expected a file, got the folder {path}")


def write_video(path: Path, frames: Iterable[Array], rate: float, *, lossless: bool = False) -> None:
    """Write a video file, which takes its name once it is complete.

    :param path: file ending in ``.mp4`` (H.264) or ``.gif``, of up to 256 colours in each frame.
    :param frames: images (H, W, 3), ``uint8``, of one shape. Sides are even, unless ``lossless``.
    :param rate: frames per second.
    :param lossless: whether an mp4 has the frames bit by bit, which browsers do not play.
    :raises ValueError: no frames, or another suffix.
    :raises OSError: the file cannot be written.
    """
    check_video_path(path)
    codec = _GIF if path.suffix.lower() == ".gif" else _LOSSLESS if lossless else _SMALL
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise ValueError("frames: expected at least one frame, got none")
    frame_rate = Fraction(float(rate)).limit_denominator(1_000_000)  # NumPy's float32 is no number to Fraction
    with _naming(path), atomically(path) as file, av.open(file, "w", format=codec.container) as container:
        stream = container.add_stream(codec.name, rate=frame_rate, options=codec.options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = codec.pixels
        for index, frame in enumerate(chain([first], remaining)):
            picture = _indexed(frame) if codec is _GIF else av.VideoFrame.from_ndarray(frame, "rgb24")
            picture.pts = index
            picture.time_base = 1 / frame_rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def save_video(
    path: str | os.PathLike[str], video: Array | Trajectory, frame_rate: float, *, sensor: str | None = None
) -> Path:
    """Write frames as they are: [`load_trajectories`][] gives back the same, to the last bit.

    Of a gif that holds for up to 256 colours in each frame; beyond that it warns. A file of that name is replaced once
    the new one is complete.

    :param path: ``.mp4`` (H.264 without loss, which browsers do not play), ``.gif``; or the folder, without a suffix
        and not there yet, of one ``.png`` for each frame.
    :param video: frames ``(T + 1, H, W, C)``, ``uint8``; or a trajectory of them.
    :param frame_rate: frames per second. A gif rounds it, and a folder forgets it.
    :param sensor: name of the trajectory's sensor; ``None`` takes the one that has images.
    :raises ValueError: another suffix, no images, channels that the format has no room for, a rate that is not
        positive, or one above 100 for a gif.
    :raises FileExistsError: the folder exists.
    :raises OSError: the file cannot be written.
    """
    path = Path(path)
    frames = _frames(video, sensor)
    check_frame_rate(frame_rate)
    suffix = path.suffix.lower()
    if suffix not in (*_SUFFIXES, ""):
        raise ValueError(f"path: expected .mp4, .gif or a folder without a suffix, got {path}")
    channels = frames.shape[3]
    if channels != 3 and (suffix or channels not in (1, 4)):
        kinds = "3 channels" if suffix else "1, 3 or 4 channels"
        raise ValueError(f"video: expected frames of {kinds} for {path.name}, got {channels}")
    if suffix == ".gif" and frame_rate > _GIF_RATE:
        raise ValueError(f"frame_rate: expected at most {_GIF_RATE} for a gif, got {frame_rate:g}")
    if suffix:
        write_video(path, frames, frame_rate, lossless=True)
        if suffix == ".gif" and any(len(_colours(frame)) > _GIF_COLOURS for frame in frames):
            warnings.warn(
                f"{path}: a gif has {_GIF_COLOURS} colours in a frame at most, and some frames have more: it does not "
                f"hold the frames that the environment showed; .mp4 does",
                stacklevel=2,
            )
        return path
    with _naming(path), new_folder(path) as folder:
        for index, frame in enumerate(frames):
            picture = frame[..., 0] if channels == 1 else frame
            # Encoded in memory: a file that imageio could not write, it would write again when it is collected.
            encoded = imageio.imwrite("<bytes>", picture, extension=".png", plugin="pillow")
            (folder / f"{index:06d}.png").write_bytes(encoded)
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

    Beside them stands ``videos.json``: the environment's id and arguments, its exact frame rate, the policy, and a
    digest of each file, by which [`load_trajectories`][] finds those that were damaged since.

    :param folder: path of the new folder.
    :param env: the environment that they come from; says how many decisions it takes per second.
    :param sensor: name of the trajectories' sensor; ``None`` takes the one that has images.
    :param policy: name of the policy that they show.
    :raises FileExistsError: the folder exists.
    :raises ValueError: nothing to write, no images, or an environment without a frame rate.
    :raises OSError: a file cannot be written.
    """
    folder = Path(folder)
    rate = frame_rate_of(env)
    if rate is None:
        raise ValueError(f"env: expected decisions per second in metadata['render_fps'], got {env.metadata}")
    if not trajectories:
        raise ValueError("trajectories: expected at least one trajectory, got none")
    digits = max(3, len(str(len(trajectories) - 1)))
    names = [f"{index:0{digits}d}.mp4" for index in range(len(trajectories))]
    with new_folder(folder) as unfinished:
        for name, trajectory in zip(names, trajectories, strict=True):
            save_video(unfinished / name, trajectory, rate, sensor=sensor)
        about = {**described_env(env.spec), "frame_rate": rate, "policy": policy}
        write_description(unfinished, names, about)
    return folder


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which path it is that cannot be written."""
    try:
        yield
    except FileExistsError:
        raise
    except (av.FFmpegError, OSError) as error:
        # Where the file's error ends the encoding, the encoder's hides it.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise OSError(reason.errno, reason.strerror, str(path)) from error


def _frames(video: Array | Trajectory, sensor: str | None) -> Array:
    """Return the images (T + 1, H, W, C) of one sensor."""
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


def _colours(frame: Array) -> Array:
    """Return the distinct colours of a frame (H, W, 3), each as one number 0xRRGGBB."""
    return np.unique(_packed(frame))


def _packed(frame: Array) -> Array:
    red, green, blue = np.moveaxis(frame.astype(np.uint32), -1, 0)
    return red << 16 | green << 8 | blue


def _indexed(frame: Array) -> av.VideoFrame:
    """Return a frame as indices into its own palette, of the nearest colours where it has more than 256."""
    colours, indices = np.unique(_packed(frame), return_inverse=True)
    if len(colours) > _GIF_COLOURS:
        image = Image.fromarray(frame).quantize(_GIF_COLOURS, dither=Image.Dither.NONE)
        indices = np.asarray(image)
        colours = _packed(np.array(image.getpalette(), np.uint8).reshape(-1, 3))
    palette = np.full(_GIF_COLOURS, 0xFF << 24, ">u4")  # opaque
    palette[: len(colours)] |= colours.astype(">u4")
    picture = indices.reshape(frame.shape[:2]).astype(np.uint8), palette.view(np.uint8).reshape(-1, 4)
    return av.VideoFrame.from_ndarray(picture, "pal8")  # type: ignore[arg-type]  # takes a pair for this format
