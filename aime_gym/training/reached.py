"""Transitions as a VecEnv tells of them: it starts the next episode in the step that ends one."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from aime_gym.types import Array, Observation


def reached_observations(observations: VecEnvObs, dones: Array, infos: list[dict[str, Any]]) -> Observation:
    """The observations that a step led to: at an episode's end its last one, not the first of the next.

    :return: (n_envs, ...), a copy.
    """
    reached = copied(observations)
    for index in np.flatnonzero(dones):
        last = infos[index]["terminal_observation"]
        if isinstance(reached, dict):
            for name, values in reached.items():
                values[index] = last[name]
        else:
            reached[index] = last
    return reached


def copied(observations: VecEnvObs) -> Observation:
    """Observations that no later step of the environment rewrites."""
    if isinstance(observations, dict):
        return {name: np.array(values) for name, values in observations.items()}
    return np.array(observations)
