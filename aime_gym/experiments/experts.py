"""Experts: scripts of Meta-World and Atari, one of SB3's algorithms, trained here or before, or Dreamer."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor

from aime_gym.agents.explorer import Explorer
from aime_gym.data import collect, episode_seeds, scripted_expert
from aime_gym.experiments.config import EXPERT
from aime_gym.experiments.evaluation import Policy
from aime_gym.tasks import TaskConfig
from aime_gym.types import Array, Observation, Trajectory

#: Name of the scripts of Meta-World, and of Atari's Pong and Breakout.
SCRIPTED = "scripted"
#: SB3's algorithms that can become an expert.
ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"sac": SAC, "ppo": PPO, "td3": TD3}
#: Name of the `Explorer` of the task's reward.
DREAMER = "dreamer"
CHOICES = (
    "'scripted' (Meta-World, Pong, Breakout), 'sac:20000' (train SB3's sac, ppo or td3, or 'dreamer', for so many "
    "steps) or 'sac:model.zip'"
)


@dataclass(frozen=True)
class Expert:
    """A policy that knows the task, and the environment that it needs to see.

    :param name: name that the user gave.
    :param task: task that it acts in: for a model, the one with velocities.
    :param model: SB3's, or Dreamer; ``None`` for a script.
    :param steps: environment steps that ``model`` still has to learn for.
    """

    name: str
    task: TaskConfig
    model: BaseAlgorithm | Explorer | None = None
    steps: int = 0

    def policy(self, env: gym.Env) -> Policy:
        """Return the policy for an environment of ``task``."""
        return scripted_expert(env) if self.model is None else self.model

    def train(self, *, progress: bool = True) -> float | None:
        """Take the steps that are left to learn for, and return the seconds; ``None`` when there were none.

        :raises KeyboardInterrupt: Ctrl-C; the model keeps what it has learnt.
        """
        if self.model is None or not self.steps:
            return None
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="rich is experimental")  # SB3's progress bar
            self.model.learn(self.steps, progress_bar=progress)
        if self.model.num_timesteps < self.steps:  # Dreamer ends early, where SB3 raises
            raise KeyboardInterrupt(f"expert: interrupted after {self.model.num_timesteps} of {self.steps} steps")
        return time.perf_counter() - start


def prepare_expert(name: str | None, task: TaskConfig, seed: int) -> Expert:
    """Find an expert for a task. Nothing is trained yet.

    :param name: ``"scripted"``; ``"sac:20000"``, an SB3 algorithm (or ``dreamer``) and its environment steps;
        ``"sac:model.zip"``, a trained model (SB3's files run code when they are read: load only what you trust);
        ``None`` for the script.
    :param seed: seed of the training.
    :raises ValueError: another name, no script for this task, an algorithm that does not fit its actions, or a model
        of other spaces.
    :raises FileNotFoundError: no such model.
    """
    if name is None or name == SCRIPTED:
        with task.make() as env:
            try:
                scripted_expert(env)
            except ValueError as error:
                raise ValueError(
                    f"expert: there is no script for {task.env_id}; expected {CHOICES}, or recorded demonstrations"
                ) from error
        return Expert(SCRIPTED, task)
    algorithm, _, argument = name.partition(":")
    if algorithm not in (*ALGORITHMS, DREAMER) or not argument:
        raise ValueError(f"expert: expected {CHOICES}, got {name!r}")
    task = task.with_state()
    env = Monitor(task.make())
    if not argument.isdigit():
        if not Path(argument).is_file():
            raise FileNotFoundError(
                f"expert: expected a number of steps or a file after '{algorithm}:', got {argument}"
            )
        return Expert(name, task, _load(algorithm, Path(argument), env))
    if int(argument) < 1:
        raise ValueError(f"expert: expected at least 1 step, got {name!r}")
    if algorithm == DREAMER:
        return Expert(name, task, Explorer(env, reward="task", seed=seed), int(argument))
    try:
        model: Any = ALGORITHMS[algorithm]
        return Expert(name, task, model("MlpPolicy", env, seed=seed), int(argument))
    except AssertionError as error:  # SB3's way to refuse an action space
        raise ValueError(f"expert: {algorithm} does not fit {task.env_id} ({error}); ppo takes all actions") from error


class RecordingInterrupted(KeyboardInterrupt):
    """Ctrl-C while episodes were recorded.

    :param trajectories: the episodes that were complete.
    """

    def __init__(self, what: str, trajectories: list[Trajectory], episodes: int) -> None:
        super().__init__(f"{what}: interrupted after {len(trajectories)} of {episodes} episodes")
        self.what = what
        self.trajectories = trajectories


def complete(what: str, trajectories: list[Trajectory], episodes: int) -> list[Trajectory]:
    """Return a recording that has all its episodes.

    :raises RecordingInterrupted: after Ctrl-C, when recording returns the complete episodes alone.
    """
    if len(trajectories) < episodes:
        raise RecordingInterrupted(what, trajectories, episodes)
    return trajectories


def record_demonstrations(
    expert: Expert, task: TaskConfig, episodes: int, *, seed: int, progress: bool = True, workers: int = 1
) -> list[Trajectory]:
    """Record an expert as an observer of ``task`` sees it, actions and rewards included.

    What the expert sees may be another modality: its actions are then taken again in ``task``, from the same seed.

    :param workers: greatest number of processes that record.
    :raises RecordingInterrupted: Ctrl-C.
    :raises RuntimeError: the same actions gave other rewards: the environment does not follow its seed.
    """
    with expert.task.make() as env:
        policy = EXPERT if expert.model is None else expert.model
        recorded = collect(env, policy, episodes, seed=seed, progress=progress, workers=workers)
    if expert.task != task and recorded:
        recorded = _take_again(recorded, task, seed, workers)
    return complete("demos", recorded, episodes)


class _RecordedActions:
    """Policy that takes the actions of a recording again, episode by episode.

    :param actions: actions (T, ...) of each episode, by its seed.
    """

    def __init__(self, actions: Mapping[int, Array]) -> None:
        self._actions = actions

    def reset(self, *, seed: int | None = None) -> None:
        """Begin the episode with a seed."""
        assert seed is not None
        # Again from the first one only where the episodes differ, which `_take_again` finds.
        self._left = cycle(self._actions[seed])

    def __call__(self, observation: Observation) -> Any:
        """Return the next action."""
        return next(self._left)


def _take_again(recorded: list[Trajectory], task: TaskConfig, seed: int, workers: int) -> list[Trajectory]:
    seeds = episode_seeds(seed, len(recorded))
    policy = _RecordedActions(
        {s: one.actions for s, one in zip(seeds, recorded, strict=True) if one.actions is not None}
    )
    with task.make() as env:
        seen = collect(env, policy, len(recorded), seed=seed, progress=False, workers=workers)
    for episode, (first, again) in enumerate(zip(recorded, seen, strict=False)):
        if len(first) != len(again) or not np.allclose(first.rewards, again.rewards):  # type: ignore[arg-type]
            raise RuntimeError(f"{task}: episode {episode} does not repeat under the same seed and actions")
    return seen


def _load(algorithm: str, path: Path, env: gym.Env) -> BaseAlgorithm | Explorer:
    try:
        if algorithm == DREAMER:
            return Explorer.load(path, env)
        return ALGORITHMS[algorithm].load(path, env=env)
    except Exception as error:  # a pickle of anything may fail in any way
        raise ValueError(
            f"expert: expected a {algorithm} model that fits the task's state, got {path}: {error}"
        ) from error
