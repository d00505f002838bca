"""Convolutional encoder (``uint8`` frames to embeddings) and decoder (latent features to frames) of images.

Three architectures, for a frame of H x W x C and ``depth`` d:

    ha      the papers' (Ha and Schmidhuber 2018): four convolutions of width 4 and stride 2 without padding, to d, 2d,
            4d and 8d channels; for 64 x 64 only
    stages  AIME-v2's for Meta-World: convolutions of width 4 and stride 2 with padding, each followed by instance
            normalisation and SiLU, until the map is less than 8 wide; any size
    patch   first and last layer are linear on patches of 4 x 4 pixels; between them stages as above, without
            normalisation. Convolutions spend most of their time on the large maps, where a CPU takes ten times as long
            for them as for a matrix product of the same size; any size

Images stay ``uint8`` until they are here. Floating point ones are taken to be the output of [`as_floats`][].
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.types import SensorShape, channels_first

IMAGE_ARCHITECTURES = ("ha", "stages", "patch")
#: Side of a patch.
_PATCH = 4
#: Least side of a map that another stage halves.
_MIN_HALVED_SIDE = 8
#: Side of the frames that ``ha`` takes.
_HA_SIDE = 64


def as_floats(images: Tensor, shape: SensorShape) -> Tensor:
    """Convert images (..., *shape) from ``uint8`` to floats in [0, 1], channels last: (..., H, W, C)."""
    floats = images.to(torch.get_default_dtype()) / 255 if images.dtype == torch.uint8 else images
    return floats.movedim(-3, -1) if channels_first(shape) else floats


class ImageEncoder(nn.Module):
    """Encoder from frames to embeddings.

    :param shape: shape of a frame, channels last or first.
    :param architecture: ``ha``, ``stages`` or ``patch``.
    :param depth: channels d of the first layer.
    :raises ValueError: the architecture does not take frames of this shape.
    """

    def __init__(self, shape: SensorShape, architecture: str, depth: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.architecture = architecture
        sizes = _layer_sizes(self.shape, architecture, depth)
        channels = [sizes.image_channels, *sizes.channels]
        self.patches = nn.Linear(_PATCH**2 * sizes.image_channels, depth) if architecture == "patch" else None
        if self.patches is not None:
            channels = channels[1:]
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise(channels)):
            layers.append(nn.Conv2d(inputs, outputs, 4, 2, 0 if architecture == "ha" else 1))
            if architecture == "stages":
                layers.append(nn.InstanceNorm2d(outputs, affine=True))
            if architecture != "ha" or index < len(channels) - 2:
                layers.append(nn.ReLU() if architecture == "ha" else nn.SiLU())
        self.net = nn.Sequential(*layers)
        #: Size E of an embedding.
        self.size = sizes.channels[-1] * sizes.maps[-1][0] * sizes.maps[-1][1]

    def forward(self, images: Tensor) -> Tensor:
        """Embed images: (..., *shape) -> (..., E)."""
        leading = images.shape[:-3]
        frames = as_floats(images, self.shape).flatten(0, -4) if len(leading) else as_floats(images, self.shape)[None]
        if self.architecture != "ha":
            frames = frames - 0.5
        if self.patches is not None:
            frames = F.silu(self.patches(_to_patches(frames)))
        # This view has the channels last in memory, where convolutions are fastest.
        out: Tensor = self.net(frames.permute(0, 3, 1, 2))
        return out.flatten(1).view(*leading, self.size)


class ImageDecoder(nn.Module):
    """Decoder from latent features to mean frames.

    :param features: size F of a latent feature.
    :param shape: shape of a frame, channels last or first.
    :param architecture: architecture of the [`ImageEncoder`][].
    :param depth: depth d of the [`ImageEncoder`][].
    :param sigmoid: whether a sigmoid keeps the mean in [0, 1], as in AIME; otherwise 0.5 is added, as in AIME-v2.
    """

    def __init__(self, features: int, shape: SensorShape, architecture: str, depth: int, *, sigmoid: bool) -> None:
        super().__init__()
        self.architecture = architecture
        self.sigmoid = sigmoid
        sizes = _layer_sizes(tuple(shape), architecture, depth)
        self.height = sizes.height
        self.width = sizes.width
        #: Shape (C, H, W) of the first map.
        self.first_map = (
            (sizes.channels[-1], *sizes.maps[-1]) if architecture != "ha" else (4 * sizes.channels[-1], 1, 1)
        )
        self.linear = nn.Linear(features, math.prod(self.first_map))
        layers: list[nn.Module] = []
        if architecture == "ha":
            channels = [self.first_map[0], 4 * depth, 2 * depth, depth, sizes.image_channels]
            for index, kernel_size in enumerate((5, 5, 6, 6)):
                layers.append(nn.ConvTranspose2d(channels[index], channels[index + 1], kernel_size, 2))
                layers += [nn.ReLU()] * (index < 3)
            self.patches = None
        else:
            channels = list(sizes.channels[::-1])
            if architecture == "stages":
                channels.append(sizes.image_channels)
            maps = sizes.maps[::-1]
            for index, (inputs, outputs) in enumerate(pairwise(channels)):
                small, large = maps[index : index + 2]
                odd = (large[0] - 2 * small[0], large[1] - 2 * small[1])
                layers.append(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, output_padding=odd))
                if architecture == "patch" or index < len(channels) - 2:
                    layers += [nn.InstanceNorm2d(outputs)] * (architecture == "stages") + [nn.SiLU()]
            self.patches = nn.Linear(depth, _PATCH**2 * sizes.image_channels) if architecture == "patch" else None
        self.net = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Decode features: (..., F) -> frames (..., H, W, C)."""
        leading = features.shape[:-1]
        first = self.linear(features.flatten(0, -2)).view(-1, *self.first_map)
        if self.architecture == "ha":
            maps = self.net[1:](_transposed_convolution_of_pixels(self.net[0], first))
        else:
            maps = self.net(first)
        maps = maps.permute(0, 2, 3, 1)
        frames = _from_patches(self.patches(maps), self.height, self.width) if self.patches is not None else maps
        frames = frames.sigmoid() if self.sigmoid else frames + 0.5
        return frames.reshape(*leading, *frames.shape[1:])


