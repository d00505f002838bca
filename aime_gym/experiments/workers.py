"""Jobs in processes of their own: one thread each, without Ctrl-C, and ended when their parent has ended."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from aime_gym.experiments.jobs import Job

#: Read by the numerical libraries when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: A fresh server that has imported what jobs need starts each process, in milliseconds.
_processes = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Failed:
    """The error of a job, or the end of its process, in one line.

    :param trace: all that Python says of it.
    """

    error: str
    trace: str = ""


class Worker:
    """A process with one job.

    :param log: file for whatever the job prints; removed when that was nothing.
    """

    def __init__(self, job: Job, log: Path) -> None:
        self.job = job
        self._log = log
        self._connection, sender = _processes.Pipe(duplex=False)
        with _one_thread():
            self._process = _processes.Process(target=_serve, args=(sender, job, log))
            self._process.start()
        sender.close()

    def outcome(self) -> dict[str, Any] | Failed:
        """Return what the job returned, or its failure, once :func:`first_finished` has named this worker."""
        try:
            message = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            message = None
        self._process.join()
        self._close()
        if message is None:
            return Failed(f"the process ended with {_status(self._process.exitcode)}; see {self._log}")
        if "error" in message:
            return Failed(message["error"], message["trace"])
        result: dict[str, Any] = message["result"]
        return result

    def stop(self) -> None:
        """End the process; its job is lost."""
        self._process.terminate()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._close()

    def _close(self) -> None:
        self._connection.close()
        if self._log.is_file() and not self._log.stat().st_size:
            self._log.unlink()


def start_server() -> None:
    """Start the server of processes, with what jobs import."""
    _processes.set_forkserver_preload(["aime_gym.experiments.jobs", "torch._dynamo"])
    with _one_thread():
        forkserver.ensure_running()


def first_finished(workers: list[Worker]) -> Worker:
    """Wait until one of them has a result or is dead."""
    ready = wait([worker._connection for worker in workers])
    return next(worker for worker in workers if worker._connection in ready)


def _serve(connection: Connection, job: Job, log: Path) -> None:
    os.setsid()  # a terminal's Ctrl-C goes to the parent, which stops its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    torch.set_num_threads(1)
    message: dict[str, Any]
    try:
        job.imports.load()
        message = {"result": job.run()}
    except BaseException as error:
        message = {"error": one_line(error), "trace": traceback.format_exc()}
    connection.send_bytes(json.dumps(message).encode())
    connection.close()


def _end_with_parent() -> None:
    """End this process when its parent was killed, and cannot stop it: the next run does its work again."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def one_line(error: BaseException) -> str:
    """Return an error's type and message in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _status(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
    return f"exit status {code}"


@contextmanager
def _one_thread() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
