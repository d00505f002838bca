"""Meta-World as a seeded environment that shows its goal."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import seeding

#: Entries of one frame: hand 3, gripper 1, objects 14.
FRAME = 18
#: Entries of an observation: current frame, previous frame, goal 3.
SIZE = 2 * FRAME + 3


class SeededMetaWorld(gym.Wrapper[npt.NDArray[np.float64], Any, Any, Any], gym.utils.RecordConstructorArgs):
    """One Meta-World task whose goal and objects are drawn by the environment's own generator.

    The simulator ignores ``reset(seed=)`` and draws from NumPy's global generator; it hides the goal and announces the
    bounds of a hidden goal; and in some tasks (``window-open-v3``, ``drawer-open-v3``) its first frame shows the
    objects where they were before they were placed. Here a seed decides the placement, resets without a seed go on in
    the environment's own sequence, NumPy's global generator is never touched, the goal is visible, and the first frame
    is computed after the placement. Every reset draws a new placement from the task's whole distribution, instead of
    one of 50 fixed ones.

    Observation ``(39,)``: hand position 3 (metres), gripper opening 1, object positions and quaternions 14, the same 18
    of the previous simulator step, goal position 3 (metres).

    :param env: a ``SawyerXYZEnv`` as its class makes it.
    :param flip: turn rendered frames upside down. The papers' camera hangs upside down, and the simulator of their time
        returned frames bottom row first, so that they saw the arm upright; today's returns the top row first.
    """

    def __init__(self, env: gym.Env[Any, Any], flip: bool = False) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, flip=flip)
        gym.Wrapper.__init__(self, env)
        self._base: Any = env.unwrapped
        self._base._set_task_called = True
        self._base._partially_observable = False
        self._base._freeze_rand_vec = False
        self._base.seeded_rand_vec = True
        # The space was computed while the goal was hidden. The simulator clips its observations to it.
        del self._base.sawyer_observation_space
        space: spaces.Box = self._base.sawyer_observation_space
        self._base.observation_space = space
        self.observation_space = space
        self._flip = flip

    def render(self) -> Any:
        """Render a frame."""
        frame = self.env.render()
        return np.ascontiguousarray(frame[::-1]) if self._flip and isinstance(frame, np.ndarray) else frame

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float64], dict[str, Any]]:
        """Draw a placement, from ``seed`` when it is given."""
        import mujoco

        base = self._base
        if seed is not None:
            base.np_random, _ = seeding.np_random(seed)
        _, info = self.env.reset(options=options)
        # Positions of bodies follow from the joints only after a forward pass, which moves the markers of the goal.
        mujoco.mj_forward(base.model, base.data)
        for site in base._target_site_config:
            base._set_pos_site(*site)
        frame = base._get_curr_obs_combined_no_goal()
        base._prev_obs = frame
        observation = np.concatenate([frame, frame, base._get_pos_goal()])
        return np.clip(observation, self.observation_space.low, self.observation_space.high), info
