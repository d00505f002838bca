"""Decoding of one video: the frames and times of a video file, a gif or a folder of pictures.

PyAV reads video files; Pillow reads gifs and pictures. Both are held to the formats that are named here, whatever a
file claims to be, and open nothing but the file itself.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageOps, ImageSequence

from aime_gym.data.paths import files_in
from aime_gym.types import Array
from aime_gym.wrappers.modality import resized

CONTAINER_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm")
VIDEO_SUFFIXES = (*CONTAINER_SUFFIXES, ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

#: FFmpeg's demuxers for the containers, and Pillow's plugins for the others.
_DEMUXERS = ("mov", "matroska", "avi")
_GIF_FORMATS = ("GIF",)
_IMAGE_FORMATS = ("PNG", "JPEG")
#: Pixels of one frame, and bytes of one decoded video, beyond which a file is refused.
_MOST_PIXELS = 2**26
_MOST_BYTES = 2**32
#: Pictures of 8 bits by Pillow's mode, and their channels; others are refused.
_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
#: Decoders that keep the alpha channel of WebM, which FFmpeg's own decoders of these codecs drop.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
#: Errors that Pillow raises for damaged files.
_PILLOW_ERRORS = (OSError, EOFError, SyntaxError, LookupError, struct.error, Image.DecompressionBombError)


class Video(NamedTuple):
    """Frames, and when each of them is shown."""

    #: (N, H, W, C), ``uint8``.
    frames: Array
    #: (N + 1,) seconds: when each frame appears, and when the last one goes. ``None`` where the file does not say.
    times: Array | None
    #: Seconds to which the file rounds its times.
    rounding: float


#: Called with the shape (H, W, C) of a video's first frame; raises where it is not the expected one.
ShapeCheck = Callable[[tuple[int, ...]], None]


def read_video(path: Path, check_shape: ShapeCheck, size: tuple[int, int] | None = None) -> Video:
    """Read a video file, a gif, or a folder of numbered pictures.

    :param check_shape: called with ``(H, W, C)`` after the first frame is decoded and before the others are.
    :param size: height and width to which each frame is resized; ``None`` leaves it as it is.
    :raises ValueError: the video is unreadable, damaged, cut short or too large for memory, its frames differ in size,
        or are no pictures of 8 bits; a folder with gaps in its numbering, or with several kinds of files. The message
        names the file.
    """
    frames = _Frames(check_shape, size)
    if path.is_dir():
        return _read_folder(path, frames)
    return (_read_gif if path.suffix.lower() == ".gif" else _read_container)(path, frames)


def read_pictures(
    contents: Iterable[bytes], path: Path, check_shape: ShapeCheck, size: tuple[int, int] | None = None
) -> Array:
    """Read encoded pictures of one file, ``(N, H, W, C)``; bounds and errors are those of [`read_video`][].

    :param contents: PNG or JPEG of each picture.
    """
    frames = _Frames(check_shape, size)
    for content in contents:
        frames.append(_read_picture(path, BytesIO(content)), path)
    return frames.stacked(path)


def same_suffix(folder: Path, paths: Sequence[Path]) -> None:
    """Make sure that all files of a folder are of one kind.

    :raises ValueError: several kinds. The message names the folder and the kinds.
    """
    kinds = sorted({path.suffix.lower() for path in paths})
    if len(kinds) > 1:
        raise ValueError(f"{folder}: expected files of one kind, got {', '.join(kinds)}; name those you mean, as *.mp4")


def damaged_video(path: Path, reason: object) -> ValueError:
    """Return the error for a file that is not as it was written."""
    return ValueError(f"{path}: expected a readable video, but it is damaged or cut short ({reason})")


class _Frames:
    """The decoded frames of one video, all of one shape and within the bounds on memory."""

    def __init__(self, check_shape: ShapeCheck, size: tuple[int, int] | None) -> None:
        self._check_shape, self._size = check_shape, size
        self._shape: tuple[int, ...] = ()
        self._frames: list[Array] = []
        self._bytes = 0

    def append(self, frame: Array, path: Path) -> None:
        """Add a frame (H, W, C), read from ``path``."""
        if not self._frames:
            self._check_shape(frame.shape)
            self._shape = frame.shape
        elif frame.shape != self._shape:
            raise ValueError(f"{path}: expected a picture of {self._shape} as the first one, got {frame.shape}")
        if self._size not in (None, frame.shape[:2]):
            frame = resized(frame, *self._size)
        self._bytes += frame.nbytes
        if self._bytes > _MOST_BYTES:
            raise ValueError(f"{path}: expected at most {_MOST_BYTES} bytes of decoded frames, got more")
        self._frames.append(frame)

    def stacked(self, path: Path) -> Array:
        """Return all frames, (N, H, W, C)."""
        if not self._frames:
            raise damaged_video(path, "it has no frames")
        return np.stack(self._frames)


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > _MOST_PIXELS:
        raise ValueError(f"{path}: expected at most {_MOST_PIXELS} pixels in a frame, got {width} x {height}")


# ---- video files ----


def _read_container(path: Path, frames: _Frames) -> Video:
    seconds: list[Fraction | None] = []
    try:
        with path.open("rb") as file, _open(path, file) as container:
            _check_complete(path, container.format.name)
            stream = _main_stream(path, container)
            _check_size(path, stream.width, stream.height)
            reformatter = VideoReformatter()
            for frame in _decoded(path, container, stream):
                frames.append(_pixels(path, frame, reformatter), path)
                seconds.append(None if frame.pts is None or stream.time_base is None else frame.pts * stream.time_base)
            rate = stream.guessed_rate
    except (av.FFmpegError, OSError) as error:
        raise damaged_video(path, error.strerror or error) from error
    return Video(frames.stacked(path), _times(seconds, rate), rounding=1e-3)  # of Matroska and WebM


def _open(path: Path, file: IO[bytes]) -> av.container.InputContainer:
    # FFmpeg gets the open file instead of its name, and may open no other: a playlist could name any file or address.
    options = {"format_whitelist": ",".join(_DEMUXERS), "protocol_whitelist": "none"}
    try:
        return av.open(file, "r", options=options)
    except av.ArgumentError as error:
        raise ValueError(f"{path}: expected MP4, QuickTime, Matroska, WebM or AVI, got another format") from error


def _main_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    """Return the first stream of pictures that is no cover."""
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    for stream in container.streams.video:
        if not stream.disposition & covers:
            if stream.codec_context is None:
                raise damaged_video(path, "its codec is unknown")
            return stream
    raise damaged_video(path, "it has no frames")


def _decoded(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Decode each frame as it is stored; the first error ends it."""
    decoder: av.CodecContext = stream.codec_context
    if stream.metadata.get("alpha_mode") == "1" and decoder.name in _ALPHA_DECODERS:
        decoder = av.CodecContext.create(_ALPHA_DECODERS[decoder.name], "r")
        decoder.extradata = stream.codec_context.extradata
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_type = "AUTO"
    decoder.options = {"max_pixels": str(2 * _MOST_PIXELS)}  # with the padding to whole blocks
    for packet in container.demux(stream):
        for frame in decoder.decode(packet):
            if packet.is_corrupt or frame.is_corrupt:
                raise damaged_video(path, f"frame at {frame.pts} is incomplete")
            yield frame


