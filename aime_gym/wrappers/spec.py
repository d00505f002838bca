"""Specification and metadata of a wrapped environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec


class OverrideSpec(gym.Wrapper[Any, Any, Any, Any]):
    """Replace ``spec`` and ``metadata``; the outermost wrapper.

    Gymnasium's ``spec`` of a wrapped environment lists every wrapper, so that making it again would wrap twice. Here it
    holds the one call that made the whole environment. ``metadata`` belongs to this environment alone: dm_control's is
    shared by all of its environments, and its frame rate is off by a factor of a thousand.

    :param env: wrapped environment.
    :param spec: specification from which ``gymnasium.make`` rebuilds the whole environment.
    :param metadata: entries that differ from the simulator's; ``render_fps`` is in environment steps per second of
        simulated time.
    :param rendering: quality in which frames are rendered; ``None`` without frames.
    """

    def __init__(
        self, env: gym.Env[Any, Any], spec: EnvSpec, metadata: dict[str, Any], rendering: str | None = None
    ) -> None:
        super().__init__(env)
        self.rendering = rendering
        self.unwrapped.spec = spec
        self.metadata = {**env.metadata, **metadata}

    @property
    def spec(self) -> EnvSpec | None:
        """Specification without wrappers, which ``gymnasium.make`` replaces by the registered one."""
        return self.unwrapped.spec
