"""Selection of sensors from a ``Dict`` observation, as ``float32`` vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces


class SelectSensors(
    gym.ObservationWrapper[dict[str, npt.NDArray[np.float32]], Any, Any], gym.utils.RecordConstructorArgs
):
    """Keep some sensors, in the given order, each as a ``float32`` vector.

    Gymnasium's ``FilterObservation`` keeps shapes and types as they are, and its ``FlattenObservation`` concatenates in
    alphabetical order. dm_control's scalars have the shape ``()``, on which SB3's ``MultiInputPolicy`` fails, some of
    its sensors are empty, and recordings of its tasks are in the simulator's own order. So here scalars become
    ``(1,)``, matrices are flattened, empty sensors are dropped, and the caller decides the order.

    :param env: environment with a ``Dict`` space of ``Box`` spaces.
    :param sensors: number of leading entries to keep (after flattening) of each sensor to keep; ``None`` for all.
    :raises ValueError: the environment lacks a sensor, or none is left.

    Example:
        >>> env = SelectSensors(env, {"orientations": None, "height": None})
    """

    def __init__(self, env: gym.Env[Any, Any], sensors: Mapping[str, int | None]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, sensors=dict(sensors))
        gym.ObservationWrapper.__init__(self, env)
        space = env.observation_space
        if not isinstance(space, spaces.Dict):
            raise ValueError(f"sensors: expected an environment with Dict observations, got {space}")
        unknown = [name for name in sensors if name not in space.spaces]
        if unknown:
            raise ValueError(f"sensors: expected names among {list(space.spaces)}, got {unknown}")
        boxes = {name: _leading(space[name], name, count) for name, count in sensors.items()}
        boxes = {name: box for name, box in boxes.items() if box.shape != (0,)}
        if not boxes:
            raise ValueError(f"sensors: expected at least one sensor that is not empty, got {list(sensors)}")
        self.observation_space = spaces.Dict(boxes, sort_keys=False)
        self.sensor_names = tuple(boxes)
        self._lengths = {name: box.shape[0] for name, box in boxes.items()}

    def observation(self, observation: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
        """Return copies of the selected sensors: some simulators return views of their memory."""
        return {
            name: np.array(observation[name], dtype=np.float32).reshape(-1)[:length]
            for name, length in self._lengths.items()
        }


def _leading(space: spaces.Space[Any], name: str, count: int | None) -> spaces.Box:
    """Return the vector space of the leading ``count`` entries of a box."""
    if not isinstance(space, spaces.Box):
        raise ValueError(f"sensors: expected {name!r} to be a Box, got {space}")
    low, high = space.low.reshape(-1)[:count], space.high.reshape(-1)[:count]
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
