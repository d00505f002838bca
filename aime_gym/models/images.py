"""Convolutional networks of images: from ``uint8`` frames to an embedding, and from a latent feature to a frame.

Three kinds, for one frame of H x W x C with ``depth`` d:

    ha      the papers' (Ha and Schmidhuber 2018): four convolutions of width 4 and stride 2 without padding, to d, 2d,
            4d and 8d channels; for 64 x 64 alone
    stages  AIME-v2's of Meta-World: convolutions of width 4 and stride 2 with padding, each followed by instance
            normalisation and SiLU, until the map is less than 8 wide; any size
    patch   the first layer is a linear one on patches of 4 x 4 pixels, the last layer likewise; between them stages as
            above, without normalisation. The wide maps are what a convolution spends its time on, and a processor ten
            times as much as a matrix product of the same kind; any size

LazyImages stay ``uint8`` until they are here. Floating point ones are taken as what :func:`as_floats` makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.types import SensorShape, channels_first

KINDS = ("ha", "stages", "patch")
#: Side of a patch, and least width of a map that another stage halves.
_PATCH, _LEAST = 4, 8
#: Side of the frames that the papers' network is made for.
_HA_SIDE = 64


def as_floats(images: Tensor, shape: SensorShape) -> Tensor:
    """LazyImages (..., *shape) of bytes as numbers in [0, 1], channels last: (..., H, W, C)."""
    floats = images.to(torch.get_default_dtype()) / 255 if images.dtype == torch.uint8 else images
    return floats.movedim(-3, -1) if channels_first(shape) else floats


class ImageEncoder(nn.Module):
    """An embedding of frames.

    :param shape: of a frame, channels last or first.
    :param kind: ``ha``, ``stages`` or ``patch``.
    :param depth: channels d of the first layer.
    :raises ValueError: a shape that the kind does not take.
    """

    def __init__(self, shape: SensorShape, kind: str, depth: int) -> None:
        super().__init__()
        self.shape, self.kind = tuple(shape), kind
        plan = _Plan.of(self.shape, kind, depth)
        widths = [plan.channels, *plan.widths]
        self.patches = nn.Linear(_PATCH**2 * plan.channels, depth) if kind == "patch" else None
        if self.patches is not None:
            widths = widths[1:]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(before, after, 4, 2, 0 if kind == "ha" else 1))
            if kind == "stages":
                layers.append(nn.InstanceNorm2d(after, affine=True))
            if kind != "ha" or index < len(widths) - 2:
                layers.append(nn.ReLU() if kind == "ha" else nn.SiLU())
        self.net = nn.Sequential(*layers)
        #: Numbers in an embedding.
        self.size = plan.widths[-1] * plan.maps[-1][0] * plan.maps[-1][1]

    def forward(self, images: Tensor) -> Tensor:
        """LazyImages (..., *shape) -> embeddings (..., E)."""
        leading = images.shape[:-3]
        frames = as_floats(images, self.shape).flatten(0, -4) if len(leading) else as_floats(images, self.shape)[None]
        if self.kind != "ha":
            frames = frames - 0.5
        if self.patches is not None:
            frames = F.silu(self.patches(_to_patches(frames)))
        # A view with the channels last in memory, which convolutions are fastest on.
        out: Tensor = self.net(frames.permute(0, 3, 1, 2))
        return out.flatten(1).view(*leading, self.size)


class ImageDecoder(nn.Module):
    """The mean of frames, in [0, 1] if it is a good one.

    :param features: size of a latent feature.
    :param shape: of a frame, channels last or first.
    :param kind: as in :class:`ImageEncoder`, and ``depth`` likewise.
    :param sigmoid: keep the mean inside [0, 1], as the first AIME does; otherwise 0.5 is added, as in AIME-v2.
    """

    def __init__(self, features: int, shape: SensorShape, kind: str, depth: int, *, sigmoid: bool) -> None:
        super().__init__()
        self.kind, self.sigmoid = kind, sigmoid
        plan = _Plan.of(tuple(shape), kind, depth)
        self.height, self.width, channels = plan.height, plan.width, plan.channels
        self.start = (plan.widths[-1], *plan.maps[-1]) if kind != "ha" else (4 * plan.widths[-1], 1, 1)
        self.linear = nn.Linear(features, self.start[0] * self.start[1] * self.start[2])
        layers: list[nn.Module] = []
        if kind == "ha":
            widths, kernels = [self.start[0], 4 * depth, 2 * depth, depth, channels], (5, 5, 6, 6)
            for index, kernel in enumerate(kernels):
                layers.append(nn.ConvTranspose2d(widths[index], widths[index + 1], kernel, 2))
                layers += [nn.ReLU()] * (index < 3)
            self.patches = None
        else:
            widths = [*plan.widths[::-1], channels] if kind == "stages" else list(plan.widths[::-1])
            for index, (before, after) in enumerate(pairwise(widths)):
                small, large = plan.maps[::-1][index], plan.maps[::-1][index + 1]
                odd = (large[0] - 2 * small[0], large[1] - 2 * small[1])
                layers.append(nn.ConvTranspose2d(before, after, 4, 2, 1, output_padding=odd))
                if kind == "patch" or index < len(widths) - 2:
                    layers += [nn.InstanceNorm2d(after)] * (kind == "stages") + [nn.SiLU()]
            self.patches = nn.Linear(depth, _PATCH**2 * channels) if kind == "patch" else None
        self.net = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """(..., F) -> frames (..., H, W, C)."""
        leading = features.shape[:-1]
        start = self.linear(features.flatten(0, -2)).view(-1, *self.start)
        grown = self.net[1:](_grown(self.net[0], start)) if self.kind == "ha" else self.net(start)
        maps = grown.permute(0, 2, 3, 1)
        frames = _from_patches(self.patches(maps), self.height, self.width) if self.patches is not None else maps
        frames = frames.sigmoid() if self.sigmoid else frames + 0.5
        return frames.reshape(*leading, *frames.shape[1:])


def _grown(layer: nn.Module, pixels: Tensor) -> Tensor:
    """A transposed convolution of maps of a single pixel, (N, C, 1, 1) -> (N, C', K, K).

    As the matrix product that it is, which a processor takes a fraction of the time for.
    """
    assert isinstance(layer, nn.ConvTranspose2d)
    assert layer.bias is not None
    maps: Tensor = (pixels.flatten(1) @ layer.weight.flatten(1)).view(-1, *layer.weight.shape[1:])
    return maps + layer.bias[:, None, None]


class _Plan:
    """Sizes of an encoder's maps, first to last, and their channels; ``maps[0]`` is what the first stage halves."""

    def __init__(
        self, height: int, width: int, channels: int, widths: Sequence[int], maps: Sequence[tuple[int, int]]
    ) -> None:
        self.height, self.width, self.channels, self.widths, self.maps = height, width, channels, widths, maps

    @classmethod
    def of(cls, shape: SensorShape, kind: str, depth: int) -> _Plan:
        height, width, channels = (*shape[1:], shape[0]) if channels_first(shape) else shape
        if kind == "ha":
            if (height, width) != (_HA_SIDE, _HA_SIDE):
                raise ValueError(
                    f"image_encoder: expected 'stages' or 'patch' for images of {height} x {width}, got 'ha', which is "
                    f"made for {_HA_SIDE} x {_HA_SIDE}"
                )
            return cls(height, width, channels, [depth, 2 * depth, 4 * depth, 8 * depth], [(64, 64), (2, 2)])
        if min(height, width) < _LEAST:
            raise ValueError(f"image_encoder: expected images of at least {_LEAST} x {_LEAST}, got {height} x {width}")
        maps = [(-(-height // _PATCH), -(-width // _PATCH)) if kind == "patch" else (height, width)]
        widths = [depth] if kind == "patch" else []
        while min(maps[-1]) >= _LEAST:
            maps.append((maps[-1][0] // 2, maps[-1][1] // 2))
            widths.append(widths[-1] * 2 if widths else depth)
        return cls(height, width, channels, widths, maps)


def _to_patches(frames: Tensor) -> Tensor:
    """(N, H, W, C) -> (N, H / 4, W / 4, 16 C); sides that are no multiple of 4 are padded with grey."""
    height, width, channels = frames.shape[1:]
    below, right = -height % _PATCH, -width % _PATCH
    if below or right:
        frames = F.pad(frames, (0, 0, 0, right, 0, below))
    rows, columns = frames.shape[1] // _PATCH, frames.shape[2] // _PATCH
    return (
        frames.reshape(-1, rows, _PATCH, columns, _PATCH, channels)
        .permute(0, 1, 3, 2, 4, 5)
        .reshape(-1, rows, columns, _PATCH**2 * channels)
    )


def _from_patches(patches: Tensor, height: int, width: int) -> Tensor:
    """The inverse, without the padding."""
    rows, columns, size = patches.shape[1:]
    channels = size // _PATCH**2
    frames = patches.reshape(-1, rows, columns, _PATCH, _PATCH, channels).permute(0, 1, 3, 2, 4, 5)
    return frames.reshape(-1, rows * _PATCH, columns * _PATCH, channels)[:, :height, :width]
