"""Jobs of a suite: reference scores, what cells share (play, demonstrations, pretraining), and cells."""

from __future__ import annotations

import json
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from aime_gym.data import save_minari
from aime_gym.experiments.agent_spec import pretrain, train, training_env
from aime_gym.experiments.cells import Cell, Resources, Suite, SuiteTask, as_file_name, identity_digest
from aime_gym.experiments.config import DEMONSTRATIONS
from aime_gym.experiments.data import describe, load_for_task, load_play, record_play
from aime_gym.experiments.evaluation import Score, evaluate, evaluate_random, evaluation_envs
from aime_gym.experiments.experts import prepare_expert, record_demonstrations
from aime_gym.experiments.learning_curve import LearningCurve
from aime_gym.experiments.provenance import describe_machine, package_versions
from aime_gym.experiments.records import Failure, Result
from aime_gym.experiments.tracking import Tracking, log_score, tracked
from aime_gym.serialization import new_folder

#: Folders of demonstrations without actions, for observers, and with actions, for oracles.
_OBSERVED, _WITH_ACTIONS = "observed", "with-actions"
#: Files of a folder that shared pretraining leaves: the agent, and the results of its job.
_AGENT, _RESULT = "agent.zip", "result.json"
#: Folder of recorded play, or datasets.
_Play: TypeAlias = str | Path | tuple[str, ...]
#: Jobs without a score, which run only if a cell needs what they leave.
ON_DEMAND = ("play", "pretraining")


@dataclass(frozen=True)
class Job:
    """Work that leaves one record.

    :param title: the job in words.
    :param about: entries of the record that are known before the work, as JSON: ``what`` (random, expert, play,
        pretraining or cell) and ``key``, equal for jobs of equal results, among them.
    :param work: function that returns the results; takes ``progress``, whether to show progress bars.
    :param needs: titles of the jobs whose data it reads.
    """

    title: str
    about: Mapping[str, Any]
    work: Callable[..., Result]
    needs: frozenset[str] = frozenset()
    resources: Resources = field(default_factory=Resources)

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
    suite: Suite,
    learners: Mapping[tuple[str, str], str | None],
    data: Path,
    keep: Path | None,
    *,
    recorders: int = 1,
    tracking: Tracking | None = None,
) -> list[Job]:
    """Return the jobs of a suite, each after those that it needs. Of equal ones there is the first.

    :param learners: digest of what an agent is before it learns from play, by the labels of task and agent; ``None``
        for one that needs no play.
    :param data: folder of the data that cells share.
    :param keep: folder for trained agents and experts; ``None`` to keep none.
    :param recorders: greatest number of processes in which a job records play or demonstrations.
    :param tracking: tracker of cells and of pretraining, each as one run.
    """
    pretrained = {cell.key: _pretraining_key(cell, learners[cell.task.label, cell.agent]) for cell in suite.cells}
    sharing = Counter(pretrained.values())
    counts: Counter[str] = Counter()  # the most demonstrations that a cell takes of an expert
    for cell in suite.cells:
        expert_key = identity_digest(cell.task.expert_identity())
        counts[expert_key] = max(counts[expert_key], cell.demonstrations or DEMONSTRATIONS)
    jobs: dict[str, Job] = {}
    for task in suite.tasks:
        count = counts[identity_digest(task.expert_identity())] or 1
        sources = _Sources(task, count, data, {"keep": keep, "tracking": tracking}, jobs, recorders)
        for cell in suite.cells_of(task):
            sources.add_cell(cell, pretrained[cell.key], sharing[pretrained[cell.key]])
    return list(jobs.values())


def _pretraining_key(cell: Cell, learner: str | None) -> str | None:
    """Return a short name for what an agent has learnt before it sees demonstrations: equal for equal agents."""
    if learner is None:
        return None
    play = cell.task.pretraining_identity()
    return identity_digest({"what": "pretraining", "agent": learner, "seed": cell.seed, "play": play})


