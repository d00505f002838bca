"""What users wait for, as ratios of measurements that take turns in one run.

Rows so far: recording play by one process and by two, by ``collect`` with all that it does: processes start, import the
simulator and send what they have recorded. Whatever else the machine does disturbs the time that passes, so each row
has the processor time of all processes too. On cores of their own, n processes that share the work evenly are

    n * (processor time of one process) / (processor time of all n processes)

times as fast as one. "While recording" leaves the start of the processes out: long recordings come close to it. One
line of JSON for each measurement is appended to ``--out``.

    python benchmarks/speed.py
    python benchmarks/speed.py --tasks reach-v3 walker-walk --episodes 200 --turns 3
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import tempfile
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import gymnasium as gym

from aime_gym import make_env
from aime_gym.data import collect, collecting
from aime_gym.experiments.provenance import describe_machine, package_versions

PROCESSES = (1, 2)


class ProcessorTime(gym.Wrapper):
    """Writes this process's processor time at the start of each episode to a file of its own."""

    def __init__(self, env: gym.Env, folder: str) -> None:
        super().__init__(env)
        self._file = Path(folder) / str(os.getpid())

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(f"{time.process_time()}\n")
        return self.env.reset(**options)


def make(task: str, folder: str) -> gym.Env:
    """A task whose processes write their processor time."""
    return ProcessorTime(make_env(task), folder)


def measure(task: str, episodes: int, workers: int) -> dict[str, Any]:
    """Record play, and say how long it took."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder) / str(os.getpid())
        start = time.perf_counter()
        busy = time.process_time() + server_time()
        env = functools.partial(make, task, folder)
        recorded = collect(env, "play", episodes, workers=workers, seed=0, progress=False)
        seconds = time.perf_counter() - start
        busy = time.process_time() + server_time() - busy
        times = {file: [*map(float, file.read_text(encoding="utf-8").split())] for file in Path(folder).iterdir()}
    steps = sum(map(len, recorded))
    mine = times.pop(here) if workers > 1 else []
    recording = sum(of_one[-1] - of_one[0] for of_one in times.values())
    episode = recording / sum(
        len(of_one) - 1 for of_one in times.values()
    )  # without the last one, whose end is unknown
    if workers > 1:
        busy += sum(of_one[-1] + episode for of_one in times.values())
    return {
        "row": "collect",
        "task": task,
        "processes": workers,
        "episodes": episodes,
        "episodes_while_others_start": len(mine),
        "steps": steps,
        "seconds": seconds,
        "processor_seconds": busy,
        "processor_seconds_while_recording": episode * episodes,
    }


def server_time() -> float:
    """Processor time of the process that starts the others, where the system tells."""
    try:
        fields = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/stat").read_text(encoding="utf-8").split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Read the command line, measure in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["reach-v3"])
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed.jsonl"))
    options = parser.parse_args()
    collecting._LONG_RECORDING = 0.0  # processes, however few the episodes
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = []
    for _ in range(options.turns):
        for task in options.tasks:
            for workers in PROCESSES:
                line = measure(task, options.episodes, workers)
                line |= {"machine": describe_machine(), "versions": package_versions()}
                lines.append(line)
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
    print(table(lines))


def table(lines: list[dict[str, Any]]) -> str:
    """The figures as a table: medians over turns."""
    rows = [
        "| | processes | steps/s | CPU ms a step | while recording | times as fast as one | by CPU | while recording |",
        "| --- " * 8 + "|",
    ]
    for task in dict.fromkeys(line["task"] for line in lines):
        one, *others = (
            [line for line in lines if line["task"] == task and line["processes"] == workers] for workers in PROCESSES
        )
        base = milliseconds(one)
        for measured in (one, *others):
            workers = measured[0]["processes"]
            passed, busy, recording = milliseconds(measured)
            rows.append(
                f"| collect {task} | {workers} | {1000 / passed:.0f} | {busy:.2f} | {recording:.2f} | "
                f"{base[0] / passed:.2f} | {workers * base[1] / busy:.2f} | {workers * base[2] / recording:.2f} |"
            )
    return "\n".join(rows)


def milliseconds(lines: list[dict[str, Any]]) -> list[float]:
    """Milliseconds a step: that pass, of all processors, and of those that record while they do."""
    names = ("seconds", "processor_seconds", "processor_seconds_while_recording")
    return [statistics.median(1000 * line[name] / line["steps"] for line in lines) for name in names]


if __name__ == "__main__":
    main()
