"""The Walker table of AIME's paper: play of six kinds, demonstrations of three tasks, positions and states.

    python benchmarks/walker.py record --out runs/walker
    aime-gym benchmark benchmarks/suites/walker.toml --out runs/walker-results
    python benchmarks/walker.py table runs/walker-results

Play and demonstrations are folders as `aime-gym collect` writes them, with one array per sensor: tasks of both
modalities read the same ones. `record` makes them with SB3's SAC and the package's Explorer; what is there already is
not made again. `convert` makes them of recordings:

    python benchmarks/walker.py convert recordings --out runs/walker

Of each task or kind, `recordings/walker-NAME-buffer.npz` is play and `recordings/walker-NAME-expert.npz` are
demonstrations. Their arrays are over episodes and records: ``obs`` (E, T + 1, 24), orientations 14, height 1,
velocity 9; ``pre_action`` (E, T + 1, 6), what led to each record, and ``reward`` (E, T + 1), what came with it; both
are zero in the first record.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.noise import NormalActionNoise

from aime_gym.agents.explorer import Explorer
from aime_gym.data import collect, save_minari
from aime_gym.data.recording import EpisodeRecorder
from aime_gym.envs import make_env
from aime_gym.experiments.results import Results, Run, load_results
from aime_gym.types import Array, Trajectory

TASKS = ("stand", "walk", "run")
#: Kinds of play, in the order of the paper's table; mix is all of them but run.
PLAYS = ("random", "explore", *TASKS, "mix")
#: Names of recordings, and what is made of them.
FOLDERS = {"buffer": "play", "expert": "demos"}
PAPER = Path(__file__).parent / "papers" / "walker.toml"
#: Standard deviation of the noise that is added to an agent's actions while it learns, as Dreamer's collection has it.
ACTION_NOISE = 0.3
#: Decisions in an episode, at action repeat 2.
EPISODE_STEPS = 500


def main() -> None:
    """Read the command line and run one of the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(required=True)

    record_parser = steps.add_parser("record", help="play and demonstrations, with SAC and an Explorer")
    record_parser.add_argument("--kinds", nargs="+", choices=PLAYS[:-1], default=PLAYS[:-1])
    record_parser.add_argument("--episodes", type=int, default=500, help="of each agent's training")
    record_parser.add_argument("--random-episodes", type=int, default=1000)
    record_parser.add_argument("--demonstrations", type=int, default=120, help="of the trained agent")
    record_parser.add_argument("--seed", type=int, default=0)
    record_parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    record_parser.add_argument("--out", type=Path, default=Path("runs/walker"))
    record_parser.set_defaults(step=record)

    convert_parser = steps.add_parser("convert", help="play and demonstrations from .npz recordings")
    convert_parser.add_argument("folder", type=Path)
    convert_parser.add_argument("--out", type=Path, default=Path("runs/walker"))
    convert_parser.set_defaults(step=convert)

    table_parser = steps.add_parser("table", help="results of the suite beside the paper's, as Markdown")
    table_parser.add_argument("results", type=Path, nargs="+", help="folders of `aime-gym benchmark`")
    table_parser.set_defaults(step=print_table)
    options = parser.parse_args()
    options.step(options)


# Play and demonstrations


def record(options: argparse.Namespace) -> None:
    """Record each kind of play that has no folder yet, and demonstrations with the play of a task."""
    torch.set_num_threads(options.threads)
    for kind in options.kinds:
        folder = options.out / f"play-{kind}"
        if folder.exists():
            print(f"{folder}: exists already")
        elif kind == "random":
            with make_env("walker-walk", flatten=False) as env:
                save(folder, kind, collect(env, "random", options.random_episodes, seed=options.seed))
        elif kind == "explore":
            with make_env("walker-walk") as env:
                explorer = Explorer(env, seed=options.seed, updates_per_step=0.1, imagination_starts=256)
                save(folder, kind, explorer.explore(options.episodes))
        else:
            record_task(options, kind)


def record_task(options: argparse.Namespace, task: str) -> None:
    """Train SAC on a task's state: its training is play, and the trained agent demonstrates."""
    with _KeepEpisodes(make_env(f"walker-{task}")) as env:
        mean = np.zeros(env.action_space.shape)
        noise = NormalActionNoise(mean, mean + ACTION_NOISE)
        model = SAC(
            "MlpPolicy",
            env,
            learning_rate=5e-4,
            train_freq=2,
            policy_kwargs={"optimizer_kwargs": {"fused": True}},
            action_noise=noise,
            seed=options.seed,
        )
        model.learn(options.episodes * EPISODE_STEPS, progress_bar=True)
        save(options.out / f"play-{task}", f"sac, learning to {task}", env.episodes)
    with make_env(f"walker-{task}") as env:
        save(options.out / f"demos-{task}", "sac", collect(env, model, options.demonstrations, seed=options.seed + 1))


