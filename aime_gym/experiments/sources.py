"""Play and demonstrations: where they come from, checked before any work, and recorded when the time comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aime_gym.agents.explorer import Explorer
from aime_gym.data import HeldRandomPolicy, ObservationEncoding, collect
from aime_gym.experiments.experts import Expert, prepare_expert, record_demonstrations
from aime_gym.experiments.task import TaskConfig, load_for
from aime_gym.types import Trajectory

#: Plays to learn: what it records is all of its learning.
PLAN2EXPLORE = "plan2explore"
#: Policies by name that record play.
PLAY_POLICIES = ("play", "random", PLAN2EXPLORE)
#: Demonstrations that the expert records.
EXPERT = "expert"
#: Episodes to record where the user does not say.
PLAY_EPISODES, DEMONSTRATIONS = 600, 20


def derived_seeds(seed: int) -> dict[str, int]:
    """Seeds of recording and evaluation that follow from one: no two of them draw the same numbers."""
    words = np.random.SeedSequence(seed).generate_state(3) >> 1  # room for the episodes that follow
    return dict(zip(("play", "demos", "evaluation"), map(int, words), strict=True)) | {"agents": seed}


@dataclass(frozen=True)
class Data:
    """Where play and demonstrations come from.

    :param play: one of ``PLAY_POLICIES``, to record here; otherwise what :func:`~aime_gym.data.load_trajectories`
        accepts.
    :param play_episodes: how many to record, or to take of what is loaded; ``None`` for 600, or all.
    :param demos: ``"expert"`` to record here; otherwise what :func:`~aime_gym.data.load_trajectories` accepts.
    :param demo_count: how many to record, or to take of what is loaded; ``None`` for 20, or all.
    :param expert: see :func:`~aime_gym.experiments.experts.prepare_expert`. With loaded demonstrations, ``None`` takes
        their returns for the expert's.
    """

    play: Any = "play"
    play_episodes: int | None = None
    demos: Any = EXPERT
    demo_count: int | None = None
    expert: str | None = None

    def __post_init__(self) -> None:
        for name in ("play_episodes", "demo_count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")

    @property
    def needs_expert(self) -> bool:
        """Whether somebody has to act as the expert here."""
        return self.expert is not None or _is_name(self.demos, (EXPERT,))


@dataclass(frozen=True)
class Sources:
    """Data whose origin has been checked: loaded already, or to be recorded."""

    task: TaskConfig
    seeds: Mapping[str, int]
    data: Data
    expert: Expert | None
    needs_play: bool
    loaded_play: list[Trajectory] | None
    loaded_demos: list[Trajectory] | None

    def play(self, *, progress: bool = True) -> list[Trajectory] | None:
        """Return the play data, with actions; ``None`` where nobody needs it."""
        if self.loaded_play is not None or not self.needs_play:
            return self.loaded_play
        return record_play(
            self.task,
            self.data.play,
            self.data.play_episodes or PLAY_EPISODES,
            seed=self.seeds["play"],
            progress=progress,
        )

    def demos(self, *, progress: bool = True) -> list[Trajectory]:
        """Return the demonstrations; recorded ones have their actions, for oracles."""
        if self.loaded_demos is not None:
            return self.loaded_demos
        assert self.expert is not None
        count = self.data.demo_count or DEMONSTRATIONS
        return record_demonstrations(self.expert, self.task, count, seed=self.seeds["demos"], progress=progress)


def prepare_sources(
    task: TaskConfig,
    data: Data,
    *,
    seeds: Mapping[str, int],
    play: bool = True,
    demo_actions: bool = False,
    progress: bool = False,
) -> Sources:
    """Load what is stored, and check that the rest can be recorded.

    :param play: whether play data is needed at all.
    :param demo_actions: whether the demonstrations' actions are needed.
    :param progress: show a progress bar while videos are read.
    :raises ValueError: data that does not fit the task, or nobody who could demonstrate it.
    :raises FileNotFoundError: nothing is stored there.
    """
    loaded_play = loaded_demos = None
    if play and not _is_name(data.play, PLAY_POLICIES):
        loaded_play = load_for(task, data.play, argument="play", actions=True, limit=data.play_episodes)
    if not _is_name(data.demos, (EXPERT,)):
        loaded_demos = load_for(
            task, data.demos, argument="demos", actions=demo_actions, limit=data.demo_count, progress=progress
        )
    check_play(task, data.play)
    expert = prepare_expert(data.expert, task, seeds["agents"]) if data.needs_expert else None
    return Sources(task, seeds, data, expert, play, loaded_play, loaded_demos)


def check_play(task: TaskConfig, policy: Any) -> None:
    """Make sure that a task can be played in, by one of ``PLAY_POLICIES``.

    :raises ValueError: spaces in which nobody can play, or that ``plan2explore`` cannot learn from.
    """
    with task.make() as env:
        HeldRandomPolicy(env.action_space)
        if _is_name(policy, (PLAN2EXPLORE,)):
            ObservationEncoding(env.observation_space)


def record_play(task: TaskConfig, policy: str, episodes: int, *, seed: int, progress: bool = True) -> list[Trajectory]:
    """Record play by one of ``PLAY_POLICIES``; :func:`check_play` says where that can be done."""
    with task.make() as env:
        if policy == PLAN2EXPLORE:
            return Explorer(env, seed=seed).explore(episodes, progress_bar=progress)[:episodes]
        return collect(env, policy, episodes, seed=seed, progress=progress)


def _is_name(source: Any, names: tuple[str, ...]) -> bool:
    return isinstance(source, str) and source in names