def _transposed_convolution_of_pixels(layer: nn.Module, pixels: Tensor) -> Tensor:
    """Apply a transposed convolution to maps of a single pixel, (N, C, 1, 1) -> (N, C', K, K).

    Written as the equivalent matrix product, which takes a CPU a fraction of the time.
    """
    assert isinstance(layer, nn.ConvTranspose2d)
    assert layer.bias is not None
    maps: Tensor = (pixels.flatten(1) @ layer.weight.flatten(1)).view(-1, *layer.weight.shape[1:])
    return maps + layer.bias[:, None, None]


class _LayerSizes(NamedTuple):
    """Sizes of a frame and of an encoder's maps, first to last."""

    height: int
    width: int
    image_channels: int
    channels: list[int]  # outputs of each layer
    maps: list[tuple[int, int]]  # height and width; the first one is the input of the first convolution


def _layer_sizes(shape: SensorShape, architecture: str, depth: int) -> _LayerSizes:
    """Return the sizes of an encoder for frames of ``shape``, which its decoder has in reverse."""
    height, width, image_channels = (*shape[1:], shape[0]) if channels_first(shape) else shape
    if architecture == "ha":
        if (height, width) != (_HA_SIDE, _HA_SIDE):
            raise ValueError(
                f"image_encoder: expected 'stages' or 'patch' for images of {height} x {width}, got 'ha', which is "
                f"made for {_HA_SIDE} x {_HA_SIDE}"
            )
        channels = [depth, 2 * depth, 4 * depth, 8 * depth]
        return _LayerSizes(height, width, image_channels, channels, [(64, 64), (2, 2)])
    least = _MIN_HALVED_SIDE
    if min(height, width) < least:
        raise ValueError(f"image_encoder: expected images of at least {least} x {least}, got {height} x {width}")
    maps = [(-(-height // _PATCH), -(-width // _PATCH)) if architecture == "patch" else (height, width)]
    channels = [depth] if architecture == "patch" else []
    while min(maps[-1]) >= least:
        maps.append((maps[-1][0] // 2, maps[-1][1] // 2))
        channels.append(channels[-1] * 2 if channels else depth)
    return _LayerSizes(height, width, image_channels, channels, maps)


def _to_patches(frames: Tensor) -> Tensor:
    """Cut frames (N, H, W, C), padded with grey to multiples of 4, into patches (N, H / 4, W / 4, 16 C)."""
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
    """Invert ``_to_patches`` and cut the padding off."""
    rows, columns, size = patches.shape[1:]
    channels = size // _PATCH**2
    frames = patches.reshape(-1, rows, columns, _PATCH, _PATCH, channels).permute(0, 1, 3, 2, 4, 5)
    return frames.reshape(-1, rows * _PATCH, columns * _PATCH, channels)[:, :height, :width]
