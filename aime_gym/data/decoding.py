"""Frames and their times, from a video file, a gif or a folder of pictures; what is cut short is found out.

ffmpeg (of imageio-ffmpeg) reads video files, and Pillow the others: ffmpeg would merge a gif's equal frames.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageSequence

from aime_gym.data.aime_folder import natural_order
from aime_gym.types import Array

FFMPEG_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm")
VIDEO_SUFFIXES = (*FFMPEG_SUFFIXES, ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

#: Pictures of 8 bits by Pillow's mode, and their channels; others are refused.
_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
#: ffmpeg's pixel formats with transparency.
_ALPHA = re.compile(r"yuva|gbrap|ya\d|rgba|bgra|argb|abgr|ayuv|vuya")
_FRAME = re.compile(r"\] n: *\d+ .*?pts_time:(\S+).*? fmt:(\S+) .*?\bs:(\d+)x(\d+)")
_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d\.\d+)")


class Video(NamedTuple):
    """What was shown, and when."""

    #: (N, H, W, C), ``uint8``.
    frames: Array
    #: (N + 1,) seconds: when each frame appears, and when the last one goes. ``None`` where nobody knows.
    times: Array | None
    #: Seconds to which the file rounds its times.
    rounding: float


#: Told the shape of a video's frames as soon as it is known; raises where it is not the expected one.
ShapeCheck = Callable[[tuple[int, int, int]], None]


def read_video(path: Path, check_shape: ShapeCheck) -> Video:
    """Read a video file, a gif, or a folder of numbered pictures.

    :param check_shape: told ``(H, W, C)`` before the whole is decoded.
    :raises ValueError: the video is unreadable, damaged or cut short, its frames differ in size, or are no pictures of
        8 bits; a folder with gaps in its numbering, or with several kinds of files. The message names the file.
    """
    if path.is_dir():
        return _read_folder(path, check_shape)
    return (_read_gif if path.suffix.lower() == ".gif" else _read_with_ffmpeg)(path, check_shape)


def pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, in natural order."""
    return sorted((path for path in folder.iterdir() if _is_kind(path, IMAGE_SUFFIXES)), key=natural_order)


def videos(folder: Path) -> list[Path]:
    """The video files of a folder, in natural order."""
    return sorted((path for path in folder.iterdir() if _is_kind(path, VIDEO_SUFFIXES)), key=natural_order)


def same_suffix(folder: Path, paths: Sequence[Path]) -> None:
    """Make sure that all files of a folder are of one kind.

    :raises ValueError: the folder and its kinds.
    """
    kinds = sorted({path.suffix.lower() for path in paths})
    if len(kinds) > 1:
        raise ValueError(f"{folder}: expected files of one kind, got {', '.join(kinds)}; name those you mean, as *.mp4")


def _is_kind(path: Path, suffixes: tuple[str, ...]) -> bool:
    # Hidden files are left behind by other systems: "._000.mp4" is no video.
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


def _damaged(path: Path, why: object) -> ValueError:
    return ValueError(f"{path}: expected a readable video, but it is damaged or cut short ({why})")


# ---- video files ----


def _read_with_ffmpeg(path: Path, check_shape: ShapeCheck) -> Video:
    # Its times and messages go to a file: a pipe that nobody empties would stop ffmpeg.
    with tempfile.NamedTemporaryFile() as file, _ffmpeg(path, file) as process:
        log = Path(file.name)
        assert process.stdout is not None
        first = process.stdout.read(1)
        shown = _FRAME.findall(log.read_text(errors="replace"))
        if not first or not shown:
            process.wait()
            raise _damaged(path, _complaint(log.read_text(errors="replace")) or "it has no frames")
        _, pixels, width, height = shown[0]
        channels = 1 if pixels.startswith("gray") else 4 if _ALPHA.match(pixels) else 3
        shape = (int(height), int(width), channels)
        check_shape(shape)
        data = first + process.stdout.read()
        status, text = process.wait(), log.read_text(errors="replace")
    shown = _FRAME.findall(text)
    if len({(width, height) for _, _, width, height in shown}) > 1:
        raise ValueError(f"{path}: expected frames of one size, got a video that changes it")
    complaint = _complaint(text)
    if status or complaint:
        raise _damaged(path, complaint or f"ffmpeg ends with status {status}")
    if len(data) != len(shown) * shape[0] * shape[1] * 4:
        raise _damaged(path, "a frame is incomplete")
    frames = np.frombuffer(data, np.uint8).reshape(len(shown), *shape[:2], 4)[..., :channels]
    times = _times([time for time, *_ in shown], text)
    _check_complete(path, times, text)
    return Video(frames, None if times is None else times - times[0], rounding=1e-3)  # of Matroska and WebM


