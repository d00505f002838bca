"""Observations as rows of numbers, vectors before images: what SB3's buffers and algorithms handle as they are.

An image's last few frames lie in its part of a row, one behind the other along the channels: one frame does not show
how fast things move.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from aime_gym.data import TrajectoryDataset
from aime_gym.types import SensorShape, channels_first, is_image


class FlatLayout:
    """What the numbers of a row mean: V of vectors, then images of H x W x C, which are 0 to 255.

    :param vectors: V.
    :param images: (H, W, C) of each.
    """

    def __init__(self, vectors: int, images: Sequence[SensorShape] = ()) -> None:
        self.vectors, self.images = vectors, [tuple(shape) for shape in images]
        #: Numbers in a row, D.
        self.size = vectors + sum(map(math.prod, self.images))
        #: Of a row: bytes, if it has images alone.
        self.dtype = np.dtype(np.float32 if vectors or not images else np.uint8)

    def join(self, vectors: Tensor | None, images: Sequence[Tensor]) -> Tensor:
        """(N, V), or ``None`` for none, and (N, H, W, C) of each image -> rows (N, D)."""
        parts = [] if vectors is None else [vectors]
        parts += [image.flatten(1) if vectors is None else image.flatten(1).to(vectors.dtype) for image in images]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def split(self, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Rows (N, D) -> (N, V) and (N, H, W, C) of each image, views of the same numbers."""
        vectors, *images = rows.split([self.vectors, *map(math.prod, self.images)], dim=-1)
        return vectors, [part.reshape(-1, *shape) for part, shape in zip(images, self.images, strict=True)]


class FrameStacker:
    """From the sensors of an environment to rows that hold the last frames of its images.

    Without images a row is the sensors side by side, and nothing of the past.

    :param shapes: of each sensor, in their order; images with their channels last or first.
    :param frames: of each image.
    :raises ValueError: images so small that their channels could be taken for their height.
    """

    def __init__(self, shapes: Mapping[str, SensorShape], frames: int) -> None:
        self.shapes = dict(shapes)
        self.vectors = [name for name, shape in shapes.items() if not is_image(shape)]
        self.images = [name for name, shape in shapes.items() if is_image(shape)]
        #: How many observations a row holds something of.
        self.frames = frames if self.images else 1
        stacks = []
        for name in self.images:
            shape = shapes[name]
            height, width, channels = (*shape[1:], shape[0]) if channels_first(shape) else shape
            # A discriminator sees two of them, one behind the other.
            if channels_first((height, width, 2 * frames * channels)):
                raise ValueError(
                    f"frame_stack: expected less for images of {height} x {width} ({name!r}), got {frames}"
                )
            stacks.append((height, width, frames * channels))
        self.layout = FlatLayout(sum(shapes[name][0] for name in self.vectors), stacks)

    def start(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Rows (N, D) of an episode's first observation (N, *shape) of each sensor; it stands for those before it."""
        images = [self._frame(observation, name) for name in self.images]
        return self._join(observation, [image.repeat(1, 1, 1, self.frames) for image in images])

    def push(self, rows: Tensor, observation: Mapping[str, Tensor]) -> Tensor:
        """Rows (N, D) of the step after: a new observation, and the frames before it."""
        if not self.images:
            return self._join(observation, [])
        stacks = []
        for name, stack in zip(self.images, self.layout.split(rows)[1], strict=True):
            frame = self._frame(observation, name)
            stacks.append(torch.cat([stack[..., frame.shape[-1] :], frame.to(stack.dtype)], dim=-1))
        return self._join(observation, stacks)

    def recorded(self, dataset: TrajectoryDataset, rows: Tensor) -> Tensor:
        """Rows (M, D) of a dataset's records, as if its trajectories had been acted out."""
        if not self.images:
            return self._join(dataset.observed(rows), [])
        windows = dataset.windows(rows, self.frames)  # (M, frames, *shape) of each
        stacks = [
            self._frame(windows, name).permute(0, 2, 3, 1, 4).flatten(3)  # (M, H, W, frames C)
            for name in self.images
        ]
        return self._join({name: windows[name][:, -1] for name in self.vectors}, stacks)

    def recorded_vectors(self, dataset: TrajectoryDataset, rows: Tensor) -> Tensor:
        """The vectors alone (M, V), which no image has to be read for."""
        if not self.vectors:
            return torch.empty(len(rows), 0, device=dataset.device)
        return torch.cat([dataset.observations[name][rows] for name in self.vectors], dim=-1)

    def _frame(self, observation: Mapping[str, Tensor], name: str) -> Tensor:
        """(..., H, W, C)"""
        image = observation[name]
        return image.movedim(-3, -1) if channels_first(self.shapes[name]) else image

    def _join(self, observation: Mapping[str, Tensor], images: list[Tensor]) -> Tensor:
        vectors = [observation[name] for name in self.vectors]
        return self.layout.join(torch.cat(vectors, dim=-1) if vectors else None, images)
