"""Processes that work for this one: one thread each, without Ctrl-C, and ended when their parent has ended.

The processes import the script that starts them, which therefore keeps its own work under
``if __name__ == "__main__":``, as scripts with SB3's ``SubprocVecEnv`` do.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper

#: Variables that the numerical libraries read when they are loaded.
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
#: Lock of these variables, for threads that start processes.
_environment_lock = threading.Lock()
#: A fresh server starts each process.
_processes = multiprocessing.get_context("forkserver")


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ProcessEndedError(RuntimeError):
    """Error of a process that ended before it had sent its result; the message is how it ended."""


class WorkerProcess:
    """A process that runs a function.

    It waits for the imports of [`start_server`][], which has to be called first.

    :param serve: function of a connection to this process and of ``arguments``, all of which can be pickled.
    """

    def __init__(self, serve: Callable[..., None], *arguments: Any) -> None:
        self.connection, its = _processes.Pipe()
        self._process = _processes.Process(target=_serve, args=(its, serve, arguments))
        self._process.start()
        its.close()

    def receive(self) -> Any:
        """Return what the process sends next.

        :raises ProcessEndedError: it has ended.
        """
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise ProcessEndedError(f"the process ended with {_status(self._process.exitcode)}") from None

    def join(self) -> None:
        """Wait for the end of the process, which has sent its last result."""
        self._process.join()
        self.connection.close()

    def stop(self) -> None:
        """End the process; its work is lost."""
        self._process.terminate()
        self._process.join(2)
        self._process.kill()
        self.join()


def first_ready(processes: Sequence[WorkerProcess], timeout: float | None = None) -> WorkerProcess | None:
    """Wait until one of them has sent something or has ended.

    :param timeout: greatest number of seconds, after which there is none; ``None`` to wait for as long as it takes.
    """
    ready = wait([process.connection for process in processes], timeout)
    return next((process for process in processes if process.connection in ready), None)


def map_in_processes(
    function: Callable[[Any], Any],
    prepare: Callable[[], Callable[[Any], Any]],
    items: Sequence[Any],
    workers: int,
    *,
    preload: Sequence[str],
) -> Generator[Any]:
    """Yield the results of a function of each item, in the order of the items, from several processes.

    While the processes start, which takes seconds, this one works on the items. An error of the function is raised
    where its result would have been yielded, with its traceback as a note. The processes end with the generator: close
    it where it is not used up.

    :param prepare: function that makes the function, called once in each process, to which it is sent with cloudpickle.
    :param workers: number of processes.
    :param preload: modules that the processes have in common, if no others have been started before.
    :raises ProcessEndedError: a process ended before it had a result.
    """
    left = deque(range(len(items)))
    starting: list[WorkerProcess] = []
    working: dict[WorkerProcess, int] = {}
    outcomes: dict[int, tuple[Any, BaseException | None]] = {}

    def start() -> None:
        for _ in range(workers):
            if left:
                process = WorkerProcess(_serve_calls)
                process.connection.send(CloudpickleWrapper(prepare))
                starting.append(process)

    start_server(preload)
    threads = ThreadPoolExecutor(1)
    starter = threads.submit(start)
    try:
        for number in range(len(items)):
            while number not in outcomes:
                if starter.done():
                    starter.result()  # raises its error
                work_here = bool(left) and (not starter.done() or bool(starting))
                process = first_ready([*starting, *working], timeout=0 if work_here else None)
                if process is None:
                    mine = left.popleft()
                    outcomes[mine] = function(items[mine]), None
                    continue
                result, error = process.receive()
                if process in working:
                    outcomes[working.pop(process)] = result, error
                else:
                    starting.remove(process)
                    if error is not None:
                        raise error
                if left:
                    working[process] = left.popleft()
                    process.connection.send(items[working[process]])
                else:
                    process.stop()
            result, error = outcomes.pop(number)
            if error is not None:
                raise error
            yield result
    finally:
        left.clear()
        threads.shutdown()
        for process in (*starting, *working):
            process.stop()


def _serve_calls(connection: Connection) -> None:
    """Receive what makes the function, then items, and send the outcome of each, until the connection ends."""
    function: Any = None

    def outcome(message: Any) -> tuple[Any, BaseException | None]:
        nonlocal function
        try:
            if function is not None:
                return function(message), None
            function = message.var()
        except (Exception, KeyboardInterrupt) as error:
            return None, _sendable(error)
        return None, None

    with suppress(EOFError, OSError):
        while True:
            connection.send(outcome(connection.recv()))


def _sendable(error: BaseException) -> BaseException:
    """Return an error that can be sent to another process, with its traceback as a note."""
    note = "".join(traceback.format_exception(error))
    try:
        error = ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:  # what an error holds may fail in any way
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"In a worker process:\n{note}")
    return error


def start_server(preload: Sequence[str]) -> None:
    """Start the server of processes, with one thread, unless it runs.

    :param preload: modules that the server imports, which its processes then have in milliseconds.
    """
    _processes.set_forkserver_preload(list(preload))
    with single_threaded():
        forkserver.ensure_running()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Tell the numerical libraries of processes that are started in a ``with`` block to use one thread."""
    with _environment_lock:
        before = {name: os.environ[name] for name in _THREADS if name in os.environ}
        os.environ |= _THREADS
        try:
            yield
        finally:
            for name in _THREADS:
                del os.environ[name]
            os.environ |= before


def _serve(connection: Connection, serve: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.setsid()  # a terminal's Ctrl-C goes to the parent, which stops its processes
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    serve(connection, *arguments)


def _end_with_parent() -> None:
    """End this process when its parent was killed and cannot stop it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _status(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
    return f"exit status {code}"