def _pixels(path: Path, frame: av.VideoFrame, reformatter: VideoReformatter) -> Array:
    """Convert a frame to (H, W, C) of 8 bits, grey, RGB or RGBA, turned as the container says."""
    stored = frame.format
    if stored.name.startswith("gray"):
        target = "gray"
    elif any(component.is_alpha for component in stored.components) and not stored.has_palette:
        target = "rgba"
    else:
        target = "rgb24"
    pixels = reformatter.reformat(frame, format=target).to_ndarray()
    return _turned(path, pixels.reshape(*pixels.shape[:2], -1), frame)


def _turned(path: Path, pixels: Array, frame: av.VideoFrame) -> Array:
    """Turn and mirror a picture by quarter turns, as a display does."""
    side_data = cast(Mapping[str, Any], frame.side_data)
    if "DISPLAYMATRIX" not in side_data:
        return pixels
    # 3 x 3 of fixed-point numbers, by columns: (x', y') = (a x + c y, b x + d y).
    a, b, _, c, d = np.sign(np.frombuffer(bytes(side_data["DISPLAYMATRIX"]), np.int32)[:5])
    if (abs(a), abs(d)) == (0, 0) and b and c:
        return pixels.swapaxes(0, 1)[::b, ::c]
    if (abs(b), abs(c)) == (0, 0) and a and d:
        return pixels[::d, ::a]
    raise ValueError(f"{path}: expected frames turned by quarter turns, got another angle")


