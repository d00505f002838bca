"""Executors of jobs: this process, other processes of this machine, or a cluster through submitit or Ray.

Each takes a job and returns a future of its outcome, with the methods of ``concurrent.futures`` that a run needs.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
from rich.console import Console

from aime_gym.config import import_extra
from aime_gym.experiments.cells import Imports
from aime_gym.experiments.jobs import Job
from aime_gym.experiments.records import Failure, Result
from aime_gym.processes import (
    ProcessEndedError,
    WorkerProcess,
    available_cores,
    first_ready,
    single_threaded,
    start_server,
)

JobOutcome: TypeAlias = Result | Failure
#: Modules that jobs import.
_PRELOAD = ("aime_gym.experiments.jobs", "torch._dynamo")
#: Number of jobs that a cluster has at once: the others wait here.
_CLUSTER_JOBS = 1000


class JobFuture(Protocol):
    """The outcome of a job that may still run."""

    def done(self) -> bool:
        """Return whether there is an outcome, or an error."""

    def result(self) -> JobOutcome:
        """Wait for the outcome, and return it, or raise an error."""

    def cancel(self) -> Any:
        """End the job; its work is lost."""


class Executor(Protocol):
    """Machinery that runs jobs."""

    #: Number of jobs that it is given at once.
    workers: int
    #: Seconds between two questions whether a job is done.
    poll_seconds: float

    def submit(self, job: Job, imports: Imports, log: Path) -> JobFuture:
        """Start a job, or put it in a queue.

        :param imports: modules that its process imports.
        :param log: file for its output, where the executor keeps none itself.
        """


def run_job(job: Job, imports: Imports) -> JobOutcome:
    """Run a job in a process that was started for it."""
    torch.set_num_threads(job.resources.threads)
    imports.load()
    return job.run()


# This machine


@dataclass
class ThisProcess:
    """Executor that runs a job at once, with all threads.

    :param progress: whether to show progress bars.
    """

    console: Console
    progress: bool
    workers: int = 1
    poll_seconds: float = 1.0  # its jobs are done at once: only those of other shards are waited for

    def submit(self, job: Job, imports: Imports, log: Path) -> JobFuture:
        """Run a job."""
        self.console.print(job.title, markup=False)
        future: Future[JobOutcome] = Future()
        future.set_result(job.run(progress=self.progress))
        return future


@dataclass
class Processes:
    """Executor with a new process for each job.

    :param workers: number of processes.
    """

    workers: int
    poll_seconds: float = 0.02

    def submit(self, job: Job, imports: Imports, log: Path) -> JobFuture:
        """Start the process of a job; its output goes to the log, of which an empty one is removed."""
        return _ProcessFuture(job, imports, log)


class _ProcessFuture:
    def __init__(self, job: Job, imports: Imports, log: Path) -> None:
        self._log = log
        start_server(_PRELOAD)
        self._process = WorkerProcess(_serve, job, imports, log)

    def done(self) -> bool:
        return first_ready([self._process], timeout=0) is not None

    def result(self) -> JobOutcome:
        try:
            outcome: JobOutcome = self._process.receive()
        except ProcessEndedError as error:
            outcome = Failure(f"{error}; see {self._log}")
        self._process.join()
        self._remove_empty_log()
        return outcome

    def cancel(self) -> None:
        self._process.stop()
        self._remove_empty_log()

    def _remove_empty_log(self) -> None:
        if self._log.is_file() and not self._log.stat().st_size:
            self._log.unlink()


def _serve(connection: Any, job: Job, imports: Imports, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    connection.send(run_job(job, imports))


# Clusters


class Submitit:
    """Executor of submitit: jobs of Slurm, or processes of this machine where there is no Slurm.

    Further options of Slurm, such as its partition, are those of its variables: ``SBATCH_PARTITION``.

    :param folder: folder of submitit's files, which all machines see.
    :raises ImportError: submitit is not installed.
    """

    poll_seconds = 0.5

    def __init__(self, folder: Path) -> None:
        submitit = import_extra("submitit", "submitit", "executor: expected submitit")
        self._executor = submitit.AutoExecutor(folder)
        # Without Slurm, submitit has no queue.
        self.workers = _CLUSTER_JOBS if self._executor.cluster == "slurm" else available_cores()

    def submit(self, job: Job, imports: Imports, log: Path) -> JobFuture:
        """Submit a job."""
        needed = job.resources
        self._executor.update_parameters(
            name="aime-gym", cpus_per_task=needed.threads, gpus_per_node=needed.gpus, timeout_min=needed.minutes
        )
        with single_threaded():  # the job's process has this one's variables
            future: JobFuture = self._executor.submit(run_job, job, imports)
        return future


class Ray:
    """Executor of Ray: tasks in the cluster of ``RAY_ADDRESS``, or in one of this machine.

    :raises ImportError: Ray is not installed.
    """

    workers = _CLUSTER_JOBS
    poll_seconds = 0.1

    def __init__(self) -> None:
        self._ray = ray = import_extra("ray", "ray", "executor: expected Ray")
        ray.init(ignore_reinit_error=True, log_to_driver=False)
        # A new process for each job, whose memory ends with it; one that dies is a failure, as everywhere.
        self._run = ray.remote(max_calls=1, max_retries=0)(run_job)

    def submit(self, job: Job, imports: Imports, log: Path) -> JobFuture:
        """Submit a job."""
        needed = job.resources
        task = self._run.options(num_cpus=needed.threads, num_gpus=needed.gpus)
        return _RayFuture(self._ray, task.remote(job, imports))


@dataclass(eq=False)
class _RayFuture:
    ray: Any
    reference: Any

    def done(self) -> bool:
        return bool(self.ray.wait([self.reference], timeout=0)[0])

    def result(self) -> JobOutcome:
        outcome: JobOutcome = self.ray.get(self.reference)
        return outcome

    def cancel(self) -> None:
        self.ray.cancel(self.reference, force=True)
