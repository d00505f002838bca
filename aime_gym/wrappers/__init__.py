"""Wrappers that Gymnasium lacks. All others come from ``gymnasium.wrappers``."""

from aime_gym.wrappers.context import OwnGLContext
from aime_gym.wrappers.metaworld import SeededMetaWorld
from aime_gym.wrappers.quality import rendering_of
from aime_gym.wrappers.sensors import SelectSensors
from aime_gym.wrappers.spec import OverrideSpec
from aime_gym.wrappers.success import SuccessLatch

__all__ = ["OverrideSpec", "OwnGLContext", "SeededMetaWorld", "SelectSensors", "SuccessLatch", "rendering_of"]
