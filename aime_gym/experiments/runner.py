"""Runs of a suite: all jobs that have no result yet, each result on the disk as soon as it is there."""

from __future__ import annotations

import fcntl
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aime_gym.experiments.config import DEMONSTRATIONS
from aime_gym.experiments.data import derived_seeds, prepare_data
from aime_gym.experiments.jobs import CellJob, DemosJob, Job, PlayJob, RandomJob
from aime_gym.experiments.records import append_record, cut_torn_line, read_records
from aime_gym.experiments.suite import Cell, Suite, SuiteTask
from aime_gym.experiments.workers import Failed, Worker, first_finished, one_line, start_server
from aime_gym.serialization import atomically

RESULTS, PLAN, LOGS = "results.jsonl", "plan.json", "logs"


@dataclass(frozen=True)
class CheckedSuite:
    """A suite whose every input has been checked.

    :param needs_play: whether an agent learns from play data on a task, by the labels of both.
    """

    suite: Suite
    needs_play: Mapping[tuple[str, str], bool]


def check(suite: Suite) -> CheckedSuite:
    """Check that all environments, agents and data of a suite are there and fit together, before any work.

    :raises ValueError: what does not fit, with the name of the task.
    """
    needs_play = {}
    for task in suite.tasks:
        try:
            needs_play.update(check_task(task, suite.cells_of(task)))
        except (ValueError, OSError, NotImplementedError, ImportError) as error:
            raise ValueError(f"tasks.{task.label}: {error}") from error
    return CheckedSuite(suite, needs_play)


def check_task(task: SuiteTask, cells: Sequence[Cell], *, progress: bool = False) -> dict[tuple[str, str], bool]:
    """Check the cells on one task, and return which of them need play, as :class:`CheckedSuite` has it.

    :param progress: show a progress bar while videos are read.
    """
    # One cell of each agent: neither the seed nor the number of demonstrations changes what it takes.
    by_agent = {cell.agent: cell for cell in cells}
    with task.config.make() as env:
        agents = {label: cell.spec.build(task.config, env, cell.seed) for label, cell in by_agent.items()}
    needs_play = {(task.label, label): agent.must_pretrain for label, agent in agents.items()}
    data = prepare_data(
        task.config,
        task.data,
        seeds=derived_seeds(task.data_seed),
        needs_play=any(needs_play.values()),
        demo_actions=any(agent.needs_demonstration_actions for agent in agents.values()),
        progress=progress,
    )
    most = max((cell.demonstrations or 0 for cell in cells), default=0)
    if data.loaded_demos is not None and len(data.loaded_demos) < most:
        stored = len(data.loaded_demos)
        raise ValueError(f"demos: expected at least {most} trajectories in {task.data.demos}, got {stored}")
    return needs_play


@dataclass
class Outcome:
    """How far a suite came.

    :param done: cells with a result, those of earlier runs included.
    :param failed: errors by the titles of failed jobs.
    """

    cells: int
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    failed_cells: int = 0
    interrupted: bool = False

    @property
    def tried(self) -> int:
        """Cells that are done or have failed."""
        return self.done + self.failed_cells


def run_suite(
    checked: CheckedSuite,
    out: Path,
    *,
    workers: int | None,
    retry_failed: bool = False,
    data: Path | None = None,
    keep: Path | None = None,
    progress: bool = True,
    after_job: Callable[[], object] = lambda: None,
) -> Outcome:
    """Do all that has no result in ``out`` yet.

    Writes ``results.jsonl``, ``plan.json`` (the cells that the suite wants), ``data/`` (what cells share) and
    ``logs/``. Ctrl-C stops all jobs; the same call goes on.

    :param workers: processes, each with one thread; ``None`` to run in this process, with all threads.
    :param retry_failed: do again what failed in an earlier run.
    :param data: the folder of what cells share; ``data`` in ``out`` by default.
    :param keep: a folder for trained agents and experts; by default they are not kept.
    :param after_job: called after each job.
    :raises ValueError: another run works in the folder, or its results are damaged.
    """
    with _locked(out):
        cut_torn_line(out / RESULTS)
        queue = _Queue(checked, out, data or out / "data", keep, retry_failed)
        with atomically(out / PLAN) as file:
            file.write(json.dumps(_plan(checked.suite), indent=1).encode())
        try:
            if workers is None:
                _run_in_this_process(queue, progress, after_job)
            else:
                _run_in_processes(queue, workers, progress, after_job)
        except KeyboardInterrupt:
            queue.outcome.interrupted = True
    return queue.outcome


