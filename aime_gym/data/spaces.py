"""Encodings of a Gymnasium space: actions and observations as the tensors that networks see."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from minari.serialization import serialize_space
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.utils import is_vectorized_observation
from torch import Tensor

from aime_gym.config import MAX_UNITS
from aime_gym.types import Array, Observation, SensorShape, channels_first, is_image, sensors

#: Largest bound of an action: what is scaled by it, twice over, still is a float32.
_LARGEST_BOUND = 1e37


def check_action_space(space: spaces.Space) -> None:
    """Check that actions of a space can be scaled or counted.

    :raises ValueError: something else than a ``Discrete``, or a ``Box`` with finite bounds below 1e37.
    """
    if isinstance(space, spaces.Box):
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise ValueError(f"action_space: expected a Box with finite bounds, got {space}")
        if max(np.abs(bound.astype(np.float64)).max(initial=0) for bound in (space.low, space.high)) > _LARGEST_BOUND:
            raise ValueError(
                f"action_space: expected a Box with bounds up to {_LARGEST_BOUND:g}, got {space}; "
                f"gymnasium.wrappers.RescaleAction gives it bounds in which actions can be told apart"
            )
    elif not isinstance(space, spaces.Discrete):
        raise ValueError(f"action_space: expected Box or Discrete, got {space}")


def legal_actions(actions: Array, space: spaces.Box) -> Array:
    """Return numbers (..., *shape) as actions of a Box, in its dtype: clipped, and of integers the nearest ones."""
    if space.dtype.kind not in "iu":
        return np.clip(actions.astype(space.dtype), space.low, space.high)
    # Floats around the bounds of a wide dtype are none of its numbers.
    rounded = np.rint(actions)
    inside = (rounded > space.low) & (rounded < space.high)
    ends = np.where(rounded < space.high, space.low, space.high)
    legal: Array = np.where(inside, np.where(inside, rounded, 0).astype(space.dtype), ends)
    return legal


class ActionEncoding:
    """Encoding of an environment's actions as the models' vectors.

    :param space: ``Box`` (scaled to [-1, 1]; bounded) or ``Discrete`` (one-hot).
    :raises ValueError: another space, or a ``Box`` without finite bounds.
    """

    def __init__(self, space: spaces.Space) -> None:
        check_action_space(space)
        self.size = int(space.n) if isinstance(space, spaces.Discrete) else math.prod(space.shape or ())
        self.space = space
        #: Whether vectors are one-hot.
        self.discrete = isinstance(space, spaces.Discrete)

    def encode(self, actions: Array) -> Array:
        """Encode actions (T, ...) of the environment as (T, A) float32."""
        if isinstance(self.space, spaces.Discrete):
            return np.eye(self.size, dtype=np.float32)[np.asarray(actions) - int(self.space.start)]
        low, high = self._bounds()
        flat = np.asarray(actions, dtype=np.float32).reshape(len(actions), -1)
        width = np.where(high > low, high - low, 1)  # an entry that cannot move is always -1
        return (2 * (flat - low) / width - 1).astype(np.float32)

    def decode(self, encoded: Array) -> Array:
        """Decode (N, A) to actions of the environment; scores of a ``Discrete`` space become their argmax."""
        if isinstance(self.space, spaces.Discrete):
            return (np.argmax(encoded, axis=-1) + int(self.space.start)).astype(self.space.dtype)
        low, high = self._bounds()
        flat = low + 0.5 * (encoded + 1) * (high - low)
        return legal_actions(flat.reshape(len(encoded), *self.space.shape), self.space)

    def _bounds(self) -> tuple[Array, Array]:
        """Return the flat bounds of a Box, in a dtype that their difference fits into."""
        assert isinstance(self.space, spaces.Box)
        low, high = self.space.low.reshape(-1), self.space.high.reshape(-1)
        if self.space.dtype.kind in "iu":
            return low.astype(np.float64), high.astype(np.float64)
        return low, high


class ObservationEncoding:
    """Encoding of observations as tensors, sensors sorted by name as in every dataset: spaces and files differ there.

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
        #: Shape of each sensor: (D,), or that of an image.
        self.shapes: dict[str, SensorShape] = {name: tuple(parts[name].shape or ()) for name in sorted(parts)}

    def encode(self, observation: Observation, device: torch.device) -> tuple[dict[str, Tensor], bool]:
        """Return each sensor (n_envs, *shape), vectors as float32, and whether the observation came as a batch.

        Images may have their channels where SB3's ``VecTransposeImage`` puts them.

        :raises ValueError: other sensors or shapes, or numbers that are not finite: a memory would keep them.
        """
        if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
            raise ValueError("observation: expected what env.reset() returns first, got the tuple (observation, info)")
        is_dict = isinstance(self.space, spaces.Dict)
        if is_dict != isinstance(observation, dict) or set(sensors(observation)) != set(self.shapes):
            came = sorted(observation) if isinstance(observation, dict) else type(observation).__name__
            expected = f"the sensors {list(self.shapes)}" if is_dict else "an array"
            raise ValueError(f"observation: expected {expected}, got {came}")
        # A copy: PyTorch takes neither negative strides nor, without a warning, read-only arrays.
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and is reported
            arrays = {name: _array(values, self.shapes[name]) for name, values in sensors(observation).items()}
        require_finite(arrays)
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


