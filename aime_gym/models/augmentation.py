"""Random shifts of images (Kostrikov, Yarats and Fergus 2020, arXiv 2004.13649)."""

from __future__ import annotations

import torch
from torch import Tensor

from aime_gym.models.flat_layout import FlatLayout

#: The papers' largest shift, and the side of their frames.
_SHIFT, _SIDE = 4, 84


def largest_shift(height: int, width: int) -> int:
    """The papers' 4 pixels of 84, for images of another size."""
    return round(_SHIFT * min(height, width) / _SIDE)


def random_shift(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Each image (N, H, W, C) moved by up to ``shift`` pixels on both axes, its edge repeated where nothing was.

    All channels of an image move alike, and so do the frames of a stack along them.

    :param generator: on the CPU.
    """
    if not shift:
        return images
    count, height, width = images.shape[:3]
    moves = torch.randint(-shift, shift + 1, (2, count, 1), generator=generator)
    rows = (torch.arange(height) + moves[0]).clamp(0, height - 1).to(images.device)  # (N, H)
    columns = (torch.arange(width) + moves[1]).clamp(0, width - 1).to(images.device)
    which = torch.arange(count, device=images.device)[:, None, None]
    return images[which, rows[:, :, None], columns[:, None, :]]


def shifted(layout: FlatLayout, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Flat observations (N, D) with the images of each row shifted at random; vectors stay as they are."""
    if not layout.images:
        return rows
    vectors, images = layout.split(rows)
    moved = [random_shift(image, largest_shift(*image.shape[1:3]), generator) for image in images]
    return layout.join(vectors if layout.vectors else None, moved)
