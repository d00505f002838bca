"""Observation modalities: all of the state, positions only, or pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.wrappers import (
    AddRenderObservation,
    AtariPreprocessing,
    FlattenObservation,
    TransformObservation,
)
from PIL import Image

from aime_gym.wrappers.sensors import SelectSensors


def observe_vector(env: gym.Env[Any, Any], indices: Sequence[int] | None = None) -> gym.Env[Any, Any]:
    """Make a non-``Dict`` observation, or some entries of it, a ``float32`` vector.

    Images (``uint8``, three axes) stay images.

    :param indices: entries to keep, after flattening; ``None`` for all.
    :raises ValueError: an index is outside of the observation.
    """
    space = env.observation_space
    if indices is None and isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3:
        return env
    if not (isinstance(space, spaces.Box) and len(space.shape) == 1):
        env = FlattenObservation(env)
    box = env.observation_space
    assert isinstance(box, spaces.Box)
    kept = np.arange(box.shape[0]) if indices is None else np.asarray(indices)
    if kept.ndim != 1 or not len(kept) or kept.dtype.kind not in "iu" or kept.min() < 0 or kept.max() >= len(box.low):
        raise ValueError(f"position_indices: expected entries of 0..{len(box.low) - 1}, got {indices}")
    return TransformObservation(
        env,
        lambda observation: observation[kept].astype(np.float32),
        spaces.Box(box.low[kept].astype(np.float32), box.high[kept].astype(np.float32), dtype=np.float32),
    )


def observe_sensors(env: gym.Env[Any, Any], sensors: Mapping[str, int | None], flatten: bool) -> gym.Env[Any, Any]:
    """Select sensors of a ``Dict`` observation, as one ``float32`` vector if ``flatten``, or one for each sensor."""
    env = SelectSensors(env, sensors)
    return FlattenObservation(env) if flatten else env


def observe_pixels(env: gym.Env[Any, Any], size: int) -> gym.Env[Any, Any]:
    """Replace the observation by the rendered frame, ``uint8`` ``(size, size, 3)``, rendered once per step."""
    # Gymnasium's MuJoCo renderer fixes its camera at where the body is in the first frame. That has to be the same
    # place each time, or equal seeds would give different frames; the episodes afterwards are random again.
    env.reset(seed=0)
    env.render()
    env.reset(seed=int(np.random.SeedSequence().generate_state(1)[0]))
    env = AddRenderObservation(env, render_only=True)
    if env.observation_space.shape != (size, size, 3):
        space = spaces.Box(0, 255, (size, size, 3), np.uint8)
        return TransformObservation(env, lambda frame: resized(frame, size, size), space)
    # MuJoCo's frames are views with negative strides, which torch.from_numpy refuses.
    return TransformObservation(env, np.ascontiguousarray, env.observation_space)


def observe_atari(env: gym.Env[Any, Any], frame_skip: int, size: int, *, pixels: bool) -> gym.Env[Any, Any]:
    """Preprocess an Atari game that skips no frames itself: up to 30 no-ops at first, and the larger of two frames.

    :param pixels: whether grey frames ``(size, size, 1)`` are observed, instead of the game's memory, 128 bytes.
    """
    env = AtariPreprocessing(env, frame_skip=frame_skip, screen_size=size, grayscale_newaxis=True)
    if pixels:
        return env
    game: Any = env.unwrapped
    return TransformObservation(env, lambda _: game.ale.getRAM(), spaces.Box(0, 255, (128,), np.uint8))


def resized(frame: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """Return a frame (H, W, C) of another size; each of its pixels is a mean over those that it stands for."""
    picture = Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)  # of Pillow's, which averages where it shrinks
    return np.array(resized).reshape(height, width, -1)
