"""Pictures with captions, for videos that people look at."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from aime_gym.types import Array

#: Pixels: what video codecs want all sides to be a multiple of, and the height of the text above a picture.
BLOCK, LINE = 16, 48
_BACKGROUND = "#16181d"


def captioned(picture: Array | Image.Image, title: str, text: str, *, mark: str | None = None, least: int = 0) -> Array:
    """Return a picture (H, W, 3), ``uint8``, below two lines of text, with sides that are multiples of 16.

    :param mark: short text in the upper right corner, as something to notice.
    :param least: smallest width in pixels, for the text to fit in.
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
