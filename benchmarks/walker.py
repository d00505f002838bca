"""The Walker table of AIME's paper: play of six kinds, demonstrations of three tasks, positions and states.

Play and demonstrations are folders as `aime-gym collect` writes them, with one array per sensor: tasks of both
modalities read the same ones. `convert` makes them of recordings: of each task or kind, `FOLDER/walker-NAME-buffer.npz`
is play and `FOLDER/walker-NAME-expert.npz` are demonstrations. Their arrays are over episodes and records: ``obs``
(E, T + 1, 24), orientations 14, height 1, velocity 9; ``pre_action`` (E, T + 1, 6), what led to each record, and
``reward`` (E, T + 1), what came with it; both are zero in the first record.

    python benchmarks/walker.py convert recordings --out runs/walker
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aime_gym.data import save_minari
from aime_gym.envs import make_env
from aime_gym.types import Array, Trajectory

#: Names of recordings, and of the folders that they become.
PLAY, DEMOS = "play", "demos"
FOLDERS = {"buffer": PLAY, "expert": DEMOS}


def main() -> None:
    """Read the command line and run one of the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(required=True)

    convert_parser = steps.add_parser("convert", help="play and demonstrations from .npz recordings")
    convert_parser.add_argument("folder", type=Path)
    convert_parser.add_argument("--out", type=Path, default=Path("runs/walker"))
    convert_parser.set_defaults(step=convert)
    options = parser.parse_args()
    options.step(options)


def convert(options: argparse.Namespace) -> None:
    """Write a folder for each recording that has none yet."""
    for path in sorted(options.folder.glob("walker-*.npz")):
        _, name, kind = path.stem.split("-")
        with np.load(path) as file:
            arrays = [file[array] for array in ("obs", "pre_action", "reward")]
        episodes = [
            Trajectory(by_sensor(observations), actions[1:], rewards[1:], truncated=True)
            for observations, actions, rewards in zip(*arrays, strict=True)
        ]
        save(options.out / f"{FOLDERS[kind]}-{name}", name, episodes)


def by_sensor(observations: Array) -> dict[str, Array]:
    """Split observations (..., 24) as the simulator names their parts."""
    orientations, height, velocity = np.split(observations, [14, 15], axis=-1)
    return {"orientations": orientations, "height": height, "velocity": velocity}


def save(folder: Path, policy: str, episodes: Sequence[Trajectory]) -> None:
    """Write a folder of play or demonstrations, unless it is there."""
    if folder.exists():
        print(f"{folder}: exists already")
        return
    with make_env("walker-walk", flatten=False) as env:
        save_minari(folder, episodes, env, metadata={"policy": policy})
    mean = np.mean([episode.episode_return for episode in episodes])
    print(f"{folder}: {len(episodes)} episodes, mean return {mean:.1f}", flush=True)


if __name__ == "__main__":
    main()
