"""What does a frame cost? LazyImages per second, a step and a frame each, of the simulator by itself and of both
qualities.

Small frames (64 x 64), action repeat 2: one environment, two in one process, two in processes of their own; the figures
of two environments count the frames of both. The ways to render take turns in short spans, so that what else the
machine does disturbs all of them alike: believe the ratios before the rates. "simulator" is dm_control through Shimmy,
or Meta-World, as their own packages make them. One line of JSON for each row of the table is
appended to ``--out``.

    python benchmarks/rendering.py
    python benchmarks/rendering.py reach-v3 --rounds 10
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from itertools import chain, product
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import AddRenderObservation, RepeatAction
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from aime_gym import make_env
from aime_gym.experiments.provenance import describe_machine, package_versions
from aime_gym.wrappers.rendering import require_gl

SIZE, REPEAT = 64, 2
WAYS = ("simulator", "default", "fast")
#: Processes, and environments in each of them.
LAYOUTS = {"1 environment": (1, 1), "2 in one process": (1, 2), "2 processes": (2, 1)}


def make(task: str, way: str) -> gym.Env:
    """An environment whose observation is the frame."""
    if way != "simulator":
        return make_env(task, modality="pixels", image_size=SIZE, action_repeat=REPEAT, quality=way)  # type: ignore[arg-type]
    require_gl()
    env: gym.Env
    if task.endswith("-v3"):
        import metaworld  # noqa: F401 - registers its environments

        view = {"width": SIZE, "height": SIZE, "camera_name": "corner4"}
        env = gym.make("Meta-World/MT1", env_name=task, seed=0, render_mode="rgb_array", **view)
    else:
        import shimmy

        gym.register_envs(shimmy)
        frame = {"height": SIZE, "width": SIZE, "camera_id": 0}
        env = gym.make(f"dm_control/{task}-v0", render_mode="rgb_array", render_kwargs=frame)
    return Contiguous(AddRenderObservation(RepeatAction(env, REPEAT)))


class Contiguous(gym.ObservationWrapper):
    """SB3 copies frames between processes."""

    def observation(self, observation: Any) -> Any:
        return np.ascontiguousarray(observation)


_env: VecEnv


def begin(task: str, way: str, copies: int) -> None:
    """Make the environments of this process."""
    global _env
    _env = DummyVecEnv([functools.partial(make, task, way)] * copies)
    _env.reset()


def frames_per_second(seconds: float) -> float:
    """Step all copies for so long."""
    action = np.stack([_env.action_space.sample() for _ in range(_env.num_envs)])
    frames, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        _env.step(action)
        frames += _env.num_envs
    return frames / spent


def end() -> None:
    """Close them."""
    _env.close()


def measure(task: str, layout: str, rounds: int, seconds: float) -> dict[str, list[float]]:
    """LazyImages per second of every way in every round. Each way has processes of its own: simulators draw where
    another one drew.
    """
    processes, copies = LAYOUTS[layout]
    with ExitStack() as stack:
        pools = {
            way: [
                stack.enter_context(
                    ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), begin, (task, way, copies))
                )
                for _ in range(processes)
            ]
            for way in WAYS
        }

        def rate(way: str, span: float) -> float:
            return sum(future.result() for future in [pool.submit(frames_per_second, span) for pool in pools[way]])

        for way in WAYS:
            rate(way, seconds / 4)
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                rates[way].append(rate(way, seconds))
        for pool in chain(*pools.values()):
            pool.submit(end).result()
    return rates


def main() -> None:
    """Read the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=["walker-walk", "reach-v3"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each way in each round")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rendering.jsonl"))
    options = parser.parse_args()
    require_gl()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    print("| task | | simulator | default | fast | fast / simulator | fast / default |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for task, layout in product(options.tasks, LAYOUTS):
        load = os.getloadavg()[0]
        rates = measure(task, layout, options.rounds, options.seconds)
        # The ratio of each round, whose spans lie beside each other, and then the median.
        ratios = [float(np.median(np.divide(rates["fast"], rates[way]))) for way in ("simulator", "default")]
        cells = [f"{np.median(rates[way]):.0f}" for way in WAYS] + [f"{ratio:.1f}" for ratio in ratios]
        print(f"| {task} | {layout} | {' | '.join(cells)} |", flush=True)
        line = {
            "task": task,
            "layout": layout,
            "size": SIZE,
            "action_repeat": REPEAT,
            "frames_per_second": {way: [round(rate, 1) for rate in found] for way, found in rates.items()},
            "gl": os.environ.get("MUJOCO_GL"),
            "load_before": round(load, 1),
            "versions": package_versions(),
            "machine": describe_machine(),
        }
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
