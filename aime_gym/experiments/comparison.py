"""The main job: record or load data, train agents on it, evaluate all of them on the same episodes, report."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from aime_gym.agents.base import ImitationAgent
from aime_gym.experiments.agents import AgentSpec, train, training_env
from aime_gym.experiments.evaluation import Score, evaluate, evaluate_random
from aime_gym.experiments.experts import Expert
from aime_gym.experiments.provenance import describe_machine, package_versions
from aime_gym.experiments.report import Row, plot_returns, results_table, rows_as_json
from aime_gym.experiments.sources import Data, Sources, derived_seeds, prepare_sources
from aime_gym.experiments.task import TaskConfig
from aime_gym.experiments.video import Half, record_video
from aime_gym.types import Trajectory

_DEFAULT_AGENTS = (AgentSpec("aime"), AgentSpec("bco"), AgentSpec("bc"))


@dataclass(frozen=True)
class Comparison:
    """One task, one set of data, some agents.

    :param agents: the first one is in the video.
    :param eval_episodes: episodes in which every policy is evaluated.
    :param video_episodes: how many of these the video shows; 0 for no video.
    :param seed: of everything: recording, training and evaluation draw from seeds that follow from it.
    """

    task: TaskConfig
    agents: tuple[AgentSpec, ...] = _DEFAULT_AGENTS
    data: Data = field(default_factory=Data)
    eval_episodes: int = 50
    video_episodes: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.agents:
            raise ValueError("agents: expected at least one, got none")
        for name, least in (("eval_episodes", 1), ("video_episodes", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        labels = [spec.label for spec in self.agents]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"agents: expected each one once, got {', '.join(twice)} again")

    def label(self, spec: AgentSpec) -> str:
        """What an agent is called here: by its name, as long as no other has it."""
        alone = [other.name for other in self.agents].count(spec.name) == 1
        return spec.name if alone else spec.label

    @property
    def seeds(self) -> dict[str, int]:
        """Seeds of the parts: no two of them draw the same numbers."""
        return derived_seeds(self.seed)


@dataclass(frozen=True)
class PreparedComparison:
    """A comparison whose every input has been checked; :func:`run` does the work."""

    comparison: Comparison
    sources: Sources


def prepare(comparison: Comparison) -> PreparedComparison:
    """Check all that the user chose, before any work.

    :raises ValueError: what does not fit, by name. So do the other errors of what it calls: :class:`TaskConfig`,
        :meth:`AgentSpec.build` and :func:`prepare_sources`.
    """
    task = comparison.task
    with task.make() as env:
        agents = [spec.build(task, env, comparison.seed) for spec in comparison.agents]
    sources = prepare_sources(
        task,
        comparison.data,
        seeds=comparison.seeds,
        play=any(agent.must_pretrain for agent in agents),
        demo_actions=any(agent.needs_demonstration_actions for agent in agents),
        progress=True,
    )
    return PreparedComparison(comparison, sources)


def run(prepared: PreparedComparison, out: Path, *, progress: bool = True) -> dict[str, Any]:
    """Do the work of a comparison, print its table, and write its files.

    Writes ``results.json``, ``returns.png``, ``<agent>.zip`` for each agent, ``expert.zip`` for an expert trained
    here, and ``<first agent>.mp4``. Ctrl-C ends the training phase that runs, with what was learnt; elsewhere it ends
    the job, with the agents that were finished.

    :return: what is in ``results.json``.
    """
    comparison, sources = prepared.comparison, prepared.sources
    out.mkdir(parents=True, exist_ok=True)
    job = _Job(comparison, out, progress)
    try:
        try:
            job.train_expert(sources)
            job.record(sources)
            job.evaluate_references(sources)
            for spec in comparison.agents:
                job.train_and_evaluate(spec)
                job.write()
        except KeyboardInterrupt:
            job.interrupted = True
            job.say("interrupted: reporting what is finished")
        job.report()
        if comparison.video_episodes and job.agents:
            job.record_video(sources.expert)
    finally:  # whatever went wrong: hours may be in it
        job.write()
    job.say(f"wrote {', '.join(str(out / name) for name in job.files)}")
    return job.results()


class _Job:
    """The state of a running comparison: the rows so far, and what was said of the data."""

    def __init__(self, comparison: Comparison, out: Path, progress: bool) -> None:
        self.comparison, self.out, self.progress = comparison, out, progress
        self.seeds = comparison.seeds
        self.rows: list[Row] = []
        self.agents: dict[str, ImitationAgent] = {}
        self.files: list[str] = ["results.json"]
        self.data: dict[str, Any] = {}
        self.interrupted = False
        self._expert_seconds: float | None = None
        self._start = time.perf_counter()
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        if self.progress:
            self._console.print(text, markup=False)

    def train_expert(self, sources: Sources) -> None:
        if sources.expert is None or not sources.expert.steps:
            return
        self.say(f"training the expert {sources.expert.name} on {sources.expert.task}")
        assert sources.expert.model is not None
        try:
            self._expert_seconds = sources.expert.train(progress=self.progress)
        finally:  # also when interrupted
            sources.expert.model.save(self.out / "expert.zip")
            self.files.append("expert.zip")

    def record(self, sources: Sources) -> None:
        self.play = sources.play(progress=self.progress)
        if self.play is not None:
            self._noted("play", self.comparison.data.play, self.play)
        self.demos = self._noted("demos", self.comparison.data.demos, sources.demos(progress=self.progress))

    def _noted(self, name: str, source: Any, trajectories: list[Trajectory]) -> list[Trajectory]:
        if not trajectories:  # an interrupted recording returns what it has
            raise KeyboardInterrupt
        about = self.data[name] = _described(source, trajectories)
        self.say(f"{name} ({about['source']}): {about['episodes']} episodes, {about['transitions']} transitions")
        return trajectories

    def evaluate_references(self, sources: Sources) -> None:
        episodes, seed = self.comparison.eval_episodes, self.seeds["evaluation"]
        with self.comparison.task.make() as env:
            self.rows.append(Row("random", "random", evaluate_random(env, episodes, seed=seed, progress=self.progress)))
        expert = sources.expert
        if expert is not None:
            with expert.task.make() as env:
                score = evaluate(expert.policy(env), env, episodes, seed=seed, title="expert", progress=self.progress)
            details = {"expert": expert.name, "modality": expert.task.modality}
            self.rows.append(Row("expert", "expert", score, self._expert_seconds, details))
        elif all(demo.rewards is not None for demo in self.demos):
            returns = tuple(demo.episode_return for demo in self.demos)
            score = Score(returns, tuple(len(demo) for demo in self.demos))
            self.rows.append(Row("expert (demonstrations)", "expert", score))

    def train_and_evaluate(self, spec: AgentSpec) -> None:
        oracle = spec.agent_class.needs_demonstration_actions
        demos = self.demos if oracle else [demo.without_actions() for demo in self.demos]
        label = self.comparison.label(spec)
        name = as_file_name(label)
        self.say(f"{spec.label}: training")
        task = self.comparison.task
        with training_env(spec.agent_class, task) as training, task.make() as env:
            agent = spec.build(task, training, self.comparison.seed)
            seconds = train(agent, self.play, demos, progress=self.progress)
            agent.save(self.out / f"{name}.zip")
            score = evaluate(
                agent,
                env,
                self.comparison.eval_episodes,
                seed=self.seeds["evaluation"],
                title=label,
                progress=self.progress,
            )
        self.files.append(f"{name}.zip")
        details = {
            "agent": spec.name,
            "options": dict(spec.options),
            "configuration": asdict(agent.config),
            "updates": agent.num_updates,
            "interrupted": agent.interrupted,
            "file": f"{name}.zip",
        }
        self.rows.append(Row(label, "oracle" if oracle else "agent", score, seconds, details))
        self.agents[label] = agent
        self.interrupted |= agent.interrupted

    def report(self) -> None:
        if not self.rows:
            return
        console = Console()
        if not console.is_terminal:
            console = Console(width=130)
        title = f"{self.comparison.task}, {self.comparison.eval_episodes} episodes each"
        console.print(results_table(self.rows, title))
        if self.agents:
            plot_returns(self.rows, title, self.out / "returns.png")
            self.files.append("returns.png")

    def record_video(self, expert: Expert | None) -> None:
        label, agent = next(iter(self.agents.items()))
        name = f"{as_file_name(label)}.mp4"
        halves = [Half(label, self.comparison.task, lambda env: agent)]
        if expert is not None:
            halves.insert(0, Half("expert", expert.task, expert.policy))
        self.say(f"video: {self.comparison.video_episodes} episodes")
        try:
            record_video(
                self.out / name, halves, episodes=self.comparison.video_episodes, seed=self.seeds["evaluation"]
            )
        except Exception as error:  # renderers fail in many ways, and none is worth the results
            self._console.print(f"no video, all else is done: {error}", markup=False)
        else:
            self.files.append(name)

    def results(self) -> dict[str, Any]:
        comparison = self.comparison
        return {
            "format": 1,
            "task": asdict(comparison.task),
            "eval_episodes": comparison.eval_episodes,
            "seed": comparison.seed,
            "seeds": self.seeds,
            "data": self.data,
            "policies": rows_as_json(self.rows),
            "not_finished": [label for label in map(comparison.label, comparison.agents) if label not in self.agents],
            "interrupted": self.interrupted,
            "seconds": time.perf_counter() - self._start,
            "files": self.files,
            "machine": describe_machine(),
            "packages": package_versions(),
        }

    def write(self) -> None:
        temporary = self.out / ".results.json"
        temporary.write_text(json.dumps(self.results(), indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.out / "results.json")


def as_file_name(text: str) -> str:
    """Make a name for files of what may hold slashes and colons."""
    return re.sub(r"[^A-Za-z0-9.=_-]+", "-", text).strip("-")


def _described(source: Any, trajectories: list[Trajectory]) -> dict[str, Any]:
    returns = [trajectory.episode_return for trajectory in trajectories if trajectory.rewards is not None]
    return {
        "source": os.fspath(source) if isinstance(source, str | os.PathLike) else "given in memory",
        "episodes": len(trajectories),
        "transitions": sum(map(len, trajectories)),
        "return_mean": float(np.mean(returns)) if returns else None,
    }
