"""The pieces of a benchmark: shared play, shared demonstrations, references, and cells. Each is a job for a process."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from aime_gym.agents.base import ImitationAgent
from aime_gym.data import save_minari
from aime_gym.experiments.agents import train, training_env
from aime_gym.experiments.evaluation import Score, evaluate, evaluate_random
from aime_gym.experiments.experts import prepare_expert, record_demonstrations
from aime_gym.experiments.provenance import describe_machine, package_versions
from aime_gym.experiments.sources import derived_seeds, record_play
from aime_gym.experiments.suite import Cell, SuiteTask, identity_digest, import_modules
from aime_gym.experiments.task import load_for
from aime_gym.types import Trajectory

#: Demonstrations as everybody sees them, and as oracles do.
_OBSERVED, _WITH_ACTIONS = "observed", "with-actions"


@dataclass(frozen=True)
class RandomJob:
    """The score of uniform random actions."""

    task: SuiteTask

    @property
    def title(self) -> str:
        """The job in words."""
        return f"{self.task.label}, random"

    @property
    def key(self) -> str:
        """Of the reference."""
        return identity_digest(self.task.random_identity())

    def run(self) -> dict[str, Any]:
        """Evaluate it."""
        seed = derived_seeds(self.task.data_seed)["evaluation"]
        with self.task.config.make() as env:
            return _scored(evaluate_random(env, self.task.eval_episodes, seed=seed))


@dataclass(frozen=True)
class PlayJob:
    """Play data, recorded once for all cells of a task."""

    task: SuiteTask
    out: Path

    @property
    def title(self) -> str:
        """The job in words."""
        return f"{self.task.label}, play"

    @property
    def key(self) -> str:
        """Of the data."""
        return identity_digest(self.task.play_identity())

    @property
    def folder(self) -> Path:
        """Where the data is."""
        return self.out / "data" / f"play-{self.key}"

    def run(self) -> dict[str, Any]:
        """Record it."""
        identity, seeds = self.task.play_identity(), derived_seeds(self.task.data_seed)
        play = record_play(
            self.task.config, identity["play"], identity["play_episodes"], seed=seeds["play"], progress=False
        )
        with self.task.config.make() as env:
            save_minari(self.folder, play, env, metadata={"policy": identity["play"]})
        return _described(play)


@dataclass(frozen=True)
class DemosJob:
    """Demonstrations, recorded once for all cells of a task, and the score of who gave them.

    :param count: the most that a cell wants.
    """

    task: SuiteTask
    out: Path
    count: int

    @property
    def title(self) -> str:
        """The job in words."""
        return f"{self.task.label}, expert"

    @property
    def key(self) -> str:
        """Of the expert's score."""
        return identity_digest(self.task.expert_identity())

    @property
    def folder(self) -> Path:
        """Where the data is."""
        return self.out / "data" / f"demos-{identity_digest(self.task.demos_identity(self.count))}"

    def run(self) -> dict[str, Any]:
        """Train and evaluate the expert, if there is one, and record it, if it has to be."""
        config, data, seeds = self.task.config, self.task.data, derived_seeds(self.task.data_seed)
        if not self.task.records_demos and data.expert is None:
            demos = load_for(config, data.demos, argument="demos", actions=False)
            if any(demo.rewards is None for demo in demos):
                return {"returns": None}
            return _scored(Score(tuple(demo.episode_return for demo in demos), tuple(map(len, demos))))
        expert = prepare_expert(data.expert, config, seeds["agents"])
        seconds = expert.train(progress=False)
        with expert.task.make() as env:
            score = evaluate(expert.policy(env), env, self.task.eval_episodes, seed=seeds["evaluation"])
        result = _scored(score) | {"expert": expert.name, "train_seconds": seconds}
        if not self.task.records_demos or self.folder.is_dir():  # killed before it could say that it had recorded
            return result
        demos = record_demonstrations(expert, config, self.count, seed=seeds["demos"], progress=False)
        partial = self.folder.with_name(f".{self.folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        with config.make() as env:
            save_minari(partial / _OBSERVED, demos, env, actions=False, metadata={"policy": expert.name})
            save_minari(partial / _WITH_ACTIONS, demos, env, actions=True, metadata={"policy": expert.name})
        if expert.model is not None and expert.steps:
            expert.model.save(partial / "expert.zip")
        partial.rename(self.folder)
        return result | {"demonstrations": _described(demos)}


@dataclass(frozen=True)
class CellJob:
    """Train and evaluate one agent.

    :param play: where the play data is; ``None`` for an agent that needs none.
    :param demos: where the demonstrations are.
    :param actions: whether it may see the demonstrations' actions.
    """

    cell: Cell
    play: str | Path | None
    demos: str | Path
    actions: bool

    @property
    def title(self) -> str:
        """The job in words."""
        return self.cell.title

    @property
    def key(self) -> str:
        """Of the cell."""
        return self.cell.key

    def run(self) -> dict[str, Any]:
        """Do what `aime-gym compare` does for one agent."""
        start = time.perf_counter()
        cell = self.cell
        import_modules(cell.imports)
        config, data = cell.task.config, cell.task.data
        play = None
        if self.play is not None:
            play = load_for(config, self.play, argument="play", actions=True, limit=data.play_episodes)
        demos = load_for(config, self.demos, argument="demos", actions=self.actions, limit=cell.demonstrations)
        seed = derived_seeds(cell.task.data_seed)["evaluation"]
        with training_env(cell.spec.agent_class, config) as training, config.make() as env:
            agent = cell.spec.build(config, training, cell.seed)
            curve = None
            if cell.curve is not None:
                curve = LearningCurve(agent, env, cell.curve.steps, cell.curve.episodes, seed)
            train_seconds = train(agent, play, demos, learn=cell.learn, callback=curve, progress=False)
            if agent.interrupted:
                raise RuntimeError("the training was interrupted, and its result would stand for a whole one")
            score = evaluate(agent, env, cell.task.eval_episodes, seed=seed)
        return _scored(score) | {
            "train_seconds": train_seconds,
            "wall_seconds": time.perf_counter() - start,
            "env_steps": agent.num_timesteps,
            "updates": agent.num_updates,
            "demonstration_transitions": sum(map(len, demos)),
            "play_transitions": None if play is None else sum(map(len, play)),
            "curve": [] if curve is None else curve.points,
        }


def demos_source(task: SuiteTask, job: DemosJob, *, actions: bool) -> str | Path:
    """Where a cell finds demonstrations: nobody but oracles is given a file that has actions."""
    if not task.records_demos:
        return str(task.data.demos)
    return job.folder / (_WITH_ACTIONS if actions else _OBSERVED)


class LearningCurve(BaseCallback):
    """Evaluates an agent each time that it has taken so many environment steps.

    Steps are the agent's own: phases that take none get no point, but for what ``learn`` starts from.

    :param env: to evaluate in; the agent's own is left alone.
    :param steps: between two evaluations.
    :param seed: of each evaluation's episodes.
    """

    def __init__(self, agent: ImitationAgent, env: gym.Env, steps: int, episodes: int, seed: int) -> None:
        super().__init__()
        self._watched, self._env, self._steps, self._episodes, self._seed = agent, env, steps, episodes, seed
        self._next = steps
        #: Environment steps, and the returns of the episodes then.
        self.points: list[dict[str, Any]] = []

    def _on_training_start(self) -> None:
        if self._watched.interacts and self._watched.improves_online:  # from what imitate left
            self._measure()

    def _on_step(self) -> bool:
        taken = self._watched.num_timesteps
        if taken >= self._next:
            self._measure()
            self._next = (taken // self._steps + 1) * self._steps
        return True

    def _measure(self) -> None:
        score = evaluate(self._watched, self._env, self._episodes, seed=self._seed)
        self.points.append({"env_steps": self._watched.num_timesteps, "returns": list(score.returns)})


def _scored(score: Score) -> dict[str, Any]:
    return {
        "returns": list(score.returns),
        "lengths": list(score.lengths),
        "successes": None if score.successes is None else list(score.successes),
        "eval_seconds": score.seconds,
        "packages": package_versions(),
        "machine": describe_machine(),
    }


def _described(trajectories: list[Trajectory]) -> dict[str, Any]:
    returns = [trajectory.episode_return for trajectory in trajectories]
    return {
        "episodes": len(trajectories),
        "transitions": sum(map(len, trajectories)),
        "return_mean": float(np.mean(returns)),
    }
