"""Wrappers that Gymnasium does not have. The others come from :mod:`gymnasium.wrappers`."""

from aime_gym.wrappers.context import OwnContext
from aime_gym.wrappers.metaworld import SeededMetaWorld
from aime_gym.wrappers.quality import rendering_of
from aime_gym.wrappers.sensors import SelectSensors
from aime_gym.wrappers.success import SuccessLatch
from aime_gym.wrappers.task import Task

__all__ = ["OwnContext", "SeededMetaWorld", "SelectSensors", "SuccessLatch", "Task", "rendering_of"]
