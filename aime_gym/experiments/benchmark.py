"""Run a suite: all that is not done yet, in processes, each result on the disk as soon as it is there."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aime_gym.experiments.jobs import CellJob, DemosJob, PlayJob, RandomJob, demos_source
from aime_gym.experiments.records import append_record, cut_torn_line, read_records
from aime_gym.experiments.sources import derived_seeds, prepare_sources
from aime_gym.experiments.suite import Cell, Suite, SuiteTask
from aime_gym.experiments.workers import Failed, Worker, first_finished, start_server
from aime_gym.serialization import atomically

RESULTS, PLAN, LOGS = "results.jsonl", "plan.json", "logs"
Job: TypeAlias = RandomJob | PlayJob | DemosJob | CellJob


def check(suite: Suite) -> None:
    """Check that all environments, agents and data of a suite are there and fit together, before any work.

    :raises ValueError: what does not fit, with the name of the task. So do the other errors of what it calls.
    """
    for task in suite.tasks:
        cells = suite.cells_of(task)
        try:
            _check_task(task, cells)
        except (ValueError, OSError, NotImplementedError, ImportError) as error:
            raise ValueError(f"tasks.{task.label}: {error}") from error


def _check_task(task: SuiteTask, cells: Sequence[Cell]) -> None:
    # One of each agent: neither the seed nor the number of demonstrations changes what it takes.
    kinds = {cell.agent: cell for cell in cells}.values()
    with task.config.make() as env:
        for cell in kinds:
            cell.spec.build(task.config, env, cell.seed)
    sources = prepare_sources(
        task.config,
        task.data,
        seeds=derived_seeds(task.data_seed),
        play=any(cell.spec.agent_class.needs_play for cell in cells),
        demo_actions=any(cell.spec.agent_class.needs_demonstration_actions for cell in cells),
    )
    most, stored = max((cell.demonstrations for cell in cells), default=0), sources.loaded_demos
    if stored is not None and len(stored) < most:
        raise ValueError(f"demos: expected at least {most} trajectories in {task.data.demos}, got {len(stored)}")


@dataclass
class Outcome:
    """How far a suite came.

    :param done: cells with a result, those of earlier runs included.
    :param failed: titles of what has failed, and the errors.
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


def run(suite: Suite, out: Path, *, workers: int, retry_failed: bool = False, progress: bool = True) -> Outcome:
    """Do what has no result in ``out`` yet.

    Writes ``results.jsonl``, ``plan.json`` (the cells that the suite wants), ``data/`` (what cells share) and
    ``logs/``. Ctrl-C stops all jobs; the same call goes on.

    :param workers: processes, each with one thread.
    :param retry_failed: do again what failed in an earlier run.
    :raises ValueError: another run works in the folder, or its results are damaged.
    """
    with _alone(out):
        cut_torn_line(out / RESULTS)
        work = _Work(suite, out, retry_failed)
        with atomically(out / PLAN) as file:
            file.write(json.dumps(_plan(suite), indent=1).encode())
        with _progress(work.outcome, enabled=progress) as bar:
            try:
                _run(work, workers, bar)
            except KeyboardInterrupt:
                work.outcome.interrupted = True
    return work.outcome


def _run(work: _Work, workers: int, bar: Progress) -> None:
    running: dict[Worker, tuple[Job, float]] = {}
    if work.waiting:
        start_server()
    try:
        while work.waiting or running:
            while len(running) < workers and (job := work.next()) is not None:
                log = work.out / LOGS / f"{job.key}.log"
                running[Worker(job, log)] = (job, time.perf_counter())
                _show(bar, [job.title for job, _ in running.values()], work.outcome)
            worker = first_finished(list(running))
            finished, start = running.pop(worker)
            seconds = time.perf_counter() - start
            try:
                result = worker.result()
            except Failed as error:
                work.fail(finished, str(error), error.trace)
                bar.console.print(f"failed: {finished.title}: {error}", markup=False)
            else:
                work.finish(finished, result)
                returns = result.get("returns")
                score = f": return {np.mean(returns):.1f}" if returns else ""
                bar.console.print(f"{finished.title}{score} ({seconds:.0f} s)", markup=False)
            _show(bar, [job.title for job, _ in running.values()], work.outcome)
    finally:
        for worker in running:
            worker.stop()