@contextmanager
def _ffmpeg(path: Path, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Decode to RGBA, which holds all kinds of pixels, each frame as it is stored; the first error ends it."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-nostats", "-xerror"]
    # No protocol but files: what a file refers to is not fetched. 0:V:0 is the first stream that is no cover picture.
    command += ["-protocol_whitelist", "file", "-i", f"file:{path}", "-map", "0:V:0", "-vf", "showinfo=checksum=0"]
    command += ["-fps_mode", "passthrough", "-pix_fmt", "rgba", "-f", "rawvideo", "-"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _complaint(text: str) -> str | None:
    """What ffmpeg has to say of a damaged file; some of it ends with status 0."""
    found = re.search(
        # What follows no bracket may be the file's name, or its title.
        r"^\[(?!Parsed_showinfo)[^\]]* @ 0x[0-9a-f]+\] (.*(?:prematurely|partial file|orrupt|not found|rror opening|"
        r"rror while|nvalid (?:data|NAL|argument)|matches no streams).*)$",
        text,
        re.MULTILINE,
    )
    return found[1].strip() if found else None


def _times(seconds: Sequence[str], text: str) -> Array | None:
    """(N + 1,); the last frame is shown for as long as most of the others."""
    if not any("N" in second for second in seconds) and len(seconds) > 1:  # NOPTS: a container without times
        times = np.array([float(second) for second in seconds])
        if (np.diff(times) > 0).all():
            return np.append(times, times[-1] + np.median(np.diff(times)))
    rate = re.search(r"frame_rate: (\d+)/(\d+)", text)
    if rate is None or not int(rate[1]) or not int(rate[2]):
        return None
    return np.arange(len(seconds) + 1) * (int(rate[2]) / int(rate[1]))


def _check_complete(path: Path, times: Array | None, text: str) -> None:
    """Compare with what the container promises."""
    with path.open("rb") as file:
        head = file.read(12)
    # An AVI's duration is no promise: ffmpeg corrects it by the size of the file.
    if head[:4] == b"RIFF" and path.stat().st_size < (promised := int.from_bytes(head[4:8], "little")):
        raise _damaged(path, f"{path.stat().st_size} of {promised} bytes are there")
    duration = _DURATION.search(text)
    if times is None or duration is None:
        return
    seconds = 3600 * int(duration[1]) + 60 * int(duration[2]) + float(duration[3])
    slack = 1.5 * (times[-1] - times[-2]) + 0.02
    if re.search(r"Stream #.* Audio:", text):  # the duration is the longer one of the two
        slack = max(slack, 0.5, 0.1 * seconds)
    if times[-1] < seconds - slack:
        raise _damaged(path, f"it ends after {times[-1]:.2f} of {seconds:.2f} seconds")


# ---- gifs and pictures ----


def _read_gif(path: Path, check_shape: ShapeCheck) -> Video:
    with _pillow(path) as image:
        check_shape((image.height, image.width, 3))
        frames, delays = [], []
        for frame in ImageSequence.Iterator(image):
            frames.append(np.asarray(frame.convert("RGB")))
            delays.append(frame.info.get("duration", 0) / 1000)
    if not path.read_bytes().rstrip(b"\0").endswith(b";"):  # Pillow is content with the frames so far
        raise _damaged(path, "its end is missing")
    times = np.cumsum([0.0, *delays]) if all(delays) else None  # a delay of 0 says: as fast as possible
    return Video(np.stack(frames), times, rounding=1e-2)


def _read_folder(folder: Path, check_shape: ShapeCheck) -> Video:
    paths = pictures(folder)
    same_suffix(folder, paths)
    frames: list[Array] = []
    for path in _numbered(folder, paths):
        frame = _read_picture(path)
        if not frames:
            check_shape(frame.shape)
        elif frame.shape != frames[0].shape:
            raise ValueError(f"{path}: expected a picture of {frames[0].shape} as the first one, got {frame.shape}")
        frames.append(frame)
    return Video(np.stack(frames), None, rounding=0.0)


def _numbered(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """Sort by the last number in each name."""
    by_number: dict[int, Path] = {}
    for path in paths:
        digits = re.findall(r"[0-9]+", path.stem)
        if not digits:
            raise ValueError(f"{path}: expected a number in the name of each frame, got none")
        other = by_number.setdefault(int(digits[-1]), path)
        if other is not path:
            raise ValueError(f"{folder}: expected one frame of each number, got {other.name} and {path.name}")
    numbers = sorted(by_number)
    for expected, number in enumerate(numbers, start=numbers[0]):
        if number != expected:
            raise ValueError(f"{folder}: expected frames numbered without gaps, but number {expected} is missing")
    return [by_number[number] for number in numbers]


def _read_picture(path: Path) -> Array:
    """(H, W, C)."""
    with _pillow(path) as opened:
        image = opened
        if image.mode == "P":  # colours by number
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        elif image.mode == "1":
            image = image.convert("L")
        if image.mode not in _CHANNELS:
            raise ValueError(f"{path}: expected 8 bits of grey, RGB or RGBA, got a picture of mode {image.mode}")
        return np.asarray(image).reshape(image.height, image.width, _CHANNELS[image.mode])


@contextmanager
def _pillow(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, EOFError, SyntaxError, IndexError, struct.error) as error:  # its errors of damaged files
        raise _damaged(path, error) from error
