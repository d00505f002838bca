"""Meta-World as a seeded environment whose goal is observed."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import seeding

#: Numbers in one frame of an observation: hand 3, gripper 1, objects 14.
FRAME_SIZE = 18
#: Numbers in an observation: current frame, previous frame, goal 3.
OBSERVATION_SIZE = 2 * FRAME_SIZE + 3


class SeededMetaWorld(gym.Wrapper[npt.NDArray[np.float64], Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Meta-World task whose goal and objects are sampled by the environment's own generator.

    The simulator ignores ``reset(seed=)`` and samples from NumPy's global generator; it hides the goal, in the bounds
    of its space too; and in some tasks (``window-open-v3``, ``drawer-open-v3``) its first frame shows the objects where
    they were before they were placed. Here a seed decides the placement, resets without a seed continue the sequence of
    the environment's own generator, NumPy's global one is never used, the goal is observed, and the first frame is
    computed after the placement. Every reset samples a placement from the task's whole distribution, instead of one of
    50 fixed ones.

    Observation ``(39,)``: hand position 3 (metres), gripper opening 1, object positions and quaternions 14, the same 18
    of the previous simulator step, goal position 3 (metres).

    :param env: ``SawyerXYZEnv`` without wrappers.
    :param flip: whether to turn rendered frames upside down. The papers' camera is mounted upside down, and the
        simulator of their time returned frames bottom row first, which shows the arm upright; today's returns the top
        row first.
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
        """Sample a placement, from ``seed`` if it is given."""
        import mujoco

        base = self._base
        if seed is not None:
            base.np_random, _ = seeding.np_random(seed)
        _, info = self.env.reset(options=options)
        # Bodies move to where the joints put them only in a forward pass, which misplaces the markers of the goal.
        mujoco.mj_forward(base.model, base.data)
        for site in base._target_site_config:
            base._set_pos_site(*site)
        frame = base._get_curr_obs_combined_no_goal()
        base._prev_obs = frame
        observation = np.concatenate([frame, frame, base._get_pos_goal()])
        return np.clip(observation, self.observation_space.low, self.observation_space.high), info