def _run_in_this_process(queue: _Queue, progress: bool, after_job: Callable[[], object]) -> None:
    console = _console(progress)
    while (job := queue.next()) is not None:
        console.print(job.title, markup=False)
        start = time.perf_counter()
        result: dict[str, Any] | Failed
        try:
            result = job.run(progress=progress)
        except Exception as error:  # the other agents are worth their results
            result = Failed(one_line(error), traceback.format_exc())
        console.print(queue.finish(job, result, time.perf_counter() - start), markup=False)
        after_job()


def _run_in_processes(queue: _Queue, workers: int, progress: bool, after_job: Callable[[], object]) -> None:
    running: dict[Worker, tuple[Job, float]] = {}
    if queue.waiting:
        start_server()
    with _progress(queue.outcome, enabled=progress) as bar:
        try:
            while queue.waiting or running:
                while len(running) < workers and (job := queue.next()) is not None:
                    running[Worker(job, queue.out / LOGS / f"{job.key}.log")] = (job, time.perf_counter())
                    _show(bar, [job.title for job, _ in running.values()], queue.outcome)
                worker = first_finished(list(running))
                finished, start = running.pop(worker)
                bar.console.print(queue.finish(finished, worker.outcome(), time.perf_counter() - start), markup=False)
                after_job()
                _show(bar, [job.title for job, _ in running.values()], queue.outcome)
        finally:
            for worker in running:
                worker.stop()


