"""When does the model behind the reward "viper" overfit? Figure 5 of AIME-v2 (arXiv 2404.18896).

One training on some demonstrations, stopped at a growing number of updates. At each stop, over whole episodes: how
often the model finds a demonstration likelier than a random episode, how its summed reward goes with the true return of
play of mixed quality, and the evidence of its own demonstrations and of others. One line of JSON for each stop is
appended to ``--out``; the figure shows the stops that it has.

    python benchmarks/viper.py walker-walk --play buffer/ --demos expert/
    python benchmarks/viper.py walker-walk --play buffer/ --demos expert/ --decay --updates 500
    python benchmarks/viper.py --figure viper.png --out benchmarks/results/viper.jsonl
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from stable_baselines3.common.logger import Logger

from aime_gym.agents import AIMEAgent
from aime_gym.data import TrajectoryDataset, collect
from aime_gym.experiments.config import DataConfig
from aime_gym.experiments.data import derived_seeds, prepare_data
from aime_gym.experiments.provenance import describe_machine
from aime_gym.model_based.surrogate_rewards import ViperReward, symlog
from aime_gym.models.config import WorldModelConfig
from aime_gym.tasks import TaskConfig
from aime_gym.training.callbacks import UpdateCallbacks
from aime_gym.training.loop import TrainingLoop
from aime_gym.types import Trajectory

#: Episodes of random actions that demonstrations are held against.
RANDOM_EPISODES = 20
#: What the figure shows over the stops: panels, and the names and labels of their curves.
_CURVES = {
    "correlation with the return of play": {
        "pearson": "Pearson",
        "spearman": "Spearman",
        "spearman_lower_half": "Spearman, lower half of play",
    },
    "share of pairs": {
        "held_out_above_random": "held out above random",
        "held_out_above_play": "held out above play",
        "failing_above_middling": "failing above middling play",
    },
    "evidence of a record in nats": {"evidence_fitted": "fitted", "evidence_held_out": "held out"},
}


def main() -> None:
    """Read the command line, fit and measure, or draw what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env_id", nargs="?", default="walker-walk")
    parser.add_argument("--modality", choices=("position", "state"), default="position")
    parser.add_argument("--play", default="play", help="with returns of all sizes: an RL agent's replay buffer")
    parser.add_argument("--play-episodes", type=int)
    parser.add_argument("--demos", default="expert")
    parser.add_argument("--demo-count", type=int, default=10, help="to fit the model to")
    parser.add_argument("--held-out", type=int, default=20, help="demonstrations that it never sees")
    parser.add_argument("--width", type=int, default=128, help="of all layers of the model")
    parser.add_argument("--updates", type=int, nargs="+", default=[50, 100, 200, 500, 1000, 2000, 5000])
    parser.add_argument(
        "--decay",
        action="store_true",
        help="let the learning rate fall to zero, as learn does: a training for each stop",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/viper.jsonl"))
    parser.add_argument("--figure", type=Path, help="draw what --out holds, and run nothing")
    options = parser.parse_args()
    if options.figure:
        draw(read(options.out), options.figure)
        return
    torch.set_num_threads(options.threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    run(options)


def run(options: argparse.Namespace) -> None:
    """Fit the model, and measure it at each stop."""
    task, seeds = TaskConfig(options.env_id, options.modality), derived_seeds(options.seed)
    config = DataConfig(options.play, options.play_episodes, options.demos, options.demo_count + options.held_out)
    play, demos = prepare_data(task, config, seeds=seeds).recordings(progress=False)
    assert play is not None
    fitted, held_out = demos[: options.demo_count], demos[options.demo_count :]
    width = options.width
    model = WorldModelConfig(deter=width, hidden=width, decoder_hidden=width)
    with task.make() as env:
        random = collect(env, "random", RANDOM_EPISODES, seed=seeds["evaluation"], progress=False)

        def measure(reward: ViperReward, updates: int) -> None:
            kinds = {"play": play, "fitted": fitted, "held out": held_out, "random": random}
            line = {
                "task": str(task),
                "seed": options.seed,
                "updates": updates,
                "decay": options.decay,
                "demonstrations": len(fitted),
                "width": width,
                **figures({kind: scores(reward, episodes) for kind, episodes in kinds.items()}, play),
                "threads": options.threads,
                "machine": describe_machine(),
            }
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps({name: value for name, value in line.items() if isinstance(value, int | float)}))

        for stops in [[stop] for stop in options.updates] if options.decay else [options.updates]:
            agent = AIMEAgent(env, seed=options.seed, world_model=model, decay_learning_rate=options.decay)
            agent.world_model.fit_standardizers(TrajectoryDataset(play, None).observations)
            fit_with_stops(agent, fitted, stops, measure)


def fit_with_stops(agent: AIMEAgent, demos: list[Trajectory], stops: list[int], measure: Any) -> None:
    """One training, as ``learn`` begins with, that is measured on its way."""
    reward = ViperReward(agent.world_model, agent.device)

    def stop(now: dict[str, Any], _: object) -> None:
        if now["updates"] in stops:
            measure(reward, now["updates"])

    with UpdateCallbacks(stop, agent) as callbacks:
        loop = TrainingLoop(agent, Logger(None, []), agent.generator, progress_bar=False, update_callbacks=callbacks)
        reward.fit(TrajectoryDataset(demos, None), loop, replace(agent.config, reward_updates=max(stops)))


def scores(reward: ViperReward, episodes: list[Trajectory]) -> dict[str, np.ndarray]:
    """Summed reward, and mean evidence of a record in nats, of each episode (N,)."""
    dataset = TrajectoryDataset([episode.without_actions() for episode in episodes], None)
    evidence = dataset.per_trajectory(reward.evidence(dataset))
    # As its labels are, but for all episodes at once.
    rewards = [symlog(part[1:]).sum() for part in evidence]
    means = [part.mean() for part in evidence]
    return {name: torch.stack(v).cpu().numpy() for name, v in (("reward", rewards), ("evidence", means))}


def figures(scored: dict[str, dict[str, np.ndarray]], play: list[Trajectory]) -> dict[str, Any]:
    """What the scores of each kind of episodes say."""
    returns = np.array([episode.episode_return for episode in play])
    rewards = {kind: score["reward"] for kind, score in scored.items()}
    lower = returns < np.median(returns)
    return {
        "pearson": correlation(returns, rewards["play"]),
        "spearman": correlation(ranks(returns), ranks(rewards["play"])),
        "spearman_lower_half": correlation(ranks(returns[lower]), ranks(rewards["play"][lower])),
        "fitted_above_random": above(rewards["fitted"], rewards["random"]),
        "held_out_above_random": above(rewards["held out"], rewards["random"]),
        "held_out_above_play": above(rewards["held out"], rewards["play"]),
        "failing_above_middling": failing_above_middling(returns, rewards["play"]),
        **{f"evidence_{kind.replace(' ', '_')}": float(score["evidence"].mean()) for kind, score in scored.items()},
        "returns": returns.round(1).tolist(),
        "rewards": {kind: values.round(1).tolist() for kind, values in rewards.items()},
    }


def failing_above_middling(returns: np.ndarray, rewards: np.ndarray) -> float:
    """Share of pairs in which play that hardly does anything has a higher reward than play on its way to the task.

    The local maximum that the paper blames on overfitting: what demonstrations begin with is likely, too.
    """
    progress = (returns - returns.min()) / np.ptp(returns)
    return above(rewards[progress < 0.1], rewards[(progress > 0.15) & (progress < 0.6)])


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's."""
    return float(np.corrcoef(first, second)[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    """The place of each value in their order; no two summed rewards are alike."""
    return values.argsort().argsort()


def above(first: np.ndarray, second: np.ndarray) -> float:
    """Share of pairs in which the first is greater: 0.5 for chance."""
    return float((first[:, None] > second).mean())


def read(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a results file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Summed reward against true return at each stop of the one training, and how the measures move with the stops."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    stops = sorted((line for line in lines if not line["decay"]), key=lambda line: line["updates"])
    decayed = sorted((line for line in lines if line["decay"]), key=lambda line: line["updates"])
    columns = len(stops)
    figure = plt.figure(figsize=(2.3 * columns, 6.4), layout="constrained")
    above_, below = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    panels = above_.subplots(1, columns, squeeze=False)[0]
    for panel, line in zip(panels, stops, strict=True):
        rewards = line["rewards"]
        panel.scatter(line["returns"], rewards["play"], s=6, alpha=0.5, label="play")
        for kind, color in (("fitted", "tab:green"), ("held out", "tab:orange"), ("random", "tab:red")):
            panel.axhline(np.mean(rewards[kind]), color=color, linewidth=1.5, label=f"mean, {kind}")
        title = f"{line['updates']} updates\nPearson {line['pearson']:.2f}, Spearman {line['spearman']:.2f}"
        panel.set_title(title, fontsize=8)
        panel.set_xlabel("true return")
        panel.tick_params(labelsize=7)
    panels[0].set_ylabel("summed VIPER reward")
    above_.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9)

    for axis, (title, curves) in zip(below.subplots(1, len(_CURVES)), _CURVES.items(), strict=True):
        for name, label in curves.items():
            (curve,) = axis.plot([s["updates"] for s in stops], [s[name] for s in stops], marker="o", label=label)
            axis.plot([s["updates"] for s in decayed], [s[name] for s in decayed], "x", color=curve.get_color(), ms=9)
        axis.set_xscale("log")
        if title == "share of pairs":
            axis.set_ylim(-0.03, 1.03)
        axis.set_xlabel("updates" + " (x: learning rate decayed to zero)" * bool(decayed))
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
