"""Render quality of MuJoCo: the simulator's own, or a fast one without its most expensive effects."""

from __future__ import annotations

from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from gymnasium import spaces

Quality = Literal["default", "fast"]
QUALITIES: tuple[Quality, ...] = get_args(Quality)


def use_fast_rendering(env: gym.Env[Any, Any]) -> None:
    """Switch shadows, reflections and multisampling off, before the first frame allocates its buffers.

    The settings are part of the model, so that they hold for all of its renderers; they do not change the physics.

    :raises ValueError: the environment does not render by MuJoCo.
    """
    model = mujoco_model(env)
    if model is None:
        base = env.unwrapped
        name = base.spec.id if base.spec is not None else type(base).__name__
        raise ValueError(f"quality: expected 'default' for {name}, which does not render by MuJoCo, got 'fast'")
    model.vis.quality.offsamples = 0
    model.vis.quality.shadowsize = 0
    model.mat_reflectance[:] = 0


def mujoco_model(env: gym.Env[Any, Any]) -> Any:
    """Return the MuJoCo model of dm_control's, Gymnasium's or Meta-World's environments; ``None`` for others."""
    base: Any = env.unwrapped
    model: Any = getattr(getattr(base, "physics", base), "model", None)
    return model if hasattr(model, "vis") else None


def rendering_of(env: gym.Env[Any, Any]) -> str | None:
    """Return the quality in which the images in an environment's observations are rendered.

    :return: ``"default"`` or ``"fast"``; ``None`` if the observations contain no images, or for an environment that
        [`make_env`][] did not make.
    """
    if not holds_images(env.observation_space) or not env.has_wrapper_attr("rendering"):
        return None
    return as_quality(env.get_wrapper_attr("rendering"))


def as_quality(value: Any) -> str | None:
    """Return ``value`` if it is a render quality, else ``None``: other packages' attribute may hold anything."""
    return value if isinstance(value, str) and value in QUALITIES else None


def holds_images(space: spaces.Space[Any]) -> bool:
    """Return whether observations are images, stacks of images, or have a sensor that is one."""
    if isinstance(space, spaces.Dict):
        return any(map(holds_images, space.spaces.values()))
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) >= 3
