"""Pictures with captions, and videos of them as files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from aime_gym.types import Array

#: Pixels: what video codecs want all sides to be a multiple of, and the height of the text above a picture.
BLOCK, LINE = 16, 48
_BACKGROUND = "#16181d"
_SUFFIXES = (".mp4", ".gif")


def check_video_path(path: Path, argument: str = "path") -> None:
    """:raises ValueError: a file of another kind than can be written."""
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{argument}: expected a file that ends in {' or '.join(_SUFFIXES)}, got {path}")


def captioned(picture: Array | Image.Image, title: str, text: str, *, mark: str | None = None, least: int = 0) -> Array:
    """A picture (H, W, 3) of bytes below two lines of text, with sides that are multiples of 16.

    :param mark: in the upper right corner, as something to notice.
    :param least: width for the text to fit in.
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    width, height = (-(-side // BLOCK) * BLOCK for side in (max(least, image.width), image.height))
    whole = Image.new("RGB", (width, height + LINE), _BACKGROUND)
    whole.paste(image, ((width - image.width) // 2, LINE))
    draw = ImageDraw.Draw(whole)
    draw.text((10, 4), title, fill="white", font=ImageFont.load_default(size=18))
    draw.text((10, 26), text, fill="#b8bcc6", font=ImageFont.load_default(size=14))
    if mark:
        draw.text((width - 10, 6), mark, fill="#4fd07f", font=ImageFont.load_default(size=16), anchor="ra")
    return np.asarray(whole)


def write_video(path: Path, frames: Iterable[Array], rate: float) -> None:
    """Write frames (H, W, 3) of bytes, as many a second; nothing is written before the first one is there.

    :param path: ends in ``.mp4`` or ``.gif``.
    """
    check_video_path(path)
    options: dict[str, Any] = (
        {"duration": 1000 / rate, "loop": 0}
        if path.suffix.lower() == ".gif"
        else {"fps": rate, "codec": "libx264", "quality": 8, "macro_block_size": BLOCK}
    )
    writer: Any = None
    try:
        for frame in frames:
            if writer is None:
                writer = imageio.get_writer(path, **options)
            writer.append_data(frame)
    finally:
        if writer is not None:
            writer.close()
