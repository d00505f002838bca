"""Jobs in processes of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from aime_gym.experiments.cells import Imports
from aime_gym.experiments.jobs import Failure, Job, Result
from aime_gym.processes import ProcessEndedError, WorkerProcess, first_ready, start_server

#: Modules that jobs import.
_PRELOAD = ("aime_gym.experiments.jobs", "torch._dynamo")


class Worker:
    """A process with one job.

    :param imports: modules that the process imports.
    :param log: file for all output of the job; an empty one is removed.
    """

    def __init__(self, job: Job, imports: Imports, log: Path) -> None:
        self.job = job
        self.start_time = time.perf_counter()
        self._log = log
        start_server(_PRELOAD)
        self.process = WorkerProcess(_serve, job, imports, log)

    def outcome(self) -> Result | Failure:
        """Return the results of the job, or its failure, once `first_finished` has named this worker."""
        result: Result | Failure
        try:
            result = self.process.receive()
        except ProcessEndedError as error:
            result = Failure(f"{error}; see {self._log}")
        self.process.join()
        self._remove_empty_log()
        return result

    def stop(self) -> None:
        """End the process; its job is lost."""
        self.process.stop()
        self._remove_empty_log()

    def _remove_empty_log(self) -> None:
        if self._log.is_file() and not self._log.stat().st_size:
            self._log.unlink()


def first_finished(workers: Sequence[Worker]) -> Worker:
    """Wait until one of them has a result or is dead."""
    ready = first_ready([worker.process for worker in workers])
    return next(worker for worker in workers if worker.process is ready)


def _serve(connection: Connection, job: Job, imports: Imports, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    imports.load()
    connection.send(job.run())
