r"""AIME on pixels, from video files: what is learnt on a processor within half an hour.

Play and demonstrations are recordings of an RL agent on a dm_control task, drawn anew: as memory-mapped images with
actions, and as video files without. Each agent learns from them, and its return stands beside those of random actions
and of the expert. A recording is a ``.npz`` of arrays over episodes and records: ``state`` (E, T + 1, Q), positions and
velocities of the simulator; ``pre_action`` (E, T + 1, A), what led to each; ``reward`` (E, T + 1).

    python benchmarks/pixels.py record walker-walk --steps 200000 --out recordings
    python benchmarks/pixels.py draw walker-stand --play recordings/walker-walk-buffer.npz \
        --expert recordings/walker-stand-expert.npz --size 32 --out drawn/walker-stand
    python benchmarks/pixels.py run walker-stand --data drawn/walker-stand --agents aime bco
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback

from aime_gym.data import load_trajectories, save_minari, save_videos
from aime_gym.experiments.agent_spec import AgentSpec
from aime_gym.experiments.evaluation import evaluate, evaluate_random
from aime_gym.experiments.provenance import describe_machine
from aime_gym.tasks import TaskConfig
from aime_gym.types import Array, Trajectory
from aime_gym.wrappers import rendering_of


def main() -> None:
    """Read the command line, and record, draw or run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(required=True)

    record_parser = steps.add_parser("record", help="train SAC on the state; keep its training and some episodes")
    record_parser.add_argument("task")
    record_parser.add_argument("--steps", type=int, default=200_000)
    record_parser.add_argument("--episodes", type=int, default=120, help="of the trained agent")
    record_parser.add_argument("--seed", type=int, default=0)
    record_parser.add_argument("--out", type=Path, required=True)
    record_parser.set_defaults(step=record)

    draw_parser = steps.add_parser("draw", help="recordings as images and videos")
    draw_parser.add_argument("task")
    draw_parser.add_argument("--play", type=Path, required=True)
    draw_parser.add_argument("--play-episodes", type=int, help="evenly over the recording (default: all)")
    draw_parser.add_argument("--expert", type=Path, required=True)
    draw_parser.add_argument("--demo-count", type=int, default=40)
    draw_parser.add_argument("--size", type=int, default=32)
    draw_parser.add_argument("--out", type=Path, required=True)
    draw_parser.set_defaults(step=draw)

    run_parser = steps.add_parser("run", help="train agents on what was drawn, and evaluate them")
    run_parser.add_argument("task")
    run_parser.add_argument("--data", type=Path, required=True)
    run_parser.add_argument("--play", type=Path, nargs="+", help="datasets of play (default: that of --data)")
    run_parser.add_argument("--size", type=int, default=32)
    run_parser.add_argument("--demo-count", type=int)
    run_parser.add_argument("--agents", nargs="+", default=["aime", "bco"], metavar="AGENT[:OPTION=VALUE,...]")
    run_parser.add_argument("--episodes", type=int, default=20, help="of the evaluation")
    run_parser.add_argument("--seed", type=int, default=0)
    run_parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    run_parser.add_argument("--beliefs", type=Path, help="write a video of what a world model believes")
    run_parser.add_argument("--save", type=Path, help="folder for the trained agents")
    run_parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pixels.jsonl"))
    run_parser.set_defaults(step=run)
    options = parser.parse_args()
    options.step(options)


# Recording


