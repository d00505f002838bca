"""Random shifts of images (Kostrikov, Yarats and Fergus 2020, arXiv 2004.13649)."""

from __future__ import annotations

import torch
from torch import Tensor

#: The papers' largest shift, and the side of their frames.
_SHIFT, _SIDE = 4, 84


def augment(values: Tensor, generator: torch.Generator) -> Tensor:
    """Shift images (N, C, H, W) at random, as far as the papers do; return vectors (N, D) as they are."""
    if values.ndim != 4:
        return values
    return random_shift(values, largest_shift(*values.shape[-2:]), generator)


def largest_shift(height: int, width: int) -> int:
    """Return the papers' 4 pixels of 84, for images of another size."""
    return round(_SHIFT * min(height, width) / _SIDE)


def random_shift(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Move each image (N, C, H, W) by up to ``shift`` pixels on both axes, and repeat its edge in the gap.

    All channels of an image move alike, and so do the frames of a stack along them.

    :param generator: randomness, on the CPU.
    """
    if not shift:
        return images
    height, width = images.shape[-2:]
    moves = torch.randint(-shift, shift + 1, (2, len(images), 1), generator=generator)
    rows = (torch.arange(height) + moves[0]).clamp(0, height - 1).to(images.device)  # (N, H)
    columns = (torch.arange(width) + moves[1]).clamp(0, width - 1).to(images.device)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    return images.movedim(1, -1)[image, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
