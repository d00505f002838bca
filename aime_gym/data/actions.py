"""How actions look inside the models: in [-1, 1], or one-hot."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from aime_gym.types import Array


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
