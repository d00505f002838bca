"""What an agent sees of a simulator: all of the state, positions only, or pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import (
    AddRenderObservation,
    FlattenObservation,
    ResizeObservation,
    TransformObservation,
)

from aime_gym.wrappers.sensors import SelectSensors


def see_vector(env: gym.Env[Any, Any], indices: Sequence[int] | None = None) -> gym.Env[Any, Any]:
    """Show a non-``Dict`` observation as a ``float32`` vector, or some entries of it.

    Images (``uint8``, three axes) stay images.

    :param indices: the entries to keep, after flattening; ``None`` for all.
    :raises ValueError: an index that the observation does not have.
    """
    space = env.observation_space
    if indices is None and isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3:
        return env
    if not (isinstance(space, spaces.Box) and len(space.shape) == 1):
        env = FlattenObservation(env)
    box = env.observation_space
    assert isinstance(box, spaces.Box)
    chosen = np.arange(box.shape[0]) if indices is None else np.asarray(indices)
    if (
        chosen.ndim != 1
        or not len(chosen)
        or chosen.dtype.kind not in "iu"
        or chosen.min() < 0
        or chosen.max() >= len(box.low)
    ):
        raise ValueError(f"position_indices: expected entries of 0..{len(box.low) - 1}, got {indices}")
    return TransformObservation(
        env,
        lambda observation: observation[chosen].astype(np.float32),
        spaces.Box(box.low[chosen].astype(np.float32), box.high[chosen].astype(np.float32), dtype=np.float32),
    )


def see_sensors(env: gym.Env[Any, Any], sensors: Mapping[str, int | None], flatten: bool) -> gym.Env[Any, Any]:
    """Show some sensors of a ``Dict`` observation as ``float32``: one vector, or one vector per sensor."""
    env = SelectSensors(env, sensors)
    return FlattenObservation(env) if flatten else env


def see_pixels(env: gym.Env[Any, Any], size: int) -> gym.Env[Any, Any]:
    """Show the rendered frame, ``(size, size, 3)``, ``uint8``. Rendered once per step of ``env``."""
    # Gymnasium's MuJoCo renderer points its camera once and for all at where the body is when it renders first. That
    # has to be one place, or the same seed would not give the same frames; what is drawn afterwards stays random.
    env.reset(seed=0)
    env.render()
    env.reset(seed=int(np.random.SeedSequence().generate_state(1)[0]))
    env = AddRenderObservation(env, render_only=True)
    if env.observation_space.shape != (size, size, 3):
        env = ResizeObservation(env, (size, size))
    # MuJoCo's frames are views with the rows in reverse, which torch.from_numpy refuses.
    return TransformObservation(env, np.ascontiguousarray, env.observation_space)
