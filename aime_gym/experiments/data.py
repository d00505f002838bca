"""Play data and demonstrations of an experiment: checked or loaded before any work, recorded when they are needed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from aime_gym.agents.explorer import Explorer
from aime_gym.data import (
    HeldRandomPolicy,
    ObservationEncoding,
    check_trajectories,
    collect,
    frame_rate_of,
    frame_shape,
    load_trajectories,
)
from aime_gym.data.spaces import write_space
from aime_gym.experiments.config import DEMONSTRATIONS, PLAN2EXPLORE, PLAY_EPISODES, DataConfig
from aime_gym.experiments.experts import Expert, complete, prepare_expert, record_demonstrations
from aime_gym.serialization import digest
from aime_gym.tasks import TaskConfig
from aime_gym.types import Trajectory
from aime_gym.wrappers import rendering_of


def derived_seeds(seed: int) -> dict[str, int]:
    """Return seeds of recording and evaluation that follow from one: no two of them draw the same numbers."""
    words = np.random.SeedSequence(seed).generate_state(3) >> 1  # room for the episodes that follow
    return dict(zip(("play", "demos", "evaluation"), map(int, words), strict=True)) | {"agents": seed}


@dataclass(frozen=True)
class PreparedData:
    """Data whose origin has been checked: loaded already, or to be recorded."""

    task: TaskConfig
    seeds: Mapping[str, int]
    config: DataConfig
    expert: Expert | None
    needs_play: bool
    loaded_play: list[Trajectory] | None
    loaded_demos: list[Trajectory] | None

    def recordings(
        self, *, progress: bool = True, workers: int = 1
    ) -> tuple[list[Trajectory] | None, list[Trajectory]]:
        """Return the play data, ``None`` where no agent needs it, and the demonstrations; recorded ones have actions.

        :param workers: greatest number of processes that record.
        :raises RecordingInterrupted: Ctrl-C.
        """
        play, demos = self.loaded_play, self.loaded_demos
        options: dict[str, Any] = {"progress": progress, "workers": workers}
        if play is None and self.needs_play:
            episodes = self.config.play_episodes or PLAY_EPISODES
            play = record_play(self.task, str(self.config.play), episodes, seed=self.seeds["play"], **options)
        if demos is None:
            assert self.expert is not None
            count = self.config.demo_count or DEMONSTRATIONS
            seed = self.seeds["demos"]
            demos = record_demonstrations(self.expert, self.task, count, seed=seed, **options)
        return play, demos


def prepare_data(
    task: TaskConfig,
    config: DataConfig,
    *,
    seeds: Mapping[str, int],
    needs_play: bool = True,
    demo_actions: bool = False,
    progress: bool = False,
    load: Callable[..., list[Trajectory]] | None = None,
) -> PreparedData:
    """Load what is stored, and check that the rest can be recorded.

    :param needs_play: whether an agent needs play data at all.
    :param demo_actions: whether the demonstrations' actions are needed.
    :param progress: whether to show a progress bar while videos are read.
    :param load: function in place of [`load_for_task`][], which may remember what it has loaded.
    :raises ValueError: data that does not fit the task, or no expert that could demonstrate it.
    :raises FileNotFoundError: nothing is stored there.
    """
    loaded_play = loaded_demos = None
    load = load or load_for_task
    if needs_play and not config.records_play:
        loaded_play = load_play(task, config.play, limit=config.play_episodes, load=load)
    if not config.records_demos:
        loaded_demos = load(
            task,
            config.demos,
            argument="demos",
            actions=demo_actions,
            limit=config.demo_count,
            resize=config.resize,
            progress=progress,
        )
    if isinstance(config.play, str):
        check_play_policy(task, config.play)
    expert = prepare_expert(config.expert, task, seeds["agents"]) if config.needs_expert else None
    return PreparedData(task, seeds, config, expert, needs_play, loaded_play, loaded_demos)


def check_play_policy(task: TaskConfig, policy: str) -> None:
    """Check that play can be recorded in a task.

    :raises ValueError: spaces without random actions, or that ``plan2explore`` cannot learn from.
    """
    with task.make() as env:
        HeldRandomPolicy(env.action_space)
        if policy == PLAN2EXPLORE:
            ObservationEncoding(env.observation_space)


def record_play(
    task: TaskConfig, policy: str, episodes: int, *, seed: int, progress: bool = True, workers: int = 1
) -> list[Trajectory]:
    """Record play by one of ``PLAY_POLICIES``.

    :param workers: greatest number of processes that record; ``plan2explore`` learns from each episode before the next.
    :raises RecordingInterrupted: Ctrl-C.
    """
    with task.make() as env:
        if policy == PLAN2EXPLORE:
            play = Explorer(env, seed=seed).explore(episodes, progress_bar=progress)[:episodes]
        else:
            play = collect(env, policy, episodes, seed=seed, progress=progress, workers=workers)
    return complete("play", play, episodes)


def appearance(task: TaskConfig) -> str:
    """Return a digest of what a task shows and takes: data that is loaded for one task serves all of its digest."""
    with task.make() as env:
        spaces_shown = [write_space(env.observation_space), write_space(env.action_space)]
        shown: list[Any] = [*spaces_shown, rendering_of(env)]
        if frame_shape(env.observation_space) is not None:
            shown.append(frame_rate_of(env))
    with task.make(flatten=False) as env:
        space = env.observation_space
        shown.append(list(space.spaces) if isinstance(space, spaces.Dict) else None)
    return digest([json.dumps(shown)])


def load_for_task(
    task: TaskConfig,
    source: str | os.PathLike[str] | list[Trajectory],
    *,
    argument: str,
    actions: bool,
    limit: int | None = None,
    resize: bool = False,
    progress: bool = False,
) -> list[Trajectory]:
    """Load recorded trajectories and check them against a task.

    Data with one array per sensor is joined as the task joins its sensors; videos have to show what the task shows, and
    are resampled to its decisions.

    :param source: data that [`aime_gym.data.load_trajectories`][] accepts.
    :param argument: name of the data for the user; errors start with it.
    :param limit: number of trajectories to take, the first ones; ``None`` for all.
    :param resize: whether videos of another size are resized to what the task shows.
    :param progress: whether to show a progress bar while videos are read.
    :raises ValueError: data that does not fit the task, or fewer trajectories than ``limit``.
    :raises FileNotFoundError: nothing is stored there.
    """
    with task.make() as env:
        observation_space = env.observation_space
        action_space = env.action_space
        rendering = rendering_of(env)
        shape = frame_shape(observation_space)
        rate = None if shape is None else frame_rate_of(env)
    trajectories = load_trajectories(
        source,
        actions=actions,
        frame_rate=rate,
        frame_shape=shape,
        resize=resize,
        progress=progress,
        argument=argument,
    )
    trajectories = first_of(trajectories, limit, {"play": "play_episodes"}.get(argument, "demo_count"), source)
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
        rendering=rendering,
    )


def first_of(trajectories: list[Trajectory], count: int | None, argument: str, source: object) -> list[Trajectory]:
    """Return the first trajectories of a dataset.

    :param count: number of them; ``None`` for all.
    :param argument: name of the number for the user.
    :raises ValueError: more than there are.
    """
    if count is not None and count > len(trajectories):
        raise ValueError(f"{argument}: expected at most {len(trajectories)}, the episodes in {source}, got {count}")
    return trajectories[:count]


def load_play(
    task: TaskConfig,
    source: str | os.PathLike[str] | tuple[str, ...],
    *,
    limit: int | None,
    load: Callable[..., list[Trajectory]] = load_for_task,
) -> list[Trajectory]:
    """Load play of one dataset or of several, as [`load_for_task`][] does.

    :param limit: number of trajectories to take of each dataset, the first ones; ``None`` for all.
    :param load: function in place of [`load_for_task`][].
    """
    sources = source if isinstance(source, tuple) else (source,)
    return [trajectory for one in sources for trajectory in load(task, one, argument="play", actions=True, limit=limit)]


def describe(trajectories: list[Trajectory]) -> dict[str, Any]:
    """Return how much data there is, and its mean return where rewards are known, as JSON."""
    returns = [trajectory.episode_return for trajectory in trajectories if trajectory.rewards is not None]
    return {
        "episodes": len(trajectories),
        "transitions": sum(map(len, trajectories)),
        "return_mean": float(np.mean(returns)) if returns else None,
    }
