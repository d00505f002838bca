"""What each half of AIME's phase 2 is worth: warm start only, ELBO only (the paper's form), and both.

"both" is the default; without its action prior, nothing but the evidence follows the warm start.

The variants of one seed share their world model, data and evaluation episodes; further agents may stand beside them.
One line of JSON for each policy is appended to ``--out``, and a cell (name, seed, policy) that stands there already is
not computed again.

    python benchmarks/ablation.py reach-v3 --seeds 0 1 2
    python benchmarks/ablation.py walker-walk --play buffer/ --demos expert/ --agents bco bc --eval-episodes 20
    python benchmarks/ablation.py --table results/ablation.jsonl
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from aime_gym.agents import AIMEAgent
from aime_gym.experiments.agent_spec import AgentSpec, train
from aime_gym.experiments.config import DataConfig
from aime_gym.experiments.data import derived_seeds, prepare_data
from aime_gym.experiments.evaluation import Score, evaluate, evaluate_random
from aime_gym.experiments.provenance import describe_machine
from aime_gym.tasks import TaskConfig

VARIANTS = ("warm start only", "ELBO only", "both")


def main() -> None:
    """Read the command line and run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env_id", nargs="?", default="reach-v3")
    parser.add_argument("--modality", choices=("position", "state"), default="position")
    parser.add_argument("--play", default="play")
    parser.add_argument("--play-episodes", type=int)
    parser.add_argument("--demos", default="expert")
    parser.add_argument("--demo-count", type=int)
    parser.add_argument("--agents", nargs="*", default=[], help="agents beside AIME, as in `aime-gym compare`")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--eval-episodes", type=int, default=50)
    parser.add_argument("--model-updates", type=int, default=3000)
    parser.add_argument("--policy-updates", type=int, default=1000, help="of `both`")
    parser.add_argument("--scratch-updates", type=int, default=2000, help="of `ELBO only`")
    parser.add_argument("--name", help="of the cell in the table; the task's unless given")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ablation.jsonl"))
    parser.add_argument("--table", type=Path, help="print the table of a file, and run nothing")
    options = parser.parse_args()
    if options.table:
        print_table(options.table)
        return
    torch.set_num_threads(options.threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        run_seed(options, seed)


def run_seed(options: argparse.Namespace, seed: int) -> None:
    """Train and evaluate what the file does not have for a seed."""
    task = TaskConfig(options.env_id, options.modality)
    name = options.name or str(task)
    done = {(cell["name"], cell["seed"], cell["policy"]) for cell in read(options.out)}
    missing = [policy for policy in (*options.variants, *options.agents) if (name, seed, policy) not in done]
    if not missing:
        return
    seeds = derived_seeds(seed)
    needs_actions = any(AgentSpec.parse(text).reads_actions for text in options.agents)
    config = DataConfig(options.play, options.play_episodes, options.demos, options.demo_count)
    data = prepare_data(task, config, seeds=seeds, demo_actions=needs_actions)
    play, demos = data.recordings(progress=False)
    with_expert = {"expert_return": float(np.mean([demo.episode_return for demo in demos]))}

    def keep(policy: str, score: Score, seconds: float | None) -> None:
        cell = {
            "name": name,
            "task": str(task),
            "seed": seed,
            "policy": policy,
            "return": score.mean,
            "std": score.std,
            "success": score.success_rate,
            "train_seconds": seconds,
            "episodes": len(score.returns),
            "play": options.play,
            "demos": options.demos,
            "updates": [options.model_updates, options.policy_updates, options.scratch_updates],
            "play_episodes": len(play),
            "demonstrations": len(demos),
            "threads": options.threads,
            "machine": describe_machine(),
            **with_expert,
        }
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(cell) + "\n")
        print(json.dumps({key: cell[key] for key in ("name", "seed", "policy", "return", "success", "train_seconds")}))

    with task.make() as env:
        if (name, seed, "random") not in done:
            keep("random", evaluate_random(env, options.eval_episodes, seed=seeds["evaluation"]), None)
        for agent_text in (policy for policy in missing if policy in options.agents):
            agent = AgentSpec.parse(agent_text).build(task, env, seed)
            seconds = train(agent, play, demos, progress=False)
            keep(agent_text, evaluate(agent, env, options.eval_episodes, seed=seeds["evaluation"]), seconds)
        variants = [policy for policy in missing if policy in VARIANTS]
        if not variants:
            return
        start = time.perf_counter()
        pretrained = AIMEAgent(env, seed=seed, model_updates=options.model_updates).pretrain(play, progress_bar=False)
        shared = time.perf_counter() - start
        stored = io.BytesIO()
        pretrained.save(stored)
        changes = {
            "warm start only": {"policy_updates": 0},
            "ELBO only": {
                "warm_start": False,
                "action_prior": False,
                "continue_latents": False,
                "policy_updates": options.scratch_updates,
            },
            "both": {"policy_updates": options.policy_updates},
        }
        for variant in variants:
            stored.seek(0)
            agent = AIMEAgent.load(stored, env=env, **changes[variant])
            start = time.perf_counter()
            agent.imitate([demo.without_actions() for demo in demos], progress_bar=False)
            seconds = shared + time.perf_counter() - start
            keep(variant, evaluate(agent, env, options.eval_episodes, seed=seeds["evaluation"]), seconds)


def read(path: Path) -> list[dict]:
    """Read the cells of a results file; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def print_table(path: Path) -> None:
    """Print each policy of each task: mean over seeds, and their range."""
    groups: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for cell in read(path):
        groups[cell["name"], cell["policy"]].append(cell)
    table = Table("task", "policy", "seeds", "return", "% of expert (range)", "success", "train s")
    for (name, policy), cells in groups.items():
        percent = [100 * cell["return"] / cell["expert_return"] for cell in cells]
        success = [cell["success"] for cell in cells if cell["success"] is not None]
        seconds = [cell["train_seconds"] for cell in cells if cell["train_seconds"] is not None]
        table.add_row(
            name,
            policy,
            str(len(cells)),
            f"{np.mean([cell['return'] for cell in cells]):.0f}",
            f"{np.mean(percent):.1f} ({min(percent):.1f} to {max(percent):.1f})",
            f"{np.mean(success):.2f}" if success else "",
            f"{np.mean(seconds):.0f}" if seconds else "",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