class _Work:
    """What is left to do, and what each piece waits for."""

    def __init__(self, suite: Suite, out: Path, retry_failed: bool) -> None:
        self.suite, self.out = suite, out
        records = {(record["what"], record["key"]): record for record in read_records(out / RESULTS)}
        self._done = {key for key, record in records.items() if record["status"] == "done"}
        given_up = {} if retry_failed else {key: record for key, record in records.items() if key not in self._done}
        self.outcome = Outcome(len(suite.cells))
        #: Jobs to start by title, each with the titles of what it waits for.
        self.waiting: dict[str, tuple[Job, set[str]]] = {}
        for task in suite.tasks:
            self._plan(task, given_up)

    def _plan(self, task: SuiteTask, given_up: dict[tuple[str, str], dict[str, Any]]) -> None:
        cells = self.suite.cells_of(task)
        demos = DemosJob(task, self.out, max((cell.demonstrations for cell in cells), default=1))
        play, random = PlayJob(task, self.out), RandomJob(task)
        left: dict[str, tuple[Job, set[str]]] = {}
        need_play = need_demos = False
        for cell in cells:
            agent_class = cell.spec.agent_class
            actions = agent_class.needs_demonstration_actions
            source = (play.folder if task.records_play else task.data.play) if agent_class.needs_play else None
            key = cell.key
            if ("cell", key) in self._done:
                self.outcome.done += 1
            elif ("cell", key) in given_up:
                self.outcome.failed[cell.title] = given_up["cell", key]["error"]
                self.outcome.failed_cells += 1
            else:
                waits_for: set[str] = set()
                if agent_class.needs_play and task.records_play and not play.folder.is_dir():
                    need_play = True
                    waits_for.add(play.title)
                if task.records_demos and not demos.folder.is_dir():
                    need_demos = True
                    waits_for.add(demos.title)
                job = CellJob(cell, source, demos_source(task, demos, actions=actions), actions)
                left[cell.title] = (job, waits_for)
        if need_play:  # what nobody waits for is not recorded
            self.waiting[play.title] = (play, set())
        # References are for the report, whoever waits.
        for reference, needed in ((demos, need_demos), (random, False)):
            known = (_what(reference), reference.key)
            if needed or known not in self._done | given_up.keys():
                self.waiting[reference.title] = (reference, set())
            elif known in given_up:
                self.outcome.failed[reference.title] = given_up[known]["error"]
        self.waiting.update(left)

    def next(self) -> Job | None:
        """Take a job that waits for nothing: shared data before cells, so that no process is idle for want of it."""
        ready = [job for job, waits_for in self.waiting.values() if not waits_for]
        if not ready:
            return None
        job = min(ready, key=lambda job: isinstance(job, CellJob))
        del self.waiting[job.title]
        return job

    def finish(self, job: Job, result: dict[str, Any]) -> None:
        append_record(self.out / RESULTS, _identity(job) | {"status": "done"} | result)
        self.outcome.done += isinstance(job, CellJob)
        for _, waits_for in self.waiting.values():
            waits_for.discard(job.title)

    def fail(self, job: Job, error: str, trace: str = "") -> None:
        append_record(self.out / RESULTS, _identity(job) | {"status": "failed", "error": error, "traceback": trace})
        self.outcome.failed[job.title] = error
        self.outcome.failed_cells += isinstance(job, CellJob)
        for other in [other for other, waits_for in self.waiting.values() if job.title in waits_for]:
            del self.waiting[other.title]
            self.fail(other, f"it needs {job.title}, which failed")


def _what(job: Job) -> str:
    return {RandomJob: "random", DemosJob: "expert", PlayJob: "play", CellJob: "cell"}[type(job)]


def _identity(job: Job) -> dict[str, Any]:
    task = job.cell.task if isinstance(job, CellJob) else job.task
    record = {
        "what": _what(job),
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
            "oracle": job.actions,
            "demonstrations": cell.demonstrations,
            "seed": cell.seed,
            "random": RandomJob(task).key,
            "expert": DemosJob(task, Path(), 0).key,
        }
    return record


def _plan(suite: Suite) -> dict[str, Any]:
    cells = [
        {"key": cell.key, "task": cell.task.label, "agent": cell.agent, "title": cell.title} for cell in suite.cells
    ]
    return {"suite": suite.name, "agents": suite.agents, "cells": cells}


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder; the system lets go of it whatever becomes of this process."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"out: another benchmark is running in {out}") from error
        yield


@contextmanager
def _progress(outcome: Outcome, *, enabled: bool) -> Iterator[Progress]:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=not enabled)
    with Progress("cells", *columns, TextColumn("{task.fields[text]}"), console=console, disable=not enabled) as bar:
        bar.add_task("", total=outcome.cells, completed=outcome.tried, text="")
        yield bar


def _show(bar: Progress, titles: Sequence[str], outcome: Outcome) -> None:
    bar.update(bar.task_ids[0], completed=outcome.tried, text="; ".join(titles))
