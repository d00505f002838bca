"""dm_control as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

from dm_control.mujoco.engine import Camera
from shimmy.dm_control_compatibility import DmControlCompatibilityV0


class DmControl(DmControlCompatibilityV0):
    """Shimmy's environment, with a camera that stays.

    dm_control sets up a camera and a scene for every frame and throws them away, which takes half of the time of a
    small frame that is drawn fast. The frames are the same, bit by bit.
    """

    _camera: Any = None
    _contexts: Any = None

    def render(self) -> Any:
        """Render a frame."""
        if self.render_mode != "rgb_array":
            return super().render()
        physics = self._env.physics
        if self._contexts is not physics.contexts:  # new ones come with a new model
            self._contexts, self._camera = physics.contexts, Camera(physics, **self.render_kwargs)
        return self._camera.render().copy()  # out of the buffer of the next frame
