"""Runs of a suite: all jobs that have no result yet, each result on the disk as soon as it is there."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aime_gym.agents.files import description
from aime_gym.experiments.cells import Cell, Imports, Suite, SuiteTask, identity_digest
from aime_gym.experiments.data import appearance, load_for_task, prepare_data
from aime_gym.experiments.executors import Executor, JobFuture, Processes, ThisProcess
from aime_gym.experiments.jobs import ON_DEMAND, Job, jobs_of
from aime_gym.experiments.records import RESULTS, Failure, Result, append_record, cut_torn_line, read_folder
from aime_gym.experiments.shards import WHOLE, Shard
from aime_gym.experiments.tracking import Tracking
from aime_gym.processes import available_cores
from aime_gym.serialization import exclusively, write_text
from aime_gym.tasks import TaskConfig
from aime_gym.types import Trajectory

PLAN, LOGS = "plan.json", "logs"
Record = Mapping[str, Any]
#: Seconds after which a shard looks again whether another one has made what its jobs wait for.
_RETRY_SECONDS = 1.0


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
    executor: Executor | None = None,
    shard: Shard = WHOLE,
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
    :param executor: cluster that runs the jobs, in place of processes of this machine.
    :param shard: part of the cells to run, into a file of results of its own. Other shards may run at the same time, on
        other machines, in the same folder: what their cells share is made by one of them.
    :param retry_failed: whether to run again the jobs that failed in an earlier run.
    :param data: folder of the data that cells share; ``data`` in ``out`` by default.
    :param keep: folder for trained agents and experts; by default they are not kept.
    :param tracking: tracker of cells, each as one run.
    :param after_job: function that is called after each job.
    :raises ValueError: another run works in the folder, or its results are damaged.
    :raises FileExistsError: another run works on the same shard.
    """
    results = out / shard.results
    with _locked(out, results):
        cut_torn_line(results)
        console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=not progress)
        # Without processes for jobs, a recording has all cores; and else those that other tasks' recordings leave idle.
        recorders = available_cores() if workers is None else max(1, workers // len(checked.suite.tasks))
        shared = data or out / "data"
        records = read_folder(out)  # before folders are looked for, which other shards may finish at any time
        jobs = jobs_of(checked.suite, checked.learners, shared, keep, recorders=recorders, tracking=tracking)
        claims = None if shard == WHOLE else shared
        queue = _Queue(shard.part(checked.suite, jobs), records, results, claims, retry_failed, console, after_job)
        cells = [{"key": cell.key, "title": cell.title} for cell in checked.suite.cells]
        plan = {"suite": checked.suite.name, "agents": checked.suite.agents, "cells": cells}
        write_text(out / PLAN, json.dumps(plan, indent=1))
        try:
            if executor is None:
                executor = ThisProcess(console, progress) if workers is None else Processes(workers)
            _run(queue, executor, checked.suite.imports, bar=workers is not None and progress)
        except KeyboardInterrupt:
            queue.outcome.interrupted = True
        finally:
            queue.release_all()
    return queue.outcome


def _run(queue: _Queue, executor: Executor, imports: Imports, *, bar: bool) -> None:
    """Run the jobs of a queue.

    :param bar: whether to show how many cells are done.
    """
    outcome = queue.outcome
    running: dict[JobFuture, tuple[Job, float]] = {}
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    titles = TextColumn("{task.description}")
    with Progress("cells", *columns, titles, console=queue.console, disable=not bar) as progress:
        cells = progress.add_task("", total=outcome.cells)
        try:
            while True:
                while len(running) < executor.workers and (job := queue.next()) is not None:
                    start = time.perf_counter()
                    log = queue.results.parent / LOGS / f"{job.about['key']}.log"
                    running[executor.submit(job, imports, log)] = job, start
                about = "; ".join([job.title for job, _ in running.values()][:8])
                progress.update(cells, completed=outcome.done + outcome.failed_cells, description=about)
                if not running and not queue.waiting:
                    break
                for future in _finished(running, executor.poll_seconds):
                    job, start = running.pop(future)
                    queue.finish(job, _outcome(future), start)
        finally:
            for future in running:
                future.cancel()


def _finished(running: Iterable[JobFuture], poll_seconds: float) -> list[JobFuture]:
    """Wait until some jobs are done, for a while at most, and return them."""
    end = time.monotonic() + _RETRY_SECONDS
    while not (done := [future for future in running if future.done()]) and time.monotonic() < end:
        time.sleep(poll_seconds)
    return done


def _outcome(future: JobFuture) -> Result | Failure:
    try:
        return future.result()
    except Exception as error:  # of a cluster, whose job did not come to its end
        return Failure(" ".join(f"{type(error).__name__}: {error}".split()))


class _Queue:
    """Jobs that are left to do, each after the jobs that it needs, and the file of their results.

    :param claims: folder in which a shard locks what its cells share with those of others, before it makes that;
        ``None`` for a run without others.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        records: Iterable[Record],
        results: Path,
        claims: Path | None,
        retry_failed: bool,
        console: Console,
        after_job: Callable[[Outcome], object],
    ) -> None:
        #: File of results.
        self.results = results
        self._claims_folder = claims
        self._claims: dict[str, ExitStack] = {}
        self.console = console
        self._after_job = after_job
        self._before = _last(records)
        self._retry_failed = retry_failed
        self.outcome = Outcome(sum(job.is_cell for job in jobs))
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
        record = self._before.get((job.about["what"], job.about["key"]))
        if record is None or (self._retry_failed and record["status"] == "failed"):
            return True
        self.outcome.add(job, record.get("error"))
        return False

    def next(self) -> Job | None:
        """Take the first job that needs no unfinished one, and that no other shard is at, if there is any."""
        for job in self.waiting:
            if not job.needs & self._unfinished and self._claim(job):
                self.waiting.remove(job)
                return self.next() if self._take_over(job) else job
        return None

    def _claim(self, job: Job) -> bool:
        """Lock what other shards may need, and return whether none of them is at it."""
        if self._claims_folder is None or job.is_cell:
            return True
        claim = ExitStack()
        with suppress(FileExistsError):
            claim.enter_context(exclusively(self._claims_folder / f"claim-{job.about['what']}-{job.about['key']}"))
            self._claims[job.title] = claim
        return job.title in self._claims

    def _take_over(self, job: Job) -> bool:
        """Use what another shard has made since this one started, or fail as that did; return whether there is any."""
        identity = job.about["what"], job.about["key"]
        record = _last(read_folder(self.results.parent)).get(identity) if job.title in self._claims else None
        if record is None or record == self._before.get(identity):
            return False
        if record["status"] == "failed":
            self._fail(job, Failure(record["error"], record.get("traceback", "")))
        else:
            self._unfinished.remove(job.title)
        self._release(job)
        return True

    def _release(self, job: Job) -> None:
        self._claims.pop(job.title, ExitStack()).close()

    def release_all(self) -> None:
        """Leave to other shards what this one was at."""
        for claim in self._claims.values():
            claim.close()

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
        self._release(job)
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
        append_record(self.results, {**job.about, "time": now, **result})


def _last(records: Iterable[Record]) -> dict[tuple[str, str], Record]:
    """Return the last record of each job."""
    return {(record["what"], record["key"]): record for record in records}


def check_idle(out: Path) -> None:
    """Check that no run works in a folder.

    :raises ValueError: one does.
    """
    if (out / RESULTS).exists():
        with _locked(out, out / RESULTS):
            pass


@contextmanager
def _locked(out: Path, results: Path) -> Iterator[None]:
    """Hold a folder, alone or beside other shards; the system releases it when this process ends, however it ends.

    :param results: file of results: one of its own for each shard.
    """
    out.mkdir(parents=True, exist_ok=True)
    whole = out / RESULTS
    with ExitStack() as stack:
        # A file that can be written: folders have no locks in NFS.
        file = stack.enter_context(whole.open("a+b"))
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if results == whole else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"out: another benchmark is running in {out}") from error
        if results != whole:
            stack.enter_context(exclusively(results, "shard"))
        yield
