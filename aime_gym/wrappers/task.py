"""What a finished environment says about itself."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec


class Task(gym.Wrapper[Any, Any, Any, Any]):
    """The outermost wrapper: a specification that makes the same environment again, and its true frame rate.

    Gymnasium's ``spec`` of a wrapped environment lists every wrapper, and making it again would wrap twice. Here it is
    the one call that made the whole. ``metadata`` belongs to this environment alone: dm_control's is shared by all of
    its environments, with a rate that is wrong a thousandfold.

    :param env: the wrapped environment.
    :param spec: rebuilds the whole, through :func:`gymnasium.make`.
    :param metadata: what differs from the simulator's; ``render_fps`` is decisions per second of simulated time.
    :param rendering: the quality in which frames are drawn; ``None`` when none are.
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
        """The specification, without wrappers. :func:`gymnasium.make` puts the registered one in its place."""
        return self.unwrapped.spec
