"""dm_control as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

from dm_control.mujoco.engine import Camera
from shimmy.dm_control_compatibility import DmControlCompatibilityV0


class DmControl(DmControlCompatibilityV0):
    """Shimmy's environment with one camera for all frames.

    dm_control creates a camera and a scene for every frame, which takes half of the time of a small frame at
    ``quality="fast"``. The frames are bit-identical.
    """

    _camera: Any = None
    _contexts: Any = None

    def render(self) -> Any:
        """Render a frame."""
        if self.render_mode != "rgb_array":
            return super().render()
        physics = self._env.physics
        if self._contexts is not physics.contexts:  # a new model has new contexts
            self._contexts = physics.contexts
            self._camera = Camera(physics, **self.render_kwargs)
        return self._camera.render().copy()  # the next frame overwrites the buffer