def require_finite(observation: Observation) -> None:
    """Make sure that an environment observes numbers.

    :param observation: one, or a batch.
    :raises ValueError: NaN or infinity.
    """
    for name, values in sensors(observation).items():
        if (place := first_not_finite(values)) is not None:
            raise ValueError(
                f"observation: expected finite numbers from the environment, got {values[place]} in {name!r}, entry "
                f"{place} of {values.shape}"
            )


def first_not_finite(values: Array) -> tuple[int, ...] | None:
    """Return the index of the first entry that is NaN or infinite; ``None`` if there is none."""
    if values.dtype.kind != "f" or (finite := np.isfinite(values)).all():
        return None
    return first_true(~finite)


def first_true(mask: Array) -> tuple[int, ...]:
    """Return the index of the first entry that is true."""
    return tuple(np.argwhere(mask)[0].tolist())


def _array(values: Array, shape: SensorShape) -> Array:
    if not is_image(shape):
        return np.array(values, np.float32, order="C")
    if np.asarray(values).dtype != np.uint8:
        raise ValueError(f"observation: expected an image of bytes (uint8), got {np.asarray(values).dtype}")
    moved = (*shape[1:], shape[0]) if channels_first(shape) else (shape[2], *shape[:2])
    if np.shape(values)[-3:] == moved != shape:
        values = np.moveaxis(values, -1, -3) if channels_first(shape) else np.moveaxis(values, -3, -1)
    return np.array(values, np.uint8, order="C")


# Spaces in files


def write_space(space: spaces.Space) -> str:
    """Return a space that agents know as JSON, in Minari's form."""
    described = serialize_space(space, to_string=False)
    if isinstance(space, spaces.Discrete):
        described["dtype"] = str(space.dtype)  # Minari says int64 of all
    return json.dumps(described)


def read_space(text: Any) -> spaces.Space:
    """Make the space that ``write_space`` described.

    :raises ValueError: other spaces than agents know, or one that is larger than its description.
    """
    try:
        described = json.loads(text)
        if described["type"] == "Dict":
            return spaces.Dict({name: read_box(part) for name, part in described["subspaces"].items()})
        if described["type"] != "Discrete":
            return read_box(described)
        size, start = described["n"], described["start"]
        if not isinstance(size, int) or not isinstance(start, int) or not 0 < size <= MAX_UNITS:
            raise ValueError(f"expected 1 to {MAX_UNITS} actions, got {size} from {start} on")
        return spaces.Discrete(size, start=start, dtype=_dtype(described, "iu").type)
    except (KeyError, TypeError, AttributeError, AssertionError, RecursionError, OverflowError) as error:
        raise ValueError(f"expected a space, got {str(text)[:100]} ({type(error).__name__}: {error})") from error


def read_box(described: Mapping[str, Any]) -> spaces.Box:
    """Make the Box that Minari's form describes.

    :raises ValueError: another space, or bounds of another shape.
    """
    if described["type"] != "Box":
        raise ValueError(f"expected a space out of Box, Discrete and a Dict of Boxes, got {str(described)[:100]}")
    dtype = _dtype(described, "fiub")
    bounds = [np.array(described[name], dtype) for name in ("low", "high")]  # as large as what describes them
    if any(list(bound.shape) != described["shape"] for bound in bounds):
        raise ValueError(f"expected bounds of the shape {described['shape']}, got {[bound.shape for bound in bounds]}")
    return spaces.Box(*bounds, tuple(described["shape"]), dtype.type)


def _dtype(described: Mapping[str, Any], kinds: str) -> np.dtype:
    dtype = np.dtype(described["dtype"])
    if dtype.kind not in kinds or dtype.shape:
        raise ValueError(f"expected a dtype of numbers, got {described['dtype']!r}")
    return dtype
