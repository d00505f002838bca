"""OpenGL contexts of several MuJoCo renderers in one process."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from aime_gym.wrappers.rendering import claim_rendering


class OwnGLContext(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Render in the environment's own OpenGL context, whichever other environment rendered before.

    OpenGL draws into, and frees from, the context that is current in the thread. Gymnasium's renderer makes its context
    current only when it is created, and dm_control remembers the last one that dm_control made current. With two
    environments in a process, as in SB3's ``DummyVecEnv`` or with one to train in and one to evaluate in, frames would
    show one scene with the textures of another, or nothing. Environments without MuJoCo are not changed.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self._base: Any = self.unwrapped
        # Gymnasium's MuJoCo environments and Meta-World have the first attribute, dm_control's the second.
        self._is_gymnasium = hasattr(self._base, "mujoco_renderer")
        self._is_dm_control = not self._is_gymnasium and hasattr(self._base, "physics")
        self._has_rendered = False

    def render(self) -> Any:
        """Render a frame.

        :raises RuntimeError: there is no OpenGL library (the message names the packages), or the process was forked
            from one that has rendered.
        """
        if not self._has_rendered and (self._is_gymnasium or self._is_dm_control):
            claim_rendering()
        self._make_current()
        self._has_rendered = True
        return self.env.render()

    def close(self) -> None:
        """Free the renderer in its own context; in another one it would free the textures of that environment."""
        if self._has_rendered:
            self._has_rendered = False
            self._make_current()
            if self._is_gymnasium and hasattr(self._base.mujoco_renderer.viewer, "con"):
                self._base.mujoco_renderer.viewer.con.free()
        self.env.close()

    def _make_current(self) -> None:
        if self._is_gymnasium and self._base.mujoco_renderer.viewer is not None:
            self._base.mujoco_renderer.viewer.make_context_current()
        elif self._is_dm_control and self.render_mode != "human":
            context = self._base.physics.contexts.gl
            with context.make_current() as thread:
                thread.call(context._platform_make_current)