class _Sources:
    """The jobs of a task: those of its references and its data, and of the cells that read the data.

    :param count: the most demonstrations that a cell takes.
    :param outputs: arguments ``keep`` and ``tracking`` of the work.
    :param jobs: jobs so far, by what they are and their keys.
    :param recorders: greatest number of processes in which a job records.
    """

    def __init__(
        self, task: SuiteTask, count: int, data: Path, outputs: dict[str, Any], jobs: dict[str, Job], recorders: int
    ) -> None:
        self._task, self._data, self._outputs, self._jobs = task, data, outputs, jobs
        play_key = identity_digest(task.play_identity())
        self._play_folder = data / f"play-{play_key}"
        self._demos_folder = data / f"demos-{identity_digest(task.demos_identity(count))}"
        self._references = {
            "random": identity_digest(task.random_identity()),
            "expert": identity_digest(task.expert_identity()),
        }
        expert_work = partial(record_expert, task, count, self._demos_folder, outputs["keep"], workers=recorders)
        play_work = partial(record_shared_play, task, self._play_folder, workers=recorders)
        self._expert = self._add(_job(task, "expert", self._references["expert"], expert_work))
        self._add(_job(task, "random", self._references["random"], partial(score_random, task)))
        self._play = self._add(_job(task, "play", play_key, play_work))

    def _add(self, job: Job) -> Job:
        return self._jobs.setdefault(f"{job.about['what']} {job.about['key']}", job)

    def add_cell(self, cell: Cell, pretraining: str | None, sharing: int) -> None:
        """Add the job of a cell, and that of its pretraining where it is not the only one.

        :param pretraining: key of the pretraining; ``None`` for an agent that needs no play.
        :param sharing: number of cells that have it in common.
        """
        task = self._task
        oracle = cell.spec.reads_actions
        agent = {
            "agent": cell.agent,
            "name": cell.spec.name,
            "options": dict(cell.spec.options),
            "oracle": oracle,
            "seed": cell.seed,
        }
        needs: frozenset[str] = frozenset()
        play: _Play | None = None
        if pretraining is not None:
            play = self._play_folder if task.data.records_play else task.data.play
            needs = _missing(self._play, self._play_folder) if task.data.records_play else needs
        folder = None
        if pretraining is not None and play is not None and sharing > 1:
            folder = self._data / f"pretrained-{pretraining}"
            work = partial(pretrain_for_cells, cell, folder, play_source=play, **self._outputs)
            job = _job(task, "pretraining", pretraining, work, **agent)
            job = self._add(replace(job, title=cell.pretraining_title, needs=needs, resources=cell.resources))
            if not cell.learn:  # which reads the play again
                play = None
                needs = frozenset()
            needs |= _missing(job, folder)
        demos: str | Path = task.data.demos
        if task.data.records_demos:
            # Only oracles are given a folder that has actions.
            demos = self._demos_folder / (_WITH_ACTIONS if oracle else _OBSERVED)
            needs |= _missing(self._expert, self._demos_folder)
        cell_work = partial(
            run_cell,
            cell,
            play_source=play,
            demos_source=demos,
            pretrained=folder,
            sharing=sharing,
            **self._outputs,
        )
        about = agent | {"demonstrations": cell.demonstrations} | self._references
        job = _job(task, "cell", cell.key, cell_work, **about)
        self._add(replace(job, title=cell.title, needs=needs, resources=cell.resources))


def _missing(job: Job, folder: Path) -> frozenset[str]:
    """Return what a cell needs that reads a folder: the job that makes it, unless it is there."""
    return frozenset() if folder.is_dir() else frozenset({job.title})


def _job(task: SuiteTask, what: str, key: str, work: Callable[..., Result], **about: Any) -> Job:
    origin = {"play": task.data.play, "demos": task.data.demos, "expert": task.data.expert}
    known = {"what": what, "key": key, "task": task.label, "env": task.config.as_json(), "data": origin}
    return Job(f"{task.label}, {what}", known | {"data_seed": task.data_seed} | about, work, resources=task.resources)


def score_random(task: SuiteTask, *, progress: bool = False) -> Result:
    """Evaluate uniform random actions."""
    with task.config.make() as env:
        return _scored(evaluate_random(env, task.eval_episodes, seed=task.seeds["evaluation"], progress=progress))


def record_shared_play(task: SuiteTask, folder: Path, *, workers: int = 1, progress: bool = False) -> Result:
    """Record the play data of a task, in so many processes at most."""
    episodes = task.play_episodes
    assert episodes is not None
    seed = task.seeds["play"]
    play = record_play(task.config, str(task.data.play), episodes, seed=seed, progress=progress, workers=workers)
    with task.config.make() as env:
        save_minari(folder, play, env, metadata={"policy": task.data.play})
    return describe(play)


