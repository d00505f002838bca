"""Which task an experiment is about, and what of it an agent sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from aime_gym.data import check_trajectories, frame_rate_of, frame_shape, load_trajectories
from aime_gym.envs import Modality, make_env
from aime_gym.types import Trajectory


@dataclass(frozen=True)
class TaskConfig:
    """A task by name, with the options of :func:`aime_gym.make_env` that an experiment may choose.

    :param env_id: see :func:`aime_gym.make_env`.
    :param modality: ``"position"`` or ``"state"``.
    :param action_repeat: simulator steps per decision; ``None`` for the task's default.
    :param max_episode_steps: episode length in simulator steps; ``None`` for the task's default.
    :param positions: what of an observation is positions, where ``make_env`` does not know: names of sensors, or
        numbers of entries.
    """

    env_id: str
    modality: Modality = "position"
    action_repeat: int | None = None
    max_episode_steps: int | None = None
    positions: tuple[str, ...] | tuple[int, ...] = ()

    def make(self, **options: Any) -> gym.Env:
        """Make the environment; ``options`` are further ones of :func:`aime_gym.make_env`.

        :raises ValueError: an unknown task or modality, with the nearest names.
        """
        if self.positions:
            numbers = all(isinstance(position, int) for position in self.positions)
            options["position_indices" if numbers else "position_keys"] = list(self.positions)
        return make_env(
            self.env_id,
            modality=self.modality,
            action_repeat=self.action_repeat,
            max_episode_steps=self.max_episode_steps,
            **options,
        )

    def with_state(self) -> TaskConfig:
        """The same task, seen with its velocities."""
        return replace(self, modality="state", positions=())

    def __str__(self) -> str:
        return f"{self.env_id} ({self.modality})"


def load_for(
    task: TaskConfig,
    source: Any,
    *,
    argument: str,
    actions: bool,
    limit: int | None = None,
    progress: bool = False,
) -> list[Trajectory]:
    """Load recorded trajectories and check them against a task.

    Data with one array per sensor is joined as the task joins its sensors; videos have to show what the task shows, and
    are resampled to its decisions.

    :param source: whatever :func:`~aime_gym.data.load_trajectories` accepts.
    :param argument: what the user calls this data; errors start with it.
    :param limit: take the first ones only.
    :param progress: show a progress bar while videos are read.
    :raises ValueError: data that does not fit the task.
    :raises FileNotFoundError: nothing is stored there.
    """
    with task.make() as env:
        observation_space, action_space = env.observation_space, env.action_space
        shape = frame_shape(observation_space)
        rate = None if shape is None else frame_rate_of(env)
    trajectories = load_trajectories(
        source, actions=actions, frame_rate=rate, frame_shape=shape, progress=progress, argument=argument
    )[:limit]
    if isinstance(observation_space, spaces.Box) and trajectories and isinstance(trajectories[0].observations, dict):
        with task.make(flatten=False) as env:
            if isinstance(env.observation_space, spaces.Dict):
                names = list(env.observation_space.spaces)
                trajectories = load_trajectories(trajectories, sensors=names, argument=argument)
    return check_trajectories(
        trajectories,
        argument=argument,
        observation_space=observation_space,
        action_space=action_space,
        need_actions=actions,
    )