class _KeepEpisodes(BaseCallback):
    """What an agent does while it learns: states of the simulator, actions and rewards, by episodes."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__()
        self.physics = _physics(env)
        self.episodes: list[list[tuple[Array, Array, float]]] = [[]]

    def _on_training_start(self) -> None:
        self._begin()

    def _on_step(self) -> bool:
        # At an episode's end the VecEnv has reset the simulator already: the last state is lost.
        if self.locals["dones"][0]:
            self.episodes.append([])
            self._begin()
        else:
            action = self.locals["actions"][0]
            self.episodes[-1].append((self.physics.get_state().copy(), action, float(self.locals["rewards"][0])))
        return True

    def _begin(self) -> None:
        self.episodes[-1].append((self.physics.get_state().copy(), np.zeros(self.model.action_space.shape), 0.0))


def record(options: argparse.Namespace) -> None:
    """Train SAC, and write ``TASK-buffer.npz`` and ``TASK-expert.npz``."""
    options.out.mkdir(parents=True, exist_ok=True)
    with TaskConfig(options.task, "state").make() as env:
        model = SAC("MlpPolicy", env, seed=options.seed)
        training = _KeepEpisodes(env)
        model.learn(options.steps, callback=training, progress_bar=True)
        _write(options.out / f"{options.task}-buffer.npz", training.episodes[:-1])
        episodes, physics = [], _physics(env)
        for index in range(options.episodes):
            observation, _ = env.reset(seed=options.seed + index)
            episode, done = [(physics.get_state().copy(), np.zeros(env.action_space.shape), 0.0)], False
            while not done:
                action, _ = model.predict(observation, deterministic=True)
                observation, reward, terminated, truncated, _ = env.step(action)
                episode.append((physics.get_state().copy(), action, float(reward)))
                done = terminated or truncated
            episodes.append(episode)
        _write(options.out / f"{options.task}-expert.npz", episodes)


def _write(path: Path, episodes: list[list[tuple[Array, Array, float]]]) -> None:
    states, actions, rewards = (
        np.array([[record[part] for record in episode] for episode in episodes], np.float32) for part in range(3)
    )
    np.savez_compressed(path, state=states, pre_action=actions, reward=rewards)
    print(f"{path}: {len(episodes)} episodes, mean return {rewards.sum(1).mean():.1f}")


# Drawing


def draw(options: argparse.Namespace) -> None:
    """Write ``OUT/play``, a Minari dataset of images with actions, and ``OUT/demos``, videos."""
    start = time.perf_counter()
    with _task(options).make() as env:
        play = _Drawn(env, options.play, options.play_episodes, evenly=True)
        save_minari(options.out / "play", play, env)
        demos = _Drawn(env, options.expert, options.demo_count, evenly=False)
        save_videos(options.out / "demos", list(demos), env, policy="expert")
    frames = (len(play) + len(demos)) * play.records
    print(f"{options.out}: {frames} frames in {time.perf_counter() - start:.0f} seconds")


class _Drawn(list[Trajectory]):
    """The episodes of a recording, as the environment shows them."""

    def __init__(self, env: gym.Env, path: Path, count: int | None, *, evenly: bool) -> None:
        with np.load(path) as file:
            recording = {name: file[name] for name in ("state", "pre_action", "reward")}
        total = len(recording["state"])
        count = min(count or total, total)
        chosen = np.linspace(0, total - 1, count).round().astype(int) if evenly else np.arange(count)
        self.records = recording["state"].shape[1]
        physics = _physics(env)
        env.reset(seed=0)
        for index in chosen:
            frames = []
            for state in recording["state"][index]:
                physics.set_state(state)
                physics.forward()
                frames.append(np.ascontiguousarray(env.render()))
            self.append(
                Trajectory(
                    np.stack(frames),
                    recording["pre_action"][index][1:],
                    recording["reward"][index][1:],
                    truncated=True,
                    rendering=rendering_of(env),
                )
            )


def _physics(env: gym.Env) -> Any:
    simulator: Any = env.unwrapped
    return simulator.physics


def _task(options: argparse.Namespace) -> TaskConfig:
    return TaskConfig(options.task, "pixels", image_size=options.size, quality="fast")


# Running


def run(options: argparse.Namespace) -> None:
    """Train, evaluate, and append a line of JSON for each policy."""
    torch.set_num_threads(options.threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    task = _task(options)
    play = options.play or [options.data / "play"]
    videos = sorted((options.data / "demos").glob("*.mp4"))[: options.demo_count]
    with task.make() as env:
        about = {
            "task": str(task),
            "image_size": options.size,
            "seed": options.seed,
            "play_episodes": len(load_trajectories(play)),
            "demonstrations": len(videos),
            "machine": describe_machine(),
        }
        seed = 1000 + options.seed
        _report(options.out, about | _figures("random", evaluate_random(env, options.episodes, seed=seed)))
        for text in options.agents:
            spec, start = AgentSpec.parse(text), time.perf_counter()
            agent = spec.build(task, env, options.seed)
            if agent.must_pretrain:  # not with the file of a world model
                agent.pretrain(play)
            agent.imitate(videos)
            seconds = time.perf_counter() - start
            score = evaluate(agent, env, options.episodes, seed=seed)
            _report(options.out, about | _figures(text, score) | {"training_seconds": round(seconds)})
            if options.save:
                options.save.mkdir(parents=True, exist_ok=True)
                agent.save(options.save / f"{spec.name}.zip")
                if hasattr(agent, "save_world_model"):
                    agent.save_world_model(options.save / f"{spec.name}.safetensors")
            if options.beliefs and hasattr(agent, "render_beliefs"):
                agent.render_beliefs(videos[:3], options.beliefs)


def _figures(policy: str, score: Any) -> dict[str, Any]:
    returns = np.asarray(score.returns)
    return {
        "policy": policy,
        "mean_return": round(float(returns.mean()), 1),
        "standard_error": round(float(returns.std(ddof=1) / np.sqrt(len(returns))), 1),
        "returns": returns.round(1).tolist(),
    }


def _report(path: Path, line: dict[str, Any]) -> None:
    print(json.dumps({name: line[name] for name in line if name not in ("machine", "returns")}), flush=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
