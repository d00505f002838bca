"""What agents accept as an environment, and the play that they record in it."""

from __future__ import annotations

import math

import gymnasium as gym
from gymnasium.vector import VectorEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, unwrap_vec_normalize

from aime_gym.data import collect
from aime_gym.types import Trajectory


def accept_env(env: GymEnv | str, verbose: int) -> VecEnv:
    """Wrap what a user gave as SB3 does.

    :raises ValueError: something else than an environment, or one that normalises observations.
    """
    if isinstance(env, str):
        env = gym.make(env)
    if not isinstance(env, gym.Env | VecEnv):
        advice = "; stable_baselines3.common.env_util.make_vec_env makes a VecEnv" * isinstance(env, VectorEnv)
        raise ValueError(
            f"env: expected a Gymnasium environment, an SB3 VecEnv or an id, got {type(env).__name__}{advice}"
        )
    wrapped = BaseAlgorithm._wrap_env(env, verbose)
    normalizer = unwrap_vec_normalize(wrapped)
    if normalizer is not None and normalizer.norm_obs:
        raise ValueError(
            "env: expected observations as the demonstrations hold them, got VecNormalize(norm_obs=True), whose "
            "statistics move; the agents standardise observations themselves, so leave it out or pass norm_obs=False"
        )
    return wrapped


def record_play(vec_env: VecEnv | None, timesteps: int, *, seed: int, progress: bool) -> tuple[list[Trajectory], bool]:
    """Record random play in the first copy of an environment.

    :param timesteps: least number of environment steps, in whole episodes.
    :return: the trajectories, and whether Ctrl-C cut them short.
    :raises ValueError: no environment, or copies that live in other processes.
    """
    while isinstance(vec_env, VecEnvWrapper):
        vec_env = vec_env.venv
    if not isinstance(vec_env, DummyVecEnv):
        raise ValueError("play: expected trajectories, since this environment cannot collect any in this process")
    env = vec_env.envs[0]
    play = collect(env, "play", 1, seed=seed, progress=False)  # says how long an episode is
    while play and (steps := sum(map(len, play))) < timesteps:
        episodes = math.ceil((timesteps - steps) * len(play) / steps)
        more = collect(env, "play", episodes, seed=seed + len(play), progress=progress)
        play += more
        if len(more) < episodes:
            return play, True
    return play, not play
