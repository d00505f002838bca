"""What agents ask of an environment to interact in, and the play that they record in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper

from aime_gym.data import collect, frame_rate, frame_shape
from aime_gym.types import Trajectory
from aime_gym.wrappers.quality import as_quality, holds_images


def check_envs_agree(env: VecEnv) -> None:
    """Make sure that all copies of an environment have the same spaces, and draw images alike.

    :raises ValueError: the first copy that has others.
    """
    for name in ("observation_space", "action_space"):
        first, *others = env.get_attr(name)
        for index, space in enumerate(others, start=1):
            if space != first:
                raise ValueError(
                    f"env: expected copies that agree on {name}, {first} as the first one has it, got {space} in copy "
                    f"{index}"
                )
    rendering_of_envs(env)


def rendering_of_envs(env: VecEnv) -> str | None:
    """The quality in which the images of all copies of an environment are drawn, as of one by ``rendering_of``.

    :raises ValueError: copies of several qualities.
    """
    # A worker of SubprocVecEnv dies of an attribute that it does not have.
    if not holds_images(env.observation_space) or not env.has_attr("rendering"):
        return None
    first, *others = map(as_quality, env.get_attr("rendering"))
    for index, quality in enumerate(others, start=1):
        if quality != first:
            raise ValueError(
                f"env: expected copies that agree on quality, {first!r} as the first one has it, got {quality!r} in "
                f"copy {index}"
            )
    return first


def shown_frames(env: VecEnv | None, space: spaces.Space) -> dict[str, Any]:
    """What videos have to be like for an environment that shows images: options of ``load_trajectories``."""
    shape = frame_shape(space)
    return {} if shape is None else {"frame_shape": shape, "frame_rate": _frame_rate(env)}


def _frame_rate(env: VecEnv | None) -> float | None:
    if env is None:
        return None
    try:
        (metadata,) = env.get_attr("metadata", [0])
        # Not from another process: a specification may hold what cannot be sent.
        (spec,) = env.get_attr("spec", [0]) if isinstance(env.unwrapped, DummyVecEnv) else (None,)
    except AttributeError:  # a VecEnv of others need not have them
        return None
    return frame_rate(metadata, spec.id if spec is not None else "") if isinstance(metadata, Mapping) else None


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
