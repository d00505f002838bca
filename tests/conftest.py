"""Setup of all tests: one thread per worker, rendering without a screen, and nothing written to the user's folders."""

import multiprocessing
import os
import signal

# Before numpy and torch are imported, since their libraries read it once. The networks of the tests are too small for
# more threads, and the workers share the cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

from concurrent.futures import Future

import pytest
import torch

from aime_gym import processes
from aime_gym.data import collecting
from aime_gym.wrappers.rendering import choose_gl

torch.set_num_threads(1)
# One server starts the processes of all tests, in milliseconds: it has imported what any of them needs (an optimizer's
# first step imports the last one). Whoever starts it asks for less.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["aime_gym.testing", "aime_gym.experiments.jobs", "torch._dynamo"])
_PROCESSES.set_forkserver_preload = lambda modules: None
choose_gl()  # before a test imports a simulator
# Shells start background jobs with Ctrl-C ignored, and the tests send it to themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def minari_in_a_temporary_folder(tmp_path_factory):
    """Redirect datasets without a path away from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        yield


class InThisThread:
    """Executor that runs a function when it is submitted."""

    def __init__(self, threads):
        pass

    def submit(self, function):
        future = Future()
        future.set_result(function())
        return future

    def shutdown(self):
        pass


@pytest.fixture
def in_processes(monkeypatch):
    """Let recordings of several workers start processes, however short they are, for all episodes but the first."""
    first_ready = processes.first_ready
    processes.start_server([])
    monkeypatch.setattr(collecting, "_LONG_RECORDING", 0.0)
    monkeypatch.setattr(processes, "ThreadPoolExecutor", InThisThread)
    monkeypatch.setattr(processes, "first_ready", lambda running, timeout=None: first_ready(running))
