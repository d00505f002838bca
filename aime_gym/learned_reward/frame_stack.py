"""The last frames of images: one frame does not show how fast things move."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import TensorDict
from torch import Tensor

from aime_gym.data import TrajectoryDataset
from aime_gym.types import SensorShape, channels_first, is_image


class FrameStack:
    """Observations whose images hold their last frames, one behind the other along the channels; vectors stay alone.

    Unlike in SB3's ``VecFrameStack``, an episode starts with copies of its first frame, vectors are not stacked, and
    recorded trajectories are stacked as well. Images come out with their channels first, as SB3 has them.

    :param shapes: shape of each sensor, images with their channels last or first.
    :param frames: number of frames of an image.
    :raises ValueError: images so small that their channels could be taken for their height.
    """

    def __init__(self, shapes: Mapping[str, SensorShape], frames: int) -> None:
        self.shapes = dict(shapes)
        self.vectors = [name for name, shape in shapes.items() if not is_image(shape)]
        self.images = [name for name, shape in shapes.items() if is_image(shape)]
        self.frames = frames
        parts: dict[str, spaces.Space] = {
            name: spaces.Box(-np.inf, np.inf, shapes[name], np.float32) for name in self.vectors
        }
        for name in self.images:
            shape = shapes[name]
            channels, height, width = shape if channels_first(shape) else (shape[2], *shape[:2])
            stacked = frames * channels
            # SB3 tells channels by being fewer than rows; encoders too, and a discriminator sees two stacks.
            if stacked > min(height, width) or channels_first((height, width, 2 * stacked)):
                raise ValueError(
                    f"frame_stack: expected less for images of {height} x {width} ({name!r}), got {frames}"
                )
            parts[name] = spaces.Box(0, 255, (stacked, height, width), np.uint8)
        #: Space of the stacked observations.
        self.space = spaces.Dict(parts)

    def reset(self, observation: Mapping[str, Tensor]) -> TensorDict:
        """Stack an episode's first observation (N, *shape of each sensor)."""
        copies = {name: self._frame(observation, name).repeat(1, self.frames, 1, 1) for name in self.images}
        return {name: observation[name] for name in self.vectors} | copies

    def append(self, stacked: Mapping[str, Tensor], observation: Mapping[str, Tensor]) -> TensorDict:
        """Stack the observation after ``stacked``, of which only images are read."""
        images = {}
        for name in self.images:
            frame = self._frame(observation, name)
            images[name] = torch.cat([stacked[name][:, frame.shape[1] :], frame], dim=1)
        return {name: observation[name] for name in self.vectors} | images

    def of_records(self, dataset: TrajectoryDataset, rows: Tensor) -> TensorDict:
        """Stack a dataset's records (M,), as if its trajectories were being acted out."""
        images = {}
        if self.images:
            window_rows = dataset.window_rows(rows, self.frames)
            for name in self.images:
                frames = {name: dataset.observations[name][window_rows]}  # (M, frames, *shape)
                images[name] = self._frame(frames, name).flatten(1, 2)
        return self.vectors_of_records(dataset, rows) | images

    def vectors_of_records(self, dataset: TrajectoryDataset, rows: Tensor) -> TensorDict:
        """Look up the vectors of a dataset's records (M,), which no image has to be read for."""
        return {name: dataset.observations[name][rows] for name in self.vectors}

    def _frame(self, observation: Mapping[str, Tensor], name: str) -> Tensor:
        """(..., C, H, W)"""
        image = observation[name]
        return image if channels_first(self.shapes[name]) else image.movedim(-1, -3)


def observation_bytes(space: spaces.Dict) -> int:
    """Return the memory of one observation."""
    return sum(math.prod(part.shape or ()) * np.dtype(part.dtype).itemsize for part in space.values())
