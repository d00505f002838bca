"""Fake simulators whose every output is known, and small environments with pixels."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

import aime_gym


def make_pixels(name: str) -> gym.Env[Any, Any]:
    """Make an environment with small frames; here, where workers that import this module do without PyTorch."""
    return aime_gym.make_env(name, modality="pixels", image_size=32, quality="fast")


class Counter(gym.Env[Any, Any]):
    """Environment whose observation, reward and frame count its steps; success is reported at one step only."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, success_at: int | None = 3, end_at: int = 7, render_mode: str | None = "rgb_array") -> None:
        self.observation_space = spaces.Box(0, 100, (2,), dtype=np.float64)
        self.action_space = spaces.Box(-1, 1, (1,), dtype=np.float32)
        self.success_at, self.end_at, self.render_mode = success_at, end_at, render_mode
        self.count = self.frames = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(2), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        info = {} if self.success_at is None else {"success": float(self.count == self.success_at)}
        return np.full(2, float(self.count)), float(self.count), self.count >= self.end_at, False, info

    def render(self) -> Any:
        self.frames += 1
        return np.full((8, 8, 3), self.count, dtype=np.uint8)


class Robot(gym.Env[Any, Any]):
    """Environment with sensors of all shapes: a scalar, a matrix, an empty one, and a view of memory that changes."""

    def __init__(self) -> None:
        self.memory = np.arange(6, dtype=np.float64)
        self.observation_space = spaces.Dict(
            {
                "velocity": spaces.Box(-np.inf, np.inf, (2,), dtype=np.float64),
                "arm": spaces.Box(-np.inf, np.inf, (3, 2), dtype=np.float64),
                "height": spaces.Box(0.0, 2.0, (), dtype=np.float64),
                "nothing": spaces.Box(-np.inf, np.inf, (0,), dtype=np.float64),
            }
        )
        self.action_space = spaces.Discrete(2)

    def _observe(self) -> dict[str, Any]:
        return {
            "velocity": self.memory[:2],
            "arm": self.memory.reshape(3, 2),
            "height": np.asarray(1.5),
            "nothing": np.zeros(0),
        }

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.memory += 1
        return self._observe(), 0.0, False, False, {}