def record_expert(
    task: SuiteTask, count: int, folder: Path, keep: Path | None, *, workers: int = 1, progress: bool = False
) -> Result:
    """Evaluate the expert of a task, and record the demonstrations; where none acts here, demonstrations are its score.

    :param count: the most demonstrations that a cell takes.
    :param workers: greatest number of processes that record.
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
    with evaluation_envs(expert.task, task.eval_episodes) as envs:
        policy = expert.policy(envs[0])
        seed = seeds["evaluation"]
        score = evaluate(policy, envs, task.eval_episodes, seed=seed, title="expert", progress=progress)
    result = _scored(score) | {"expert": expert.name, "modality": expert.task.modality, "train_seconds": seconds}
    if not task.data.records_demos or folder.is_dir():  # killed between the recording and its record
        return result
    demos = record_demonstrations(expert, config, count, seed=seeds["demos"], progress=progress, workers=workers)
    with config.make() as env, new_folder(folder) as unfinished:
        for name, actions in ((_OBSERVED, False), (_WITH_ACTIONS, True)):
            save_minari(unfinished / name, demos, env, actions=actions, metadata={"policy": expert.name})
        _save(expert.model, unfinished if expert.steps else None, "expert")
    return result | {"demonstrations": describe(demos)}


def pretrain_for_cells(
    cell: Cell,
    folder: Path,
    *,
    play_source: _Play,
    keep: Path | None,
    tracking: Tracking | None = None,
    progress: bool = False,
) -> Result:
    """Pretrain the agent that a cell has in common with others, and save it in a folder.

    :param cell: any of the cells: what they differ in is no part of this.
    """
    task = cell.task
    play = load_play(task.config, play_source, limit=task.data.play_episodes)
    with training_env(cell.spec.agent_class, task.config) as training:
        agent = cell.spec.build(task.config, training, cell.seed)
        title = cell.pretraining_title
        with tracked(tracking, agent, title, cell.about), _kept_if_interrupted(agent, keep, cell.agent):
            seconds = pretrain(agent, play, progress=progress)
        result = {
            "pretrain_seconds": seconds,
            "configuration": asdict(agent.config),
            "updates": agent.num_updates,
            "trajectories": {"play": describe(play)},
            "packages": package_versions(),
            "machine": describe_machine(),
        }
        with new_folder(folder) as unfinished:
            agent.save(unfinished / _AGENT)
            (unfinished / _RESULT).write_text(json.dumps(result), encoding="utf-8")
    return result


def run_cell(
    cell: Cell,
    *,
    play_source: _Play | None,
    demos_source: str | Path,
    pretrained: Path | None,
    sharing: int,
    keep: Path | None,
    tracking: Tracking | None = None,
    progress: bool = False,
) -> Result:
    """Train and evaluate one agent.

    :param play_source: folder or datasets of the play data; ``None`` for an agent that needs none here.
    :param demos_source: folder or dataset of the demonstrations.
    :param pretrained: folder of `pretrain_for_cells`, which the agent goes on from; ``None`` to make a new one.
    :param sharing: number of cells that have the pretraining in common, this one included.
    """
    start = time.perf_counter()
    task = cell.task
    config = task.config
    agent_class = cell.spec.agent_class
    play = None if play_source is None else load_play(config, play_source, limit=task.data.play_episodes)
    demos = load_for_task(
        config,
        demos_source,
        argument="demos",
        actions=cell.spec.reads_actions,
        limit=cell.demonstrations,
        resize=task.data.resize,
    )
    seed = task.seeds["evaluation"]
    with training_env(agent_class, config) as training, evaluation_envs(config, task.eval_episodes) as envs:
        if pretrained is None:
            agent = cell.spec.build(config, training, cell.seed)
        else:
            agent = agent_class.load(pretrained / _AGENT, play=play)
            agent.known_task = None  # stored play serves every task that shows the same, whatever its action repeat
            agent.set_env(training)
        every = cell.curve
        curve = None if every is None else LearningCurve(agent, envs, every.steps, every.episodes, seed)
        with tracked(tracking, agent, cell.title, cell.about):
            with _kept_if_interrupted(agent, keep, cell.agent):
                pretrain_seconds = pretrain(agent, play, callback=curve, progress=progress)
                train_seconds = train(agent, None, demos, learn=cell.learn, callback=curve, progress=progress)
            file = _save(agent, keep, cell.agent)
            score = evaluate(agent, envs, task.eval_episodes, seed=seed, title=cell.agent, progress=progress)
            log_score(agent, score)
    described = {"play": None if play is None else describe(play), "demos": describe(demos)}
    if pretrained is not None:
        shared = json.loads((pretrained / _RESULT).read_text(encoding="utf-8"))
        pretrain_seconds = shared["pretrain_seconds"]
        described |= shared["trajectories"]
    return _scored(score) | {
        "pretrain_seconds": pretrain_seconds,
        "pretrain_share_seconds": pretrain_seconds / sharing,
        "train_seconds": train_seconds,
        "wall_seconds": time.perf_counter() - start,
        "configuration": asdict(agent.config),
        "env_steps": agent.num_timesteps,
        "updates": agent.num_updates,
        "trajectories": described,
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


def _scored(score: Score) -> dict[str, Any]:
    return {
        "returns": list(score.returns),
        "lengths": list(score.lengths),
        "successes": None if score.successes is None else list(score.successes),
        "eval_seconds": score.seconds,
        "packages": package_versions(),
        "machine": describe_machine(),
    }
