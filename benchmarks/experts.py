"""Train experts for classic control, and record the demonstrations that the package ships.

Each task is trained with the settings of RL Zoo, from several seeds; the best model on episodes of its own acts. Writes
``<task>.npz`` and ``<task>.json``, which says how it was made, for ``load_trajectories("classic/<task>")``.

    python benchmarks/experts.py
    python benchmarks/experts.py MountainCar-v0 --seeds 0 1 2 3
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule

from aime_gym.data import collect
from aime_gym.data.shipped import FOLDER, save_shipped
from aime_gym.experiments.provenance import describe_machine, package_versions

#: Algorithm, environments, steps and hyper-parameters: those of RL Zoo's `hyperparams/*.yml`.
RECIPES: dict[str, tuple[type[BaseAlgorithm], int, int, dict[str, Any]]] = {
    "CartPole-v1": (
        PPO,
        8,
        100_000,
        {
            "n_steps": 32,
            "batch_size": 256,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "n_epochs": 20,
            "learning_rate": LinearSchedule(1e-3, 0.0, 1.0),
            "clip_range": LinearSchedule(0.2, 0.0, 1.0),
        },
    ),
    "Acrobot-v1": (
        DQN,
        1,
        100_000,
        {
            "learning_rate": 6.3e-4,
            "batch_size": 128,
            "buffer_size": 50_000,
            "learning_starts": 0,
            "target_update_interval": 250,
            "train_freq": 4,
            "gradient_steps": -1,
            "exploration_fraction": 0.12,
            "exploration_final_eps": 0.1,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    ),
    "MountainCar-v0": (
        DQN,
        1,
        120_000,
        {
            "learning_rate": 4e-3,
            "batch_size": 128,
            "buffer_size": 10_000,
            "learning_starts": 1000,
            "gamma": 0.98,
            "target_update_interval": 600,
            "train_freq": 16,
            "gradient_steps": 8,
            "exploration_fraction": 0.2,
            "exploration_final_eps": 0.07,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    ),
}
#: Seeds of the episodes that choose within a run, between runs, and that are recorded: none of them meet.
CHOOSING, COMPARING, RECORDING = 1_000_000, 2_000_000, 3_000_000


def main() -> None:
    """Read the command line, train, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(RECIPES), help=f"some of {', '.join(RECIPES)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="the best one acts")
    parser.add_argument("--episodes", type=int, default=20, help="demonstrations of each task")
    parser.add_argument("--out", type=Path, default=FOLDER / "classic")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for task in options.tasks:
        record(task, options.seeds, options.episodes, options.out)


def record(task: str, seeds: list[int], episodes: int, out: Path) -> None:
    """Write the demonstrations of the best expert."""
    start = time.perf_counter()
    models = {seed: train(task, seed) for seed in seeds}
    scores = {seed: score(model, task, COMPARING, 100) for seed, model in models.items()}
    best = max(scores, key=lambda seed: scores[seed])
    with gym.make(task) as env:
        trajectories = collect(env, models[best], episodes, seed=RECORDING, progress=False)
    algorithm, envs, steps, settings = RECIPES[task]
    about = {
        "task": task,
        "made_by": "benchmarks/experts.py",
        "expert": algorithm.__name__,
        "steps": steps,
        "kept": "the model of the best evaluation in training, and of these that of the best seed",
        "environments": envs,
        "settings": {name: repr(value) for name, value in settings.items()},
        "mean_return_of_100_episodes_by_seed": {str(seed): value for seed, value in scores.items()},
        "seed": best,
        "seed_of_recording": RECORDING,
        "returns": [trajectory.episode_return for trajectory in trajectories],
        "packages": package_versions(),
        "machine": describe_machine(),
    }
    path = save_shipped(out, task, trajectories, about)
    mean = np.mean(about["returns"])
    seconds = time.perf_counter() - start
    print(f"{path}: mean return {mean:.1f}, by seed {scores}, {path.stat().st_size} bytes, {seconds:.0f} s", flush=True)


def train(task: str, seed: int) -> BaseAlgorithm:
    """Train one expert; the model of its best evaluation is returned."""
    algorithm, envs, steps, settings = RECIPES[task]
    make: Any = algorithm
    model = make("MlpPolicy", make_vec_env(task, envs, seed=seed), seed=seed, device="cpu", **settings)
    watching = make_vec_env(task, 1, seed=CHOOSING)
    with tempfile.TemporaryDirectory() as folder:
        every = max(steps // 40 // envs, 1)
        model.learn(
            steps,
            callback=EvalCallback(
                watching, n_eval_episodes=20, eval_freq=every, best_model_save_path=folder, verbose=0
            ),
        )
        best: BaseAlgorithm = algorithm.load(Path(folder) / "best_model.zip")
    print(f"{task}, seed {seed}: trained", flush=True)
    return best


def score(model: BaseAlgorithm, task: str, seed: int, episodes: int) -> float:
    """Mean return of whole episodes."""
    mean, _ = evaluate_policy(model, make_vec_env(task, 1, seed=seed), n_eval_episodes=episodes)
    assert not isinstance(mean, list)
    return float(mean)


if __name__ == "__main__":
    main()
