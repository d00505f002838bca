"""Runs of a suite: all jobs that have no result yet, each result on the disk as soon as it is there."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aime_gym.agents.files import description
from aime_gym.experiments.cells import Cell, Imports, Suite, SuiteTask, identity_digest
from aime_gym.experiments.data import appearance, load_for_task, prepare_data
from aime_gym.experiments.jobs import ON_DEMAND, Failure, Job, Result, jobs_of
from aime_gym.experiments.records import append_record, cut_torn_line, read_records
from aime_gym.experiments.tracking import Tracking
from aime_gym.experiments.workers import Worker, first_finished
from aime_gym.processes import available_cores
from aime_gym.serialization import write_text
from aime_gym.tasks import TaskConfig
from aime_gym.types import Trajectory

RESULTS, PLAN, LOGS = "results.jsonl", "plan.json", "logs"


@dataclass(frozen=True)
class CheckedSuite:
    """A suite whose every input has been checked.

    :param learners: digest of what an agent is before it learns from play, by the labels of task and agent; ``None``
        for one that needs no play. Of one digest are agents of the same class and hyper-parameters, on tasks that show
        the same.
    """

    suite: Suite
    learners: Mapping[tuple[str, str], str | None]


def check(suite: Suite) -> CheckedSuite:
    """Check that all environments, agents and data of a suite are there and fit together, before any work.

    :raises ValueError: what does not fit, with the name of the task.
    """
    learners = {}
    loaded: dict[Any, list[Trajectory]] = {}
    for task in suite.tasks:
        try:
            learners.update(check_task(task, suite.cells_of(task), loaded))
        except (ValueError, OSError, NotImplementedError, ImportError) as error:
            raise ValueError(f"tasks.{task.label}: {error}") from error
    return CheckedSuite(suite, learners)


def check_task(
    task: SuiteTask, cells: Sequence[Cell], loaded: dict[Any, list[Trajectory]], *, progress: bool = False
) -> dict[tuple[str, str], str | None]:
    """Check the cells on one task, and return their learners as a `CheckedSuite` has them.

    :param loaded: data that other tasks have been checked with, which is not loaded again; that of this task is added.
    :param progress: whether to show a progress bar while videos are read.
    """
    shown = appearance(task.config)

    def load(config: TaskConfig, source: str, **options: Any) -> list[Trajectory]:
        key = shown, source, options["actions"], options["limit"], options.get("resize", False)
        if key not in loaded:
            trajectories = load_for_task(config, source, **options)
            loaded[key] = trajectories[:1] * len(trajectories)  # videos fill the memory, and their number is enough
        return loaded[key]

    # One cell of each agent: neither the seed nor the number of demonstrations changes what it takes.
    by_agent = {cell.agent: cell for cell in cells}
    with task.config.make() as env:
        agents = {label: cell.spec.build(task.config, env, cell.seed) for label, cell in by_agent.items()}
    learners = {
        (task.label, label): identity_digest({"shown": shown, **description(agent)}) if agent.must_pretrain else None
        for label, agent in agents.items()
    }
    data = prepare_data(
        task.config,
        task.data,
        seeds=task.seeds,
        needs_play=any(learners.values()),
        demo_actions=any(cell.spec.reads_actions for cell in by_agent.values()),
        progress=progress,
        load=load,
    )
    most = max((cell.demonstrations or 0 for cell in cells), default=0)
    if data.loaded_demos is not None and len(data.loaded_demos) < most:
        stored = len(data.loaded_demos)
        raise ValueError(f"demos: expected at least {most} trajectories in {task.data.demos}, got {stored}")
    return learners


@dataclass
class Outcome:
    """Progress of a suite.

    :param done: cells with a result, those of earlier runs included.
    :param failed_cells: cells that failed.
    :param failed: errors by the titles of failed jobs.
    """

    cells: int
    done: int = 0
    failed_cells: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False

    def add(self, job: Job, error: str | None) -> None:
        """Count a job that is done, or has failed with an error."""
        if error is not None:
            self.failed[job.title] = error
        self.failed_cells += job.is_cell and error is not None
        self.done += job.is_cell and error is None


def run_suite(
    checked: CheckedSuite,
    out: Path,
    *,
    workers: int | None,
    retry_failed: bool = False,
    data: Path | None = None,
    keep: Path | None = None,
    tracking: Tracking | None = None,
    progress: bool = True,
    after_job: Callable[[Outcome], object] = lambda outcome: None,
) -> Outcome:
    """Run all jobs that have no result in ``out`` yet.

    Writes ``results.jsonl``, ``plan.json`` (the cells that the suite wants), ``data/`` (the data that cells share) and
    ``logs/``. Ctrl-C stops all jobs; the same call continues.

    :param workers: number of processes, each with one thread; ``None`` to run in this process, with all threads. Long
        recordings of play and demonstrations start further ones, on cores that would be idle.
    :param retry_failed: whether to run again the jobs that failed in an earlier run.
    :param data: folder of the data that cells share; ``data`` in ``out`` by default.
    :param keep: folder for trained agents and experts; by default they are not kept.
    :param tracking: tracker of cells, each as one run.
    :param after_job: function that is called after each job.
    :raises ValueError: another run works in the folder, or its results are damaged.
    """
    with _locked(out):
        cut_torn_line(out / RESULTS)
        console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=not progress)
        # Without processes for jobs, a recording has all cores; and else those that other tasks' recordings leave idle.
        recorders = available_cores() if workers is None else max(1, workers // len(checked.suite.tasks))
        shared = data or out / "data"
        jobs = jobs_of(checked.suite, checked.learners, shared, keep, recorders=recorders, tracking=tracking)
        queue = _Queue(len(checked.suite.cells), jobs, out, retry_failed, console, after_job)
        cells = [{"key": cell.key, "title": cell.title} for cell in checked.suite.cells]
        plan = {"suite": checked.suite.name, "agents": checked.suite.agents, "cells": cells}
        write_text(out / PLAN, json.dumps(plan, indent=1))
        try:
            if workers is None:
                _run_here(queue, progress)
            else:
                _run_in_processes(queue, workers, checked.suite.imports)
        except KeyboardInterrupt:
            queue.outcome.interrupted = True
    return queue.outcome


def _run_here(queue: _Queue, progress: bool) -> None:
    while (job := queue.next()) is not None:
        queue.console.print(job.title, markup=False)
        start = time.perf_counter()
        queue.finish(job, job.run(progress=progress), start)


def _run_in_processes(queue: _Queue, workers: int, imports: Imports) -> None:
    outcome = queue.outcome
    running: list[Worker] = []
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    titles = TextColumn("{task.description}")
    with Progress("cells", *columns, titles, console=queue.console, disable=queue.console.quiet) as bar:
        cells = bar.add_task("", total=outcome.cells)
        try:
            while True:
                while len(running) < workers and (job := queue.next()) is not None:
                    running.append(Worker(job, imports, queue.out / LOGS / f"{job.about['key']}.log"))
                about = "; ".join(worker.job.title for worker in running)
                bar.update(cells, completed=outcome.done + outcome.failed_cells, description=about)
                if not running:
                    break
                worker = first_finished(running)
                running.remove(worker)
                queue.finish(worker.job, worker.outcome(), worker.start_time)
        finally:
            for worker in running:
                worker.stop()


class _Queue:
    """Jobs that are left to do, each after the jobs that it needs, and the file of their results."""

    def __init__(
        self,
        cells: int,
        jobs: Sequence[Job],
        out: Path,
        retry_failed: bool,
        console: Console,
        after_job: Callable[[Outcome], object],
    ) -> None:
        self.out = out
        self.console = console
        self._after_job = after_job
        records = {(record["what"], record["key"]): record for record in read_records(out / RESULTS)}
        self._known = {
            identity: record for identity, record in records.items() if record["status"] == "done" or not retry_failed
        }
        self.outcome = Outcome(cells)
        self.waiting: list[Job] = []
        needed: set[str] = set()
        for job in reversed(jobs):
            # Reference scores are for the report, whether a cell waits for their data or not.
            if job.title in needed or (job.about["what"] not in ON_DEMAND and self._is_left(job)):
                needed |= job.needs
                self.waiting.insert(0, job)
        # Shared data comes first, so that no process is idle for lack of it; pretraining before the cells that need it.
        self.waiting.sort(key=lambda job: job.about["what"] in ("pretraining", "cell"))
        self._unfinished = {job.title for job in self.waiting}

    def _is_left(self, job: Job) -> bool:
        record = self._known.get((job.about["what"], job.about["key"]))
        if record is not None:
            self.outcome.add(job, record.get("error"))
        return record is None

    def next(self) -> Job | None:
        """Take the first job that needs no unfinished one, if there is any."""
        ready = (job for job in self.waiting if not job.needs & self._unfinished)
        job = next(ready, None)
        if job is not None:
            self.waiting.remove(job)
        return job

    def finish(self, job: Job, result: Result | Failure, start: float) -> None:
        """Record and print a result or a failure."""
        if isinstance(result, Failure):
            self._fail(job, result)
            text = f"failed: {job.title}: {result.error}"
        else:
            self._record(job, {"status": "done"} | result)
            self.outcome.add(job, None)
            self._unfinished.remove(job.title)
            about = f": return {np.mean(result['returns']):.1f}" if result.get("returns") else ""
            if "episodes" in result:
                about = f": {result['episodes']} episodes, {result['transitions']} transitions"
            text = f"{job.title}{about} ({time.perf_counter() - start:.0f} s)"
        self.console.print(text, markup=False)
        self._after_job(self.outcome)

    def _fail(self, job: Job, failure: Failure, origin: str | None = None) -> None:
        origin = origin or job.title
        self._record(job, {"status": "failed"} | asdict(failure))
        self.outcome.add(job, failure.error)
        # Each failure may take others from the list.
        while other := next((other for other in self.waiting if job.title in other.needs), None):
            self.waiting.remove(other)
            self._fail(other, Failure(f"it needs {origin}, which failed"), origin)

    def _record(self, job: Job, result: Mapping[str, Any]) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        append_record(self.out / RESULTS, {**job.about, "time": now, **result})


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder; the system releases it when this process ends, however it ends."""
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"out: another benchmark is running in {out}") from error
        yield
    finally:
        os.close(folder)
