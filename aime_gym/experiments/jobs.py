"""Jobs of a suite: play and demonstrations that cells share, reference scores, and cells. Each one can run alone."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback

from aime_gym.agents.base import ImitationAgent
from aime_gym.data import save_minari
from aime_gym.experiments.agent_spec import train, training_env
from aime_gym.experiments.data import derived_seeds, describe, load_for_task, record_play
from aime_gym.experiments.evaluation import Score, evaluate, evaluate_random
from aime_gym.experiments.experts import Expert, prepare_expert, record_demonstrations
from aime_gym.experiments.provenance import describe_machine, package_versions
from aime_gym.experiments.suite import Cell, Imports, SuiteTask, identity_digest

#: Demonstrations as observers see them, and as oracles do.
_OBSERVED, _WITH_ACTIONS = "observed", "with-actions"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work on one task, in this process or in another.

    :param data: the folder of what cells share.
    :param keep: where trained agents and experts are kept; ``None`` for nowhere.
    """

    task: SuiteTask
    imports: Imports
    data: Path
    keep: Path | None = None

    #: What its record is about.
    what = ""

    @property
    def title(self) -> str:
        """The job in words."""
        return f"{self.task.label}, {self.what}"

    @property
    def key(self) -> str:
        """A short name, equal for jobs of equal results."""
        raise NotImplementedError

    @property
    def seeds(self) -> dict[str, int]:
        """Seeds of recording and of the evaluation."""
        return derived_seeds(self.task.data_seed)

    def run(self, *, progress: bool = False) -> dict[str, Any]:
        """Do the work, and return what is to be recorded, as JSON.

        :raises KeyboardInterrupt: Ctrl-C.
        """
        raise NotImplementedError

    def save(self, model: Any, label: str) -> str | None:
        """Save an agent or an expert where they are kept, and return the file's name."""
        if self.keep is None:
            return None
        file = f"{as_file_name(label)}.zip"
        model.save(self.keep / file)
        return file


class RandomJob(Job):
    """The score of uniform random actions."""

    what = "random"

    @property
    def key(self) -> str:
        return identity_digest(self.task.random_identity())

    def run(self, *, progress: bool = False) -> dict[str, Any]:
        with self.task.config.make() as env:
            seed = self.seeds["evaluation"]
            return _scored(evaluate_random(env, self.task.eval_episodes, seed=seed, progress=progress))


class PlayJob(Job):
    """Play data, recorded once for all cells of a task."""

    what = "play"

    @property
    def key(self) -> str:
        return identity_digest(self.task.play_identity())

    @property
    def folder(self) -> Path:
        """The data's folder."""
        return self.data / f"play-{self.key}"

    def run(self, *, progress: bool = False) -> dict[str, Any]:
        policy, episodes = self.task.data.play, self.task.play_episodes
        assert episodes is not None
        play = record_play(self.task.config, policy, episodes, seed=self.seeds["play"], progress=progress)
        with self.task.config.make() as env:
            save_minari(self.folder, play, env, metadata={"policy": policy})
        return describe(play)


