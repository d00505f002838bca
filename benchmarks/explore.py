"""What exploration is worth: AIME from Plan2Explore's episodes, and from as many of random play.

Each kind of play and seed is a dataset in ``--out``, which is not recorded again, and a line of JSON in
``--out``/results.jsonl: how far the play moved the task's objects, and what AIME learnt from it.

    python benchmarks/explore.py window-open-v3 --seeds 0 1
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from aime_gym.agents import AIMEAgent
from aime_gym.agents.explorer import Explorer
from aime_gym.data import collect, load_trajectories, save_minari
from aime_gym.experiments.data import derived_seeds
from aime_gym.experiments.evaluation import evaluate, evaluate_random
from aime_gym.experiments.provenance import describe_machine
from aime_gym.models.config import WorldModelConfig
from aime_gym.tasks import TaskConfig
from aime_gym.types import Trajectory

KINDS = ("play", "plan2explore")


def main() -> None:
    """Read the command line and run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env_id", nargs="?", default="window-open-v3")
    parser.add_argument("--modality", choices=("position", "state"), default="state")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--updates-per-step", type=float, default=0.1, help="of Plan2Explore")
    parser.add_argument("--objects", type=int, nargs="+", default=[4, 5, 6], help="entries of the observation")
    parser.add_argument("--demo-count", type=int, default=5)
    parser.add_argument("--model-updates", type=int, default=1500)
    parser.add_argument("--policy-updates", type=int, default=500)
    parser.add_argument("--eval-episodes", type=int, default=20)
    parser.add_argument("--size", type=int, default=128, help="of all world models")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/explore"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for kind in options.kinds:
            cell = run(options, kind, seed)
            with (options.out / "results.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(cell) + "\n")
            print(json.dumps(cell), flush=True)


def run(options: argparse.Namespace, kind: str, seed: int) -> dict:
    """Record the play, train on it, and evaluate."""
    task, seeds = TaskConfig(options.env_id, options.modality, 2), derived_seeds(seed)
    size = options.size
    model = WorldModelConfig(deter=size, hidden=size, decoder_hidden=size)
    sizes = {"world_model": model, "batch_size": 16}
    path = options.out / f"{options.env_id}-{kind}-{seed}"
    with task.make() as env:
        start = time.perf_counter()
        if not path.exists():
            play = record(env, kind, options, seeds["play"], sizes)
            save_minari(path, play, env, metadata={"policy": kind})
        play_seconds = time.perf_counter() - start
        play = load_trajectories(path)
        moved = np.array([displacement(trajectory, options.objects) for trajectory in play])
        print(f"{path}: objects moved {moved.mean():.3f} on average, by more than 0.02 in {(moved > 0.02).mean():.0%}")
        demos = collect(env, "expert", options.demo_count, seed=seeds["demos"], progress=False)
        start = time.perf_counter()
        budget = {"model_updates": options.model_updates, "policy_updates": options.policy_updates}
        agent = AIMEAgent(env, seed=seed, **budget, **sizes)
        agent.pretrain(play, progress_bar=False)
        agent.imitate([demo.without_actions() for demo in demos], progress_bar=False)
        seconds = time.perf_counter() - start
        score = evaluate(agent, env, options.eval_episodes, seed=seeds["evaluation"])
        random = evaluate_random(env, options.eval_episodes, seed=seeds["evaluation"])
    return {
        "task": str(task),
        "play": kind,
        "seed": seed,
        "episodes": len(play),
        "moved": float(moved.mean()),
        "share_moved": float((moved > 0.02).mean()),
        "play_return": float(np.mean([trajectory.episode_return for trajectory in play])),
        "return": score.mean,
        "success": score.success_rate,
        "random_return": random.mean,
        "expert_return": float(np.mean([demo.episode_return for demo in demos])),
        "demonstrations": len(demos),
        "play_seconds": play_seconds,
        "train_seconds": seconds,
        "updates_per_step": options.updates_per_step,
        **budget,
        "world_model": asdict(model),
        "machine": describe_machine(),
    }


def record(env: gym.Env, kind: str, options: argparse.Namespace, seed: int, sizes: dict) -> list[Trajectory]:
    """Random play, or exploration."""
    if kind == "play":
        return collect(env, "play", options.episodes, seed=seed, progress=False)
    explorer = Explorer(
        env, seed=seed, updates_per_step=options.updates_per_step, imagination_starts=256, ensemble_hidden=128, **sizes
    )
    return explorer.explore(options.episodes)


def displacement(trajectory: Trajectory, entries: list[int]) -> float:
    """How far the entries of the observation came from where they started, at most."""
    positions = np.asarray(trajectory.observations)[:, entries]
    return float(np.linalg.norm(positions - positions[0], axis=1).max())


if __name__ == "__main__":
    main()
