"""Checks of the environment that an agent interacts in, and the play that the agent records in it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize

from aime_gym.data import HeldRandomPolicy, frame_rate, frame_shape
from aime_gym.data.collecting import legal_action
from aime_gym.progress import progress_bar
from aime_gym.tasks import KnownTask, known_task
from aime_gym.training.rollouts import EnvStep, collect_episodes
from aime_gym.training.signals import DeferredSignals
from aime_gym.types import Array, Observation, Trajectory
from aime_gym.wrappers.quality import as_quality, holds_images


def check_envs_agree(env: VecEnv) -> None:
    """Make sure that all copies of an environment have the same spaces, and draw images alike.

    :raises ValueError: the first copy that has others.
    """
    for name in ("observation_space", "action_space"):
        try:
            first, *others = env.get_attr(name)
        except (AttributeError, NotImplementedError, TypeError, ValueError):  # a VecEnv of others need not know
            continue
        for index, space in enumerate(others, start=1):
            if space != first:
                raise ValueError(
                    f"env: expected copies that agree on {name}, {first} as the first one has it, got {space} in copy "
                    f"{index}"
                )
    rendering_of_envs(env)


def rendering_of_envs(env: VecEnv) -> str | None:
    """Return the quality in which the images of all copies of an environment are drawn, as ``rendering_of`` names it.

    :raises ValueError: copies of several qualities.
    """
    # A worker of SubprocVecEnv dies of an attribute that it does not have.
    if not holds_images(env.observation_space) or not _has_attribute(env, "rendering"):
        return None
    first, *others = map(as_quality, env.get_attr("rendering"))
    for index, quality in enumerate(others, start=1):
        if quality != first:
            raise ValueError(
                f"env: expected copies that agree on quality, {first!r} as the first one has it, got {quality!r} in "
                f"copy {index}"
            )
    return first


def task_of_envs(env: VecEnv) -> KnownTask | None:
    """Return the task that the copies of an environment are known to have; ``None`` when it is unknown.

    Copies in other processes are unknown: their specifications may hold what cannot be sent.
    """
    while isinstance(env, VecMonitor | VecNormalize):
        env = env.venv
    if not isinstance(env, DummyVecEnv):
        return None
    first, *others = map(known_task, env.envs)
    return first if all(other == first for other in others) else None


def _has_attribute(env: VecEnv, name: str) -> bool:
    try:
        return env.has_attr(name)
    except (NotImplementedError, TypeError, ValueError):  # a VecEnv of others need not know
        return False


def shown_frames(env: VecEnv | None, space: spaces.Space) -> dict[str, Any]:
    """Return the options of ``load_trajectories`` by which videos are read as an environment shows its images."""
    shape = frame_shape(space)
    return {} if shape is None else {"frame_shape": shape, "frame_rate": _frame_rate(env)}


def _frame_rate(env: VecEnv | None) -> float | None:
    if env is None:
        return None
    try:
        (metadata,) = env.get_attr("metadata", [0])
        # Not from another process: a specification may hold what cannot be sent.
        (spec,) = env.get_attr("spec", [0]) if isinstance(env.unwrapped, DummyVecEnv) else (None,)
    except (AttributeError, NotImplementedError, TypeError, ValueError):  # a VecEnv of others need not have them
        return None
    return frame_rate(metadata, spec.id if spec is not None else "") if isinstance(metadata, Mapping) else None


def record_play(env: VecEnv | None, timesteps: int, *, seed: int, progress: bool) -> tuple[list[Trajectory], bool]:
    """Record random play in an environment, through all of its wrappers: as the agent itself will observe it.

    :param timesteps: least number of environment steps, all copies together, in whole episodes.
    :param progress: show a progress bar.
    :return: the trajectories, and whether Ctrl-C cut them short.
    :raises ValueError: no environment, one that observes numbers which are not finite, or one without an end.
    """
    if env is None:
        raise ValueError("play: expected trajectories, since there is no environment to record any in; call set_env")
    play: list[Trajectory] = []
    with (
        progress_bar("play", timesteps, enabled=progress) as advance,
        DeferredSignals(terminations=False) as signals,
    ):
        episodes = 1  # says how long one is
        try:
            while episodes > 0:
                play += _play_episodes(env, episodes, seed + len(play), signals, advance)
                signals.raise_pending()
                steps = sum(map(len, play))
                episodes = math.ceil((timesteps - steps) * len(play) / steps)
        except KeyboardInterrupt:
            warnings.warn(f"play: interrupted, with {len(play)} episodes", stacklevel=2)
            return play, True
    quality = rendering_of_envs(env)
    return [replace(trajectory, rendering=quality) for trajectory in play], False


def _play_episodes(
    env: VecEnv, episodes: int, seed: int, signals: DeferredSignals, advance: Callable[[int, str], None]
) -> list[Trajectory]:
    """Record at least so many episodes, and one of every copy; what others have begun by then is cut there."""
    space = env.action_space
    policies = [HeldRandomPolicy(space, seed=seed + index) for index in range(env.num_envs)]

    def act(observation: Observation, state: Any, episode_start: Array) -> tuple[Array, None]:
        for policy, first in zip(policies, episode_start, strict=True):
            if first:
                policy.reset()
        # Rounded to what a trajectory keeps before it is taken, as collect does.
        return np.stack([legal_action(policy(), space).astype(space.dtype) for policy in policies]), None

    def on_step(step: EnvStep) -> bool:
        advance(env.num_envs, "")
        return not signals.pending

    return collect_episodes(env, act, steps=1, episodes=episodes, seed=seed, on_step=on_step)
