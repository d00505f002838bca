"""What is to be learnt of an agent that is a file, on data that are files: its diagnosis, and its beliefs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from aime_gym.agents.registry import load_agent
from aime_gym.analysis.diagnosis_report import Diagnosis
from aime_gym.data import frame_shape, load_trajectories
from aime_gym.data.video_writing import check_video_path
from aime_gym.types import Trajectory


def diagnose_file(path: str | os.PathLike[str], demos: Any, play: Any, *, demo_count: int | None = None) -> Diagnosis:
    """Diagnose a saved agent; see :meth:`aime_gym.agents.AIMEAgent.diagnose`.

    :param path: the agent's file.
    :param demos: whatever :func:`~aime_gym.data.load_trajectories` accepts; so is ``play``.
    :param demo_count: how many of the demonstrations to take; ``None`` for all.
    :raises FileNotFoundError: no agent or no data there.
    :raises ValueError: an agent without a world model, or data that does not fit it.
    """
    agent, shown = _agent_and_demos(path, "diagnose", demos, demo_count)
    return agent.diagnose(shown, play)


def render_beliefs_of_file(path: str | os.PathLike[str], demos: Any, out: Path, **view: Any) -> Path:
    """Write a video of what a saved agent believes; see :meth:`aime_gym.agents.AIMEAgent.render_beliefs`.

    :param path: the agent's file.
    :param demos: whatever :func:`~aime_gym.data.load_trajectories` accepts.
    :param out: the video's file.
    :param view: the other arguments of ``render_beliefs``.
    :raises FileNotFoundError: no agent or no data there.
    :raises ValueError: an agent without a world model or images, or data that does not fit it.
    """
    check_video_path(out, "out")
    agent, shown = _agent_and_demos(path, "render_beliefs", demos, None)
    return agent.render_beliefs(shown, out, **view)


def _agent_and_demos(
    path: str | os.PathLike[str], verb: str, demos: Any, demo_count: int | None
) -> tuple[Any, list[Trajectory]]:
    if demo_count is not None and demo_count < 1:
        raise ValueError(f"demo_count: expected at least 1, got {demo_count}")
    agent = load_agent(os.fspath(path))
    if not hasattr(agent, verb):
        raise ValueError(f"path: expected an agent with a world model, got {type(agent).__name__} in {path}")
    shown = load_trajectories(demos, argument="demos", frame_shape=frame_shape(agent.observation_space), progress=True)
    return agent, shown[:demo_count]


def write_diagnosis(report: Diagnosis, out: Path) -> list[Path]:
    """Write ``diagnosis.json`` and ``diagnosis.png``, and return what was written."""
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "diagnosis.json", out / "diagnosis.png"]
    files[0].write_text(json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8")
    report.figure(files[1])
    return files