class _Queue:
    """Jobs that are left to do, and the jobs that each one waits for."""

    def __init__(
        self, checked: CheckedSuite, out: Path, data: Path, keep: Path | None = None, retry_failed: bool = False
    ) -> None:
        self.out = out
        self._checked = checked
        self._folders: dict[str, Any] = {"data": data, "keep": keep}
        records = {(record["what"], record["key"]): record for record in read_records(out / RESULTS)}
        self._done = {key for key, record in records.items() if record["status"] == "done"}
        self._given_up = {} if retry_failed else {key: old for key, old in records.items() if key not in self._done}
        self.outcome = Outcome(len(checked.suite.cells))
        #: Jobs to start by title, each with the titles of those it waits for.
        self.waiting: dict[str, tuple[Job, set[str]]] = {}
        for task in checked.suite.tasks:
            self._add_task(task)

    def _add_task(self, task: SuiteTask) -> None:
        cells = self._checked.suite.cells_of(task)
        common = {"task": task, "imports": self._checked.suite.imports, **self._folders}
        demos = DemosJob(**common, count=max((cell.demonstrations or DEMONSTRATIONS for cell in cells), default=1))
        play = PlayJob(**common)
        left: dict[str, tuple[Job, set[str]]] = {}
        for cell in cells:
            source = None
            waits_for: set[str] = set()
            if self._checked.needs_play[task.label, cell.agent]:
                source = play.folder if task.data.records_play else task.data.play
                if source == play.folder and not play.folder.is_dir():
                    waits_for.add(play.title)
            if task.data.records_demos and not demos.folder.is_dir():
                waits_for.add(demos.title)
            actions = cell.spec.agent_class.needs_demonstration_actions
            job = CellJob(**common, cell=cell, play=source, demos=demos.source(actions=actions))
            if ("cell", cell.key) in self._done:
                self.outcome.done += 1
            elif ("cell", cell.key) in self._given_up:
                self.outcome.failed[cell.title] = self._given_up["cell", cell.key]["error"]
                self.outcome.failed_cells += 1
            else:
                left[cell.title] = (job, waits_for)
        needed = set().union(*(waits_for for _, waits_for in left.values()))
        if play.title in needed:
            self.waiting[play.title] = (play, set())
        # Reference scores are for the report, whether a cell waits for them or not.
        for reference in (demos, RandomJob(**common)):
            known = (reference.what, reference.key)
            if reference.title in needed or known not in self._done | self._given_up.keys():
                self.waiting[reference.title] = (reference, set())
            elif known in self._given_up:
                self.outcome.failed[reference.title] = self._given_up[known]["error"]
        self.waiting.update(left)

    def next(self) -> Job | None:
        """Take a job that waits for nothing: shared data before cells, so that no process is idle for want of it."""
        ready = [job for job, waits_for in self.waiting.values() if not waits_for]
        if not ready:
            return None
        job = min(ready, key=lambda job: isinstance(job, CellJob))
        del self.waiting[job.title]
        return job

    def finish(self, job: Job, result: dict[str, Any] | Failed, seconds: float) -> str:
        """Record a result or a failure, and return it in words."""
        if isinstance(result, Failed):
            self._fail(job, result.error, result.trace)
            return f"failed: {job.title}: {result.error}"
        append_record(self.out / RESULTS, _identity(job) | {"status": "done"} | result)
        self.outcome.done += isinstance(job, CellJob)
        for _, waits_for in self.waiting.values():
            waits_for.discard(job.title)
        returns, episodes = result.get("returns"), result.get("episodes")
        about = f": return {np.mean(returns):.1f}" if returns else ""
        about += f": {episodes} episodes, {result['transitions']} transitions" if episodes else ""
        return f"{job.title}{about} ({seconds:.0f} s)"

    def _fail(self, job: Job, error: str, trace: str = "") -> None:
        append_record(self.out / RESULTS, _identity(job) | {"status": "failed", "error": error, "traceback": trace})
        self.outcome.failed[job.title] = error
        self.outcome.failed_cells += isinstance(job, CellJob)
        for other in [other for other, waits_for in self.waiting.values() if job.title in waits_for]:
            del self.waiting[other.title]
            self._fail(other, f"it needs {job.title}, which failed")


def _identity(job: Job) -> dict[str, Any]:
    task = job.task
    record = {
        "what": job.what,
        "key": job.key,
        "task": task.label,
        "env": asdict(task.config),
        "data": {"play": task.data.play, "demos": task.data.demos, "expert": task.data.expert},
        "data_seed": task.data_seed,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    if isinstance(job, CellJob):
        cell = job.cell
        record |= {
            "agent": cell.agent,
            "name": cell.spec.name,
            "options": dict(cell.spec.options),
            "oracle": cell.spec.agent_class.needs_demonstration_actions,
            "demonstrations": cell.demonstrations,
            "seed": cell.seed,
            "random": RandomJob(task=task, imports=job.imports, data=job.data).key,
            "expert": DemosJob(task=task, imports=job.imports, data=job.data, count=0).key,
        }
    return record


def _plan(suite: Suite) -> dict[str, Any]:
    cells = [
        {"key": cell.key, "task": cell.task.label, "agent": cell.agent, "title": cell.title} for cell in suite.cells
    ]
    return {"suite": suite.name, "agents": suite.agents, "cells": cells}


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


def _console(progress: bool) -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True, quiet=not progress)


@contextmanager
def _progress(outcome: Outcome, *, enabled: bool) -> Iterator[Progress]:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    text = TextColumn("{task.fields[text]}")
    with Progress("cells", *columns, text, console=_console(enabled), disable=not enabled) as bar:
        bar.add_task("", total=outcome.cells, completed=outcome.tried, text="")
        yield bar


def _show(bar: Progress, titles: Sequence[str], outcome: Outcome) -> None:
    bar.update(bar.task_ids[0], completed=outcome.tried, text="; ".join(titles))
