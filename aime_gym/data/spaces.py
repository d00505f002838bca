"""Encodings of a Gymnasium space: actions and observations as the tensors that networks see."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.utils import is_vectorized_observation
from torch import Tensor

from aime_gym.types import Array, Observation, SensorShape, channels_first, is_image, sensors


class ActionEncoding:
    """Between an environment's action space and the models' vectors.

    :param space: ``Box`` (scaled to [-1, 1]; bounded) or ``Discrete`` (one-hot).
    :raises ValueError: another space, or a ``Box`` without finite bounds.
    """

    def __init__(self, space: spaces.Space) -> None:
        if isinstance(space, spaces.Box):
            if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
                raise ValueError(f"action_space: expected a Box with finite bounds, got {space}")
            self.size = int(np.prod(space.shape))
        elif isinstance(space, spaces.Discrete):
            self.size = int(space.n)
        else:
            raise ValueError(f"action_space: expected Box or Discrete, got {space}")
        self.space = space
        #: Whether vectors are one-hot.
        self.discrete = isinstance(space, spaces.Discrete)

    def encode(self, actions: Array) -> Array:
        """Actions (T, ...) of the environment -> (T, A) float32."""
        if isinstance(self.space, spaces.Discrete):
            return np.eye(self.size, dtype=np.float32)[np.asarray(actions) - int(self.space.start)]
        low, high = self.space.low.reshape(-1), self.space.high.reshape(-1)
        flat = np.asarray(actions, dtype=np.float32).reshape(len(actions), -1)
        width = np.where(high > low, high - low, 1)  # an entry that cannot move is always -1
        return (2 * (flat - low) / width - 1).astype(np.float32)

    def decode(self, encoded: Array) -> Array:
        """(N, A) -> actions of the environment; scores of a ``Discrete`` space become their argmax."""
        if isinstance(self.space, spaces.Discrete):
            return (np.argmax(encoded, axis=-1) + int(self.space.start)).astype(self.space.dtype)
        flat = self.space.low.reshape(-1) + 0.5 * (encoded + 1) * (self.space.high - self.space.low).reshape(-1)
        if np.issubdtype(self.space.dtype, np.integer):
            flat = np.rint(flat)
        actions = flat.reshape(len(encoded), *self.space.shape).astype(self.space.dtype)
        return np.clip(actions, self.space.low, self.space.high)


class ObservationEncoding:
    """Observations of a space as tensors, sensors sorted by name as in every dataset: spaces and files differ there.

    :param space: a ``Box`` of one dimension, or an image as SB3 knows it (``uint8``, three dimensions, 0 to 255); or a
        ``Dict`` of those.
    :raises ValueError: other spaces.
    """

    def __init__(self, space: spaces.Space) -> None:
        self.space = space
        parts = space.spaces if isinstance(space, spaces.Dict) else {"observation": space}
        for name, part in parts.items():
            if is_image_space(part):
                continue
            if not isinstance(part, spaces.Box) or len(part.shape) != 1:
                raise ValueError(
                    f"observation_space: expected a Box of one dimension, an image (uint8, H x W x C) or a Dict of "
                    f"those, got {name!r} as {part}"
                )
            if not part.shape[0]:
                raise ValueError(f"observation_space: expected numbers to learn from, got none in {name!r}")
        if not parts:
            raise ValueError("observation_space: expected at least one sensor, got an empty Dict")
        self._parts = parts
        #: Of each sensor: (D,), or that of an image.
        self.shapes: dict[str, SensorShape] = {name: tuple(parts[name].shape or ()) for name in sorted(parts)}

    def encode(self, observation: Observation, device: torch.device) -> tuple[dict[str, Tensor], bool]:
        """Each sensor (n_envs, *shape), vectors as float32; and whether the observation came as a batch.

        Images may have their channels where SB3's ``VecTransposeImage`` puts them.

        :raises ValueError: other sensors or shapes.
        """
        if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
            raise ValueError("observation: expected what env.reset() returns first, got the tuple (observation, info)")
        is_dict = isinstance(self.space, spaces.Dict)
        if is_dict != isinstance(observation, dict) or set(sensors(observation)) != set(self.shapes):
            came = sorted(observation) if isinstance(observation, dict) else type(observation).__name__
            expected = f"the sensors {list(self.shapes)}" if is_dict else "an array"
            raise ValueError(f"observation: expected {expected}, got {came}")
        # A copy: PyTorch takes neither negative strides nor, without a warning, read-only arrays.
        arrays = {name: _array(values, self.shapes[name]) for name, values in sensors(observation).items()}
        batched = {is_vectorized_observation(values, self._parts[name]) for name, values in arrays.items()}
        if len(batched) > 1:
            raise ValueError("observation: expected all sensors as a batch or none, got both")
        is_batch = batched.pop()
        if is_batch and len(lengths := {len(values) for values in arrays.values()}) > 1:
            raise ValueError(f"observation: expected batches of one length, got {sorted(lengths)}")
        return {
            name: torch.as_tensor(arrays[name] if is_batch else arrays[name][None], device=device)
            for name in self.shapes
        }, is_batch


def _array(values: Array, shape: SensorShape) -> Array:
    if not is_image(shape):
        return np.array(values, np.float32, order="C")
    if np.asarray(values).dtype != np.uint8:
        raise ValueError(f"observation: expected an image of bytes (uint8), got {np.asarray(values).dtype}")
    moved = (*shape[1:], shape[0]) if channels_first(shape) else (shape[2], *shape[:2])
    if np.shape(values)[-3:] == moved != shape:
        values = np.moveaxis(values, -1, -3) if channels_first(shape) else np.moveaxis(values, -3, -1)
    return np.array(values, np.uint8, order="C")