class _KeepEpisodes(gym.Wrapper):
    """Environment that keeps its complete episodes."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.episodes: list[Trajectory] = []

    def reset(self, **options: Any) -> Any:
        observation, info = super().reset(**options)
        self._episode = EpisodeRecorder(observation)
        return observation, info

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        self._episode.add(action, reward, observation)
        if terminated or truncated:
            self.episodes.append(self._episode.trajectory(terminated=terminated, truncated=truncated))
        return observation, reward, terminated, truncated, info


def convert(options: argparse.Namespace) -> None:
    """Write a folder for each recording that has none yet."""
    for path in sorted(options.folder.glob("walker-*.npz")):
        _, name, kind = path.stem.split("-")
        with np.load(path) as file:
            arrays = [file[array] for array in ("obs", "pre_action", "reward")]
        episodes = [
            Trajectory(observations, actions[1:], rewards[1:], truncated=True)
            for observations, actions, rewards in zip(*arrays, strict=True)
        ]
        save(options.out / f"{FOLDERS[kind]}-{name}", name, episodes)


def save(folder: Path, policy: str, episodes: Sequence[Trajectory]) -> None:
    """Write a folder of play or demonstrations, with one array per sensor, unless it is there."""
    if folder.exists():
        print(f"{folder}: exists already")
        return
    by_sensor = [replace(episode, observations=split(episode.observations)) for episode in episodes]
    with make_env("walker-walk", flatten=False) as env:
        save_minari(folder, by_sensor, env, metadata={"policy": policy})
    mean = np.mean([episode.episode_return for episode in episodes])
    print(f"{folder}: {len(episodes)} episodes, mean return {mean:.1f}", flush=True)


def split(observations: Array | dict[str, Array]) -> dict[str, Array]:
    """Name the parts of observations (..., 24) as the simulator does."""
    if isinstance(observations, dict):
        return observations
    orientations, height, velocity = np.split(observations, [14, 15], axis=-1)
    return {"orientations": orientations, "height": height, "velocity": velocity}


# The table

#: Mean percent of the expert's return and minutes of training of a cell, by play and demonstrations.
_Cells = Mapping[tuple[str, str], tuple[float, float]]


def print_table(options: argparse.Namespace) -> None:
    """Print the results of the suite."""
    print("\n".join(table_lines(load_results(options.results), tomllib.loads(PAPER.read_text(encoding="utf-8")))))


def table_lines(results: Results, paper: Mapping[str, Any]) -> Iterator[str]:
    """Yield Markdown: an overview, and a matrix for each agent and modality.

    :param paper: percent by agent, modality and play, in the order of `TASKS`.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in results.runs:
        groups.setdefault((run.policy, run.record["env"]["modality"]), []).append(run)
    names = {run.policy: run.record["name"] for run in results.runs}
    matrices = {group: _cells(runs) for group, runs in groups.items()}
    papers = {(agent, modality): paper.get(names[agent], {}).get(modality, {}) for agent, modality in groups}
    yield "Percent of the expert's return (the paper's)."
    yield from _rows("agent", ("modality", "cells", "mean", "minutes per cell"))
    for (agent, modality), cells in matrices.items():
        percent, minutes = np.mean(list(cells.values()), axis=0)
        theirs = [value for row in papers[agent, modality].values() for value in row]
        mean = _beside(percent, float(np.mean(theirs)) if theirs else None)
        yield _row(agent, modality, str(len(cells)), mean, f"{minutes:.1f}")
    for (agent, modality), cells in matrices.items():
        yield f"\n{agent}, {modality}"
        yield from _rows("play", [f"demonstrations of {task}" for task in TASKS])
        for play in ("", *PLAYS):
            ours = [cells.get((play, task), (None, None))[0] for task in TASKS]
            theirs = papers[agent, modality].get(play, [None] * len(TASKS))
            if any(value is not None for value in ours):
                yield _row(play or "none", *map(_beside, ours, theirs))


def _cells(runs: Sequence[Run]) -> _Cells:
    """Return the means over the seeds of each cell."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for run in runs:
        task = run.record["env"]["env_id"].removeprefix("walker-")
        if run.percent is not None and run.train_seconds is not None:
            play = run.task.partition("/")[2]
            found.setdefault((play, task), []).append((run.percent, run.train_seconds / 60))
    return {cell: tuple(np.mean(values, axis=0)) for cell, values in found.items()}


def _rows(first: str, columns: Sequence[str]) -> Iterator[str]:
    yield ""
    yield _row(first, *columns)
    yield _row(*["---"] * (1 + len(columns)))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _beside(ours: float | None, paper: float | None) -> str:
    """Return a figure, and the paper's where it has one."""
    text = "" if ours is None else f"{ours:.0f}"
    return text if paper is None else f"{text} ({paper:.0f})".strip()


if __name__ == "__main__":
    main()
