"""Train the world model and record the demonstrations of reach-v3 that the package ships.

The demo's task: a robot arm, seen as positions, with play that knows nothing of the task. Writes
``reach-v3.safetensors`` for ``AIMEAgent(env, world_model="pretrained/reach-v3")``, ``reach-v3.npz`` for
``imitate("metaworld/reach-v3")``, and beside each a JSON file that says how it was made.

    python benchmarks/pretrained.py
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

import aime_gym
from aime_gym.agents import AIMEAgent
from aime_gym.data.shipped import FOLDER, save_shipped
from aime_gym.experiments.provenance import describe_machine, package_versions
from aime_gym.models.pretrained import SHIPPED
from aime_gym.serialization import file_digest, write_text

TASK, MODALITY = "reach-v3", "position"
#: Seeds of play and of demonstrations; the goals of the two, and of the documentation's evaluations, differ.
PLAY_SEED, DEMO_SEED = 1_000_000, 3_000_000


def main() -> None:
    """Read the command line, record, train, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--play", type=int, default=600, help="episodes of play")
    parser.add_argument("--demos", type=int, default=20, help="demonstrations")
    parser.add_argument("--seed", type=int, default=0, help="seed of the agent")
    parser.add_argument("--models", type=Path, default=SHIPPED, help="folder of the world model")
    parser.add_argument("--demonstrations", type=Path, default=FOLDER / "metaworld", help="folder of demonstrations")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with aime_gym.make_env(TASK, modality=MODALITY) as env:
        demos = aime_gym.collect(env, "expert", options.demos, seed=DEMO_SEED, progress=False)
        play = aime_gym.collect(env, "play", options.play, seed=PLAY_SEED)
        about = {
            "task": TASK,
            "modality": MODALITY,
            "made_by": "benchmarks/pretrained.py",
            "packages": package_versions(),
            "machine": describe_machine(),
        }
        recorded = {
            "expert": "Meta-World's script",
            "seed_of_recording": DEMO_SEED,
            "returns": [demo.episode_return for demo in demos],
        }
        save_shipped(options.demonstrations, TASK, demos, about | recorded)
        start = time.process_time()
        agent = AIMEAgent(env, seed=options.seed)
        agent.pretrain(play)
    path = options.models / f"{TASK}.safetensors"
    agent.save_world_model(path)
    trained = {
        "play_episodes": options.play,
        "seed_of_play": PLAY_SEED,
        "seed": options.seed,
        "cpu_seconds": round(time.process_time() - start),
        "digest": file_digest(path),
    }
    write_text(path.with_suffix(".json"), json.dumps(about | trained, indent=1) + "\n")
    print(f"{path}: {path.stat().st_size} bytes, {trained['cpu_seconds']} CPU seconds", flush=True)


if __name__ == "__main__":
    main()
