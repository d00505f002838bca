"""Jobs of a suite: reference scores, play and demonstrations that cells share, and cells. Each one can run alone."""

from __future__ import annotations

import re
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback

from aime_gym.agents.base import ImitationAgent
from aime_gym.data import save_minari
from aime_gym.experiments.agent_spec import train, training_env
from aime_gym.experiments.config import DEMONSTRATIONS
from aime_gym.experiments.data import describe, load_for_task, record_play
from aime_gym.experiments.evaluation import Score, evaluate, evaluate_random
from aime_gym.experiments.experts import prepare_expert, record_demonstrations
from aime_gym.experiments.provenance import describe_machine, package_versions
from aime_gym.experiments.suite import Cell, SuiteTask, identity_digest

#: Results of a job for its record, as JSON.
Result = dict[str, Any]
#: Folders of demonstrations without actions, for observers, and with actions, for oracles.
_OBSERVED, _WITH_ACTIONS = "observed", "with-actions"


@dataclass(frozen=True)
class Failure:
    """The error of a job, or the end of its process.

    :param error: the error in one line.
    :param traceback: Python's report of the error.
    """

    error: str
    traceback: str = ""


@dataclass(frozen=True)
class Job:
    """Work that leaves one record.

    :param title: the job in words.
    :param about: entries of the record that are known before the work, as JSON: ``what`` (random, expert, play or cell)
        and ``key``, equal for jobs of equal results, among them.
    :param work: function that returns the results; takes ``progress``, whether to show progress bars.
    :param needs: titles of the jobs whose data it reads.
    """

    title: str
    about: Mapping[str, Any]
    work: Callable[..., Result]
    needs: frozenset[str] = frozenset()

    @property
    def is_cell(self) -> bool:
        """Whether the job trains and evaluates an agent."""
        return bool(self.about["what"] == "cell")

    def run(self, *, progress: bool = False) -> Result | Failure:
        """Do the work, and return its results, or its error.

        :raises KeyboardInterrupt: Ctrl-C.
        """
        try:
            return self.work(progress=progress)
        except Exception as error:  # costs no other job
            return Failure(" ".join(f"{type(error).__name__}: {error}".split()), traceback.format_exc())


def jobs_of(
    task: SuiteTask, cells: Sequence[Cell], needs_play: Mapping[tuple[str, str], bool], data: Path, keep: Path | None
) -> list[Job]:
    """Return the jobs of a task: what cells share, and then the cells.

    :param needs_play: whether an agent learns from play data on a task, by the labels of both.
    :param data: folder of the data that cells share.
    :param keep: folder for trained agents and experts; ``None`` to keep none.
    """
    count = max((cell.demonstrations or DEMONSTRATIONS for cell in cells), default=1)
    play_key = identity_digest(task.play_identity())
    play_folder = data / f"play-{play_key}"
    demos_folder = data / f"demos-{identity_digest(task.demos_identity(count))}"
    references = {
        "random": identity_digest(task.random_identity()),
        "expert": identity_digest(task.expert_identity()),
    }
    random = _job(task, "random", references["random"], partial(score_random, task))
    expert = _job(task, "expert", references["expert"], partial(record_expert, task, count, demos_folder, keep))
    play = _job(task, "play", play_key, partial(record_shared_play, task, play_folder))
    jobs = [expert, random, play]
    for cell in cells:
        oracle = cell.spec.agent_class.needs_demonstration_actions
        needs = set()
        play_source: str | Path | None = None
        if needs_play[task.label, cell.agent]:
            play_source = play_folder if task.data.records_play else task.data.play
            needs |= {play.title} if task.data.records_play and not play_folder.is_dir() else set()
        demos_source: str | Path = task.data.demos
        if task.data.records_demos:
            # Only oracles are given a folder that has actions.
            demos_source = demos_folder / (_WITH_ACTIONS if oracle else _OBSERVED)
            needs |= {expert.title} if not demos_folder.is_dir() else set()
        about = {
            "agent": cell.agent,
            "name": cell.spec.name,
            "options": dict(cell.spec.options),
            "oracle": oracle,
            "demonstrations": cell.demonstrations,
            "seed": cell.seed,
        }
        work = partial(run_cell, cell, play_source=play_source, demos_source=demos_source, keep=keep)
        job = _job(task, "cell", cell.key, work, **about, **references)
        jobs.append(replace(job, title=cell.title, needs=frozenset(needs)))
    return jobs


def _job(task: SuiteTask, what: str, key: str, work: Callable[..., Result], **about: Any) -> Job:
    origin = {"play": task.data.play, "demos": task.data.demos, "expert": task.data.expert}
    known = {"what": what, "key": key, "task": task.label, "env": asdict(task.config), "data": origin}
    return Job(f"{task.label}, {what}", {**known, "data_seed": task.data_seed, **about}, work)


