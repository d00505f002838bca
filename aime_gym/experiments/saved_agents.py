"""Saved agents and stored data: a diagnosis of an agent's file, a video of its beliefs, inferred actions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from aime_gym.agents.base import ImitationAgent
from aime_gym.agents.registry import load_agent
from aime_gym.analysis.diagnosis_report import Diagnosis
from aime_gym.data import frame_shape, load_trajectories
from aime_gym.experiments.data import first_of, load_for_task
from aime_gym.serialization import write_text
from aime_gym.types import Trajectory


def diagnose_saved(path: Path, demos: str, play: str, *, demo_count: int | None = None) -> Diagnosis:
    """Diagnose a saved agent; see `AIMEAgent.diagnose`.

    :param path: the agent's file.
    :param demos: data that [`aime_gym.data.load_trajectories`][] accepts; so is ``play``.
    :param demo_count: number of demonstrations, the first ones; ``None`` for all.
    :raises FileNotFoundError: no agent or no data there.
    :raises ValueError: an agent without a world model, or data that does not fit it.
    """
    agent, trajectories = _load(path, "diagnose", demos)
    return agent.diagnose(first_of(trajectories, demo_count, "demo_count", demos), play)


def render_beliefs_of_saved(path: Path, demos: str, out: Path, **view: Any) -> Path:
    """Write a video of a saved agent's beliefs; see `AIMEAgent.render_beliefs`.

    :param path: the agent's file.
    :param demos: data that [`aime_gym.data.load_trajectories`][] accepts.
    :param out: the video's file.
    :param view: the other arguments of ``render_beliefs``.
    :raises FileNotFoundError: no agent or no data there.
    :raises ValueError: an agent without a world model or images, or data that does not fit it.
    """
    agent, trajectories = _load(path, "render_beliefs", demos)
    return agent.render_beliefs(trajectories, out, **view)


def label_by_saved(
    path: Path, demos: str, *, demo_count: int | None = None, resize: bool = False
) -> tuple[ImitationAgent, list[Trajectory]]:
    """Return a saved agent, and demonstrations with the actions that it infers; see `ImitationAgent.infer_actions`.

    Each episode says how it ends: where the demonstrations do not, it was cut there.

    :param path: the agent's file.
    :param demos: data that [`aime_gym.data.load_trajectories`][] accepts.
    :param demo_count: number of demonstrations, the first ones; ``None`` for all.
    :param resize: whether videos of another size are resized to what the agent sees.
    :raises FileNotFoundError: no agent or no data there.
    :raises ValueError: an agent that has learnt nothing yet, or data that does not fit it.
    """
    agent = load_agent(path)
    if agent.known_task is None:
        loaded = _load_shown(agent, demos, resize)
    else:  # which says at what rate videos are, and how sensors are joined
        task = agent.known_task.config
        loaded = load_for_task(task, demos, argument="demos", actions=False, resize=resize, progress=True)
    labelled = agent.infer_actions(first_of(loaded, demo_count, "demo_count", demos))
    return agent, [replace(trajectory, truncated=not trajectory.terminated) for trajectory in labelled]


def _load(path: Path, verb: str, demos: str) -> tuple[Any, list[Trajectory]]:
    agent = load_agent(path)
    if not hasattr(agent, verb):
        raise ValueError(f"path: expected an agent with a world model, got {type(agent).__name__} in {path}")
    return agent, _load_shown(agent, demos)


def _load_shown(agent: ImitationAgent, demos: str, resize: bool = False) -> list[Trajectory]:
    shape = frame_shape(agent.observation_space)
    return load_trajectories(demos, argument="demos", frame_shape=shape, resize=resize, progress=True)


def write_diagnosis(report: Diagnosis, out: Path) -> list[Path]:
    """Write ``diagnosis.json`` and ``diagnosis.png``, and return what was written."""
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "diagnosis.json", out / "diagnosis.png"]
    write_text(files[0], json.dumps(report.to_dict(), indent=1) + "\n")
    report.figure(files[1])
    return files