@dataclass(frozen=True, kw_only=True)
class DemosJob(Job):
    """Demonstrations, recorded once for all cells of a task, and the expert's score.

    :param count: the most that a cell wants.
    """

    count: int

    what = "expert"

    @property
    def key(self) -> str:
        return identity_digest(self.task.expert_identity())

    @property
    def folder(self) -> Path:
        """The data's folder."""
        return self.data / f"demos-{identity_digest(self.task.demos_identity(self.count))}"

    def source(self, *, actions: bool) -> str | Path:
        """Return where a cell finds demonstrations: only oracles are given a file that has actions."""
        if not self.task.data.records_demos:
            return self.task.data.demos
        return self.folder / (_WITH_ACTIONS if actions else _OBSERVED)

    def run(self, *, progress: bool = False) -> dict[str, Any]:
        config, data = self.task.config, self.task.data
        if not data.needs_expert:
            demos = load_for_task(config, data.demos, argument="demos", actions=False)
            if any(demo.rewards is None for demo in demos):
                return {"returns": None}
            return _scored(Score(tuple(demo.episode_return for demo in demos), tuple(map(len, demos))))
        expert = prepare_expert(data.expert, config, self.seeds["agents"])
        seconds = self._train(expert, progress)
        with expert.task.make() as env:
            seed, episodes = self.seeds["evaluation"], self.task.eval_episodes
            score = evaluate(expert.policy(env), env, episodes, seed=seed, title="expert", progress=progress)
        about = {"expert": expert.name, "modality": expert.task.modality, "train_seconds": seconds}
        result = _scored(score) | about
        if not data.records_demos or self.folder.is_dir():  # killed between the recording and its record
            return result
        demos = record_demonstrations(expert, config, self.count, seed=self.seeds["demos"], progress=progress)
        partial = self.folder.with_name(f".{self.folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        with config.make() as env:
            for name, actions in ((_OBSERVED, False), (_WITH_ACTIONS, True)):
                save_minari(partial / name, demos, env, actions=actions, metadata={"policy": expert.name})
        if expert.model is not None and expert.steps:
            expert.model.save(partial / "expert.zip")
        partial.rename(self.folder)
        return result | {"demonstrations": describe(demos)}

    def _train(self, expert: Expert, progress: bool) -> float | None:
        try:
            seconds = expert.train(progress=progress)
        except KeyboardInterrupt:
            self.save(expert.model, "expert-interrupted")
            raise
        if seconds is not None:
            self.save(expert.model, "expert")
        return seconds


@dataclass(frozen=True, kw_only=True)
class CellJob(Job):
    """Training and evaluation of one agent.

    :param play: where the play data is; ``None`` for an agent that needs none.
    :param demos: where the demonstrations are.
    """

    cell: Cell
    play: str | Path | None
    demos: str | Path

    what = "cell"

    @property
    def title(self) -> str:
        return self.cell.title

    @property
    def key(self) -> str:
        return self.cell.key

    def run(self, *, progress: bool = False) -> dict[str, Any]:
        start = time.perf_counter()
        cell, config = self.cell, self.task.config
        play = None
        if self.play is not None:
            limit = self.task.data.play_episodes
            play = load_for_task(config, self.play, argument="play", actions=True, limit=limit)
        actions = cell.spec.agent_class.needs_demonstration_actions
        demos = load_for_task(config, self.demos, argument="demos", actions=actions, limit=cell.demonstrations)
        seed = self.seeds["evaluation"]
        with training_env(cell.spec.agent_class, config) as training, config.make() as env:
            agent = cell.spec.build(config, training, cell.seed)
            curve = None
            if cell.curve is not None:
                curve = LearningCurve(agent, env, cell.curve.steps, cell.curve.episodes, seed)
            try:
                train_seconds = train(agent, play, demos, learn=cell.learn, callback=curve, progress=progress)
            except KeyboardInterrupt:
                self.save(agent, f"{cell.agent}-interrupted")
                raise
            file = self.save(agent, cell.agent)
            score = evaluate(agent, env, self.task.eval_episodes, seed=seed, title=cell.agent, progress=progress)
        return _scored(score) | {
            "train_seconds": train_seconds,
            "wall_seconds": time.perf_counter() - start,
            "configuration": asdict(agent.config),
            "env_steps": agent.num_timesteps,
            "updates": agent.num_updates,
            "trajectories": {"play": None if play is None else describe(play), "demos": describe(demos)},
            "curve": [] if curve is None else curve.points,
            "file": file,
        }


def as_file_name(text: str) -> str:
    """Return a name for a file, from a label that may hold slashes and colons."""
    return re.sub(r"[^A-Za-z0-9.=_-]+", "-", text).strip("-")


class LearningCurve(BaseCallback):
    """Evaluates an agent each time that it has taken so many environment steps.

    Steps are the agent's own: phases that take none get no point, but for the policy that ``learn`` starts from.

    :param env: to evaluate in; the agent's own is left alone.
    :param steps: between two evaluations.
    :param seed: of each evaluation's episodes.
    """

    def __init__(self, agent: ImitationAgent, env: gym.Env, steps: int, episodes: int, seed: int) -> None:
        super().__init__()
        self._agent, self._env, self._steps, self._episodes, self._seed = agent, env, steps, episodes, seed
        self._next = steps
        #: Environment steps, and the returns of the episodes then.
        self.points: list[dict[str, Any]] = []

    def _on_training_start(self) -> None:
        if self._agent.interacts and self._agent.improves_online:  # the policy that imitate left
            self._measure()

    def _on_step(self) -> bool:
        taken = self._agent.num_timesteps
        if taken >= self._next:
            self._measure()
            self._next = (taken // self._steps + 1) * self._steps
        return True

    def _measure(self) -> None:
        score = evaluate(self._agent, self._env, self._episodes, seed=self._seed)
        self.points.append({"env_steps": self._agent.num_timesteps, "returns": list(score.returns)})


def _scored(score: Score) -> dict[str, Any]:
    return {
        "returns": list(score.returns),
        "lengths": list(score.lengths),
        "successes": None if score.successes is None else list(score.successes),
        "eval_seconds": score.seconds,
        "packages": package_versions(),
        "machine": describe_machine(),
    }
