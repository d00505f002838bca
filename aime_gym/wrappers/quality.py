"""How MuJoCo draws: as the simulator does, or without what costs most of the time."""

from __future__ import annotations

from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from gymnasium import spaces

Quality = Literal["default", "fast"]
QUALITIES: tuple[Quality, ...] = get_args(Quality)


def draw_fast(env: gym.Env[Any, Any]) -> None:
    """Draw without shadows, reflections and multisampling. Comes before the first frame, which allocates the buffers.

    All of it is in the model, so that it holds for every renderer of it, whenever that is made; nothing of it moves a
    body.

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
    """The model that MuJoCo draws, dm_control's or Gymnasium's and Meta-World's; ``None`` for other environments."""
    base: Any = env.unwrapped
    model: Any = getattr(getattr(base, "physics", base), "model", None)
    return model if hasattr(model, "vis") else None


def rendering_of(env: gym.Env[Any, Any]) -> str | None:
    """The quality in which the images of an environment's observations are drawn.

    :return: ``"default"`` or ``"fast"``; ``None`` where the observations hold no images, or for an environment that
        :func:`aime_gym.make_env` did not make.
    """
    if not holds_images(env.observation_space) or not env.has_wrapper_attr("rendering"):
        return None
    return known_quality(env.get_wrapper_attr("rendering"))


def known_quality(value: Any) -> str | None:
    """The same if it is a quality: attributes of this name may be anything in environments of others."""
    return value if isinstance(value, str) and value in QUALITIES else None


def holds_images(space: spaces.Space[Any]) -> bool:
    """Whether observations are images, stacks of images, or have a sensor that is one."""
    if isinstance(space, spaces.Dict):
        return any(map(holds_images, space.spaces.values()))
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) >= 3
