"""Jobs in processes of their own: one thread each, without Ctrl-C, and ended when their parent has ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from aime_gym.experiments.jobs import Failure, Job, Result
from aime_gym.experiments.suite import Imports

#: Variables that the numerical libraries read when they are loaded.
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
#: A fresh server that has imported what jobs need starts each process, in milliseconds.
_processes = multiprocessing.get_context("forkserver")


class Worker:
    """A process with one job.

    :param imports: modules that the process imports.
    :param log: file for all output of the job; an empty one is removed.
    """

    def __init__(self, job: Job, imports: Imports, log: Path) -> None:
        _start_server()
        self.job = job
        self.start_time = time.perf_counter()
        self._log = log
        self._connection, sender = _processes.Pipe(duplex=False)
        self._process = _processes.Process(target=_serve, args=(sender, job, imports, log))
        self._process.start()
        sender.close()

    def outcome(self) -> Result | Failure:
        """Return the results of the job, or its failure, once `first_finished` has named this worker."""
        try:
            result = self._connection.recv()
        except (EOFError, OSError):
            result = None
        self._process.join()
        self._close()
        return result or Failure(f"the process ended with {_status(self._process.exitcode)}; see {self._log}")

    def stop(self) -> None:
        """End the process; its job is lost."""
        self._process.terminate()
        self._process.join(2)
        self._process.kill()
        self._process.join()
        self._close()

    def _close(self) -> None:
        self._connection.close()
        if self._log.is_file() and not self._log.stat().st_size:
            self._log.unlink()


def first_finished(workers: Sequence[Worker]) -> Worker:
    """Wait until one of them has a result or is dead."""
    ready = wait([worker._connection for worker in workers])
    return next(worker for worker in workers if worker._connection in ready)


def _start_server() -> None:
    """Start the server of processes, with one thread and with what jobs import, unless it runs."""
    _processes.set_forkserver_preload(["aime_gym.experiments.jobs", "torch._dynamo"])
    before = {name: os.environ[name] for name in _THREADS if name in os.environ}
    os.environ |= _THREADS
    try:
        forkserver.ensure_running()
    finally:
        for name in _THREADS:
            del os.environ[name]
        os.environ |= before


def _serve(connection: Connection, job: Job, imports: Imports, log: Path) -> None:
    os.setsid()  # a terminal's Ctrl-C goes to the parent, which stops its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    torch.set_num_threads(1)
    imports.load()
    connection.send(job.run())


def _end_with_parent() -> None:
    """End this process when its parent was killed and cannot stop it: the next run does its work again."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _status(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
    return f"exit status {code}"
