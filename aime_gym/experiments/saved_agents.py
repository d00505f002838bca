"""Saved agents and stored data: a diagnosis of an agent's file, and a video of its beliefs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aime_gym.agents.registry import load_agent
from aime_gym.analysis.diagnosis_report import Diagnosis
from aime_gym.data import frame_shape, load_trajectories
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
    return agent.diagnose(trajectories[:demo_count], play)


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


def _load(path: Path, verb: str, demos: str) -> tuple[Any, list[Trajectory]]:
    agent = load_agent(path)
    if not hasattr(agent, verb):
        raise ValueError(f"path: expected an agent with a world model, got {type(agent).__name__} in {path}")
    shape = frame_shape(agent.observation_space)
    return agent, load_trajectories(demos, argument="demos", frame_shape=shape, progress=True)


def write_diagnosis(report: Diagnosis, out: Path) -> list[Path]:
    """Write ``diagnosis.json`` and ``diagnosis.png``, and return what was written."""
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "diagnosis.json", out / "diagnosis.png"]
    files[0].write_text(json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8")
    report.figure(files[1])
    return files