def _times(seconds: Sequence[Fraction | None], rate: Fraction | None) -> Array | None:
    """Return the times (N + 1,) from 0 on; the last frame is shown for as long as most of the others."""
    times = np.array([float(second) for second in seconds if second is not None])
    if len(times) == len(seconds) > 1 and (np.diff(times) > 0).all():
        return np.append(times, times[-1] + np.median(np.diff(times))) - times[0]
    return np.arange(len(seconds) + 1) / float(rate) if rate else None


def _check_complete(path: Path, demuxer: str) -> None:
    """Compare a file's size with where its outermost elements end: FFmpeg is content with the frames so far."""
    size_of = next(_ELEMENTS[name] for name in _DEMUXERS if name in demuxer.split(","))
    size = path.stat().st_size
    end = 0
    with path.open("rb") as file:
        while end < size:
            file.seek(end)
            length = size_of(file)
            if not length:
                return
            end += length
    if end > size:
        raise damaged_video(path, f"{size} of {end} bytes are there")


def _size_of_atom(file: IO[bytes]) -> int:
    """Return the bytes of an atom of MP4 and QuickTime; 0 for one up to the end of the file, and for anything else."""
    head = file.read(16)
    if head[4:8] not in _ATOMS:  # cameras append what is no atom
        return 0
    size = int.from_bytes(head[:4])
    size = int.from_bytes(head[8:]) if size == 1 else size
    return size if size >= 8 else 0


def _size_of_riff(file: IO[bytes]) -> int:
    """Return the bytes of a RIFF chunk; 0 for anything else."""
    head = file.read(8)
    return 8 + int.from_bytes(head[4:], "little") if head[:4] == b"RIFF" else 0


def _size_of_ebml(file: IO[bytes]) -> int:
    """Return the bytes of an element of Matroska; 0 for anything else.

    Of an element of unknown size, as in a live recording, these are the bytes of its head: its parts follow.
    """
    head = file.read(12)
    # The leading zeros of a number tell how many bytes it has: up to 4 of an identifier, up to 8 of a size.
    if not head or head[0] < 0x10:
        return 0
    number = head[9 - head[0].bit_length() :]
    length = 9 - number[0].bit_length() if number else 1
    ones = (1 << 7 * length) - 1
    size = int.from_bytes(number[:length]) & ones
    return len(head) - len(number) + length + (0 if size == ones or len(number) < length else size)


#: Outermost atoms of MP4 and QuickTime.
_ATOMS = frozenset(b"ftyp styp moov moof mdat free skip wide pnot uuid sidx ssix mfra meta pdin prft emsg".split())
_ELEMENTS = {"mov": _size_of_atom, "matroska": _size_of_ebml, "avi": _size_of_riff}


# ---- gifs and pictures ----


def _read_gif(path: Path, frames: _Frames) -> Video:
    delays = []
    with _pillow(path, _GIF_FORMATS) as image:
        for frame in ImageSequence.Iterator(image):
            frames.append(np.asarray(frame.convert("RGB")), path)
            delays.append(frame.info.get("duration", 0) / 1000)
    if not path.read_bytes().rstrip(b"\0").endswith(b";"):  # Pillow is content with the frames so far
        raise damaged_video(path, "its end is missing")
    times = np.cumsum([0.0, *delays]) if all(delays) else None  # a delay of 0 says: as fast as possible
    return Video(frames.stacked(path), times, rounding=1e-2)


def _read_folder(folder: Path, frames: _Frames) -> Video:
    paths = files_in(folder, IMAGE_SUFFIXES)
    same_suffix(folder, paths)
    for path in _numbered(folder, paths):
        frames.append(_read_picture(path), path)
    return Video(frames.stacked(folder), None, rounding=0.0)


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


def _read_picture(path: Path, content: IO[bytes] | None = None) -> Array:
    """Read a picture (H, W, C), turned as its EXIF orientation says: of a file, or of a part of one."""
    with _pillow(path, _IMAGE_FORMATS, content) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode == "P":  # colours by number
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        elif image.mode == "1":
            image = image.convert("L")
        if image.mode not in _CHANNELS:
            raise ValueError(f"{path}: expected 8 bits of grey, RGB or RGBA, got a picture of mode {image.mode}")
        return np.asarray(image).reshape(image.height, image.width, _CHANNELS[image.mode])


@contextmanager
def _pillow(path: Path, formats: tuple[str, ...], content: IO[bytes] | None = None) -> Iterator[Image.Image]:
    try:
        with Image.open(content or path, formats=formats) as image:
            _check_size(path, image.width, image.height)
            yield image
    except _PILLOW_ERRORS as error:
        raise damaged_video(path, error) from error
