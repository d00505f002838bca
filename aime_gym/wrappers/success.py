"""Latch of the success of an episode, until the episode ends."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym


class SuccessLatch(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Report whether the episode has succeeded at any step so far.

    Meta-World reports success step by step, its official metric counts success at any step, and SB3 reads
    ``info["is_success"]`` at the last step of an episode only. So both ``info["success"]`` and ``info["is_success"]``
    become a ``bool`` that stays true once it was true. The wrapper belongs *inside* the action repeat, which returns
    the info of its last step only. Infos without ``"success"`` are not changed.

    Example:
        >>> env = RepeatAction(SuccessLatch(env), 2)
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self._succeeded = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode that has not succeeded yet."""
        self._succeeded = False
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step, and latch the success."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if "success" in info:
            self._succeeded = self._succeeded or bool(info["success"])
            info = {**info, "success": self._succeeded, "is_success": self._succeeded}
        return observation, reward, terminated, truncated, info