def score_random(task: SuiteTask, *, progress: bool = False) -> Result:
    """Evaluate uniform random actions."""
    with task.config.make() as env:
        return _scored(evaluate_random(env, task.eval_episodes, seed=task.seeds["evaluation"], progress=progress))


def record_shared_play(task: SuiteTask, folder: Path, *, progress: bool = False) -> Result:
    """Record the play data of a task."""
    episodes = task.play_episodes
    assert episodes is not None
    seed = task.seeds["play"]
    play = record_play(task.config, task.data.play, episodes, seed=seed, progress=progress)
    with task.config.make() as env:
        save_minari(folder, play, env, metadata={"policy": task.data.play})
    return describe(play)


def record_expert(task: SuiteTask, count: int, folder: Path, keep: Path | None, *, progress: bool = False) -> Result:
    """Evaluate the expert of a task, and record the demonstrations; where none acts here, demonstrations are its score.

    :param count: the most demonstrations that a cell takes.
    """
    config = task.config
    if not task.data.needs_expert:
        demos = load_for_task(config, task.data.demos, argument="demos", actions=False)
        if any(demo.rewards is None for demo in demos):
            return {"returns": None}
        return _scored(Score(tuple(demo.episode_return for demo in demos), tuple(map(len, demos))))
    seeds = task.seeds
    expert = prepare_expert(task.data.expert, config, seeds["agents"])
    with _kept_if_interrupted(expert.model, keep, "expert"):
        seconds = expert.train(progress=progress)
    if seconds is not None:
        _save(expert.model, keep, "expert")
    with expert.task.make() as env:
        seed, episodes = seeds["evaluation"], task.eval_episodes
        score = evaluate(expert.policy(env), env, episodes, seed=seed, title="expert", progress=progress)
    result = _scored(score) | {"expert": expert.name, "modality": expert.task.modality, "train_seconds": seconds}
    if not task.data.records_demos or folder.is_dir():  # killed between the recording and its record
        return result
    demos = record_demonstrations(expert, config, count, seed=seeds["demos"], progress=progress)
    partial_folder = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial_folder, ignore_errors=True)
    with config.make() as env:
        for name, actions in ((_OBSERVED, False), (_WITH_ACTIONS, True)):
            save_minari(partial_folder / name, demos, env, actions=actions, metadata={"policy": expert.name})
    _save(expert.model, partial_folder if expert.steps else None, "expert")
    partial_folder.rename(folder)
    return result | {"demonstrations": describe(demos)}


def run_cell(
    cell: Cell, *, play_source: str | Path | None, demos_source: str | Path, keep: Path | None, progress: bool = False
) -> Result:
    """Train and evaluate one agent.

    :param play_source: folder or dataset of the play data; ``None`` for an agent that needs none.
    :param demos_source: folder or dataset of the demonstrations.
    """
    start = time.perf_counter()
    task = cell.task
    config = task.config
    agent_class = cell.spec.agent_class
    play = None
    if play_source is not None:
        limit = task.data.play_episodes
        play = load_for_task(config, play_source, argument="play", actions=True, limit=limit)
    actions = agent_class.needs_demonstration_actions
    demos = load_for_task(config, demos_source, argument="demos", actions=actions, limit=cell.demonstrations)
    seed = task.seeds["evaluation"]
    with training_env(agent_class, config) as training, config.make() as env:
        agent = cell.spec.build(config, training, cell.seed)
        curve = None
        if cell.curve is not None:
            curve = LearningCurve(agent, env, cell.curve.steps, cell.curve.episodes, seed)
        with _kept_if_interrupted(agent, keep, cell.agent):
            train_seconds = train(agent, play, demos, learn=cell.learn, callback=curve, progress=progress)
        file = _save(agent, keep, cell.agent)
        score = evaluate(agent, env, task.eval_episodes, seed=seed, title=cell.agent, progress=progress)
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


def _save(model: Any, keep: Path | None, label: str) -> str | None:
    """Save an agent or an expert where they are kept, and return the file's name."""
    if keep is None:
        return None
    file = f"{as_file_name(label)}.zip"
    model.save(keep / file)
    return file


@contextmanager
def _kept_if_interrupted(model: Any, keep: Path | None, label: str) -> Iterator[None]:
    """Save a half-trained agent or expert at Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        _save(model, keep, f"{label}-interrupted")
        raise


def as_file_name(text: str) -> str:
    """Return a name for a file, from a label that may hold slashes and colons."""
    return re.sub(r"[^A-Za-z0-9.=_-]+", "-", text).strip("-")


class LearningCurve(BaseCallback):
    """Evaluations of an agent each time that it has taken so many environment steps.

    Steps are the agent's own: phases that take none get no point, but for the policy that ``learn`` starts from.

    :param env: environment to evaluate in; the agent's own is left alone.
    :param steps: environment steps between two evaluations.
    :param seed: seed of each evaluation's episodes.
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
