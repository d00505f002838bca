"""A comparison of agents: a suite of one task and one seed, run in this process, whose agents are kept."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from aime_gym.agents.registry import load_agent
from aime_gym.experiments.agent_spec import AgentSpec
from aime_gym.experiments.cells import Cell, Suite, SuiteTask, as_file_name
from aime_gym.experiments.config import DEMONSTRATIONS, DataConfig
from aime_gym.experiments.experts import prepare_expert
from aime_gym.experiments.figures import draw_returns
from aime_gym.experiments.provenance import describe_machine, package_versions
from aime_gym.experiments.report import print_tables, run_table
from aime_gym.experiments.results import Run, load_results
from aime_gym.experiments.runner import PLAN, RESULTS, CheckedSuite, Outcome, check_idle, check_task, run_suite
from aime_gym.experiments.video import VideoPolicy, record_video
from aime_gym.serialization import write_text
from aime_gym.tasks import TaskConfig

_DOCUMENT, _FIGURE = "results.json", "returns.png"
#: Folder of the data that cells share, while they run.
_DATA = ".data"


def comparison_suite(
    task: TaskConfig, agents: Sequence[AgentSpec], data: DataConfig, *, eval_episodes: int = 50, seed: int = 0
) -> Suite:
    """Return the suite of one task, some agents and one seed.

    Its agents have their names as labels, as long as no two share one.

    :param agents: agents to compare; the first one is in the video.
    :param eval_episodes: number of episodes in which every policy is evaluated.
    :param seed: seed of everything: recording, training and evaluation draw from seeds that follow from it.
    :raises ValueError: no agent, an agent twice, or numbers below their bounds.
    """
    if not agents:
        raise ValueError("agents: expected at least one, got none")
    twice = sorted(label for label, count in Counter(spec.label for spec in agents).items() if count > 1)
    if twice:
        raise ValueError(f"agents: expected each one once, got {', '.join(twice)} again")
    count = data.demo_count or (DEMONSTRATIONS if data.records_demos else None)
    suite_task = SuiteTask(task.env_id, task, replace(data, demo_count=None), eval_episodes, seed)
    names = Counter(spec.name for spec in agents)
    labels = [spec.name if names[spec.name] == 1 else spec.label for spec in agents]
    cells = [Cell(suite_task, label, spec, count, seed) for label, spec in zip(labels, agents, strict=True)]
    return Suite(task.env_id, (suite_task,), tuple(labels), tuple(cells))


def check_comparison(suite: Suite) -> CheckedSuite:
    """Check the environment, the agents and the data of a comparison, before any work.

    :raises ValueError: values that do not fit, by name.
    :raises FileNotFoundError: data or a model that is not there.
    """
    return CheckedSuite(suite, check_task(suite.tasks[0], suite.cells, {}, progress=True))


def check_folder(out: Path) -> None:
    """Check that a folder holds no other benchmark: a comparison replaces the files of the one before it.

    :raises ValueError: a folder with another benchmark.
    """
    if (out / RESULTS).exists() and not (out / _DOCUMENT).exists():
        raise ValueError(f"out: expected a new folder, or that of another comparison, got a benchmark's: {out}")


def run_comparison(
    checked: CheckedSuite, out: Path, *, video_episodes: int = 3, progress: bool = True
) -> dict[str, Any]:
    """Run a comparison, print its table, and write its files.

    Writes ``results.json`` and, line by line, ``results.jsonl``; ``returns.png``, ``<agent>.zip`` for each agent,
    ``expert.zip`` for an expert trained here, and ``<first agent>.mp4``. Ctrl-C ends the work: finished agents are
    reported, and a half-trained one is kept as ``<agent>-interrupted.zip``. The files of an earlier comparison are
    removed.

    :param video_episodes: number of the evaluation's episodes in the video; 0 for no video.
    :return: the content of ``results.json``.
    :raises ValueError: a folder with another benchmark, or in which another run works.
    """
    check_folder(out)
    start = time.perf_counter()
    console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=not progress)
    check_idle(out)
    _remove_previous(out)
    out.mkdir(parents=True, exist_ok=True)
    suite = checked.suite
    video = out / f"{as_file_name(suite.agents[0])}.mp4"
    names = [_DOCUMENT, RESULTS, PLAN, *_agent_files((*suite.agents, "expert")), _FIGURE, video.name]

    def write(outcome: Outcome) -> dict[str, Any]:
        document = _document(suite, _load_runs(out), outcome) | {
            "seconds": time.perf_counter() - start,
            "files": [name for name in names if name == _DOCUMENT or (out / name).exists()],
        }
        write_text(out / _DOCUMENT, json.dumps(document, indent=1) + "\n")
        return document

    write(Outcome(cells=len(suite.agents)))
    data = out / _DATA
    try:
        outcome = run_suite(checked, out, workers=None, data=data, keep=out, progress=progress, after_job=write)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    if outcome.interrupted:
        console.print("interrupted: reporting what is finished")
    write(outcome)
    runs = _load_runs(out)
    if runs:
        task = suite.tasks[0]
        title = f"{task.config}, {task.eval_episodes} episodes each"
        print_tables(run_table(runs, title))
        draw_returns(runs, title, out / _FIGURE)
        if video_episodes:
            console.print(f"video: {video_episodes} episodes", markup=False)
            try:
                _record_video(task, runs, out, video, video_episodes)
            except (Exception, KeyboardInterrupt) as error:  # renderers fail in many ways, and the results are there
                video.unlink(missing_ok=True)
                console.print(f"no video, all else is done: {error or 'interrupted'}", markup=False)
                outcome.interrupted |= isinstance(error, KeyboardInterrupt)
    document = write(outcome)
    console.print(f"wrote {', '.join(str(out / name) for name in document['files'])}", markup=False)
    return document


def _agent_files(labels: Iterable[str]) -> list[str]:
    return [f"{as_file_name(label)}{suffix}.zip" for label in labels for suffix in ("", "-interrupted")]


def _remove_previous(out: Path) -> None:
    """Remove the files of an earlier comparison, which beside new ones would pass for them.

    Those that it says it wrote, and those that it wrote since, if it was killed.
    """
    try:
        document = json.loads((out / _DOCUMENT).read_text(encoding="utf-8"))
        if document["format"] != 1:
            return
        labels = [*document["not_finished"], *(policy["policy"] for policy in document["policies"])]
        videos = [f"{as_file_name(label)}.mp4" for label in labels]
        files = [*document["files"], *_agent_files(labels), *videos, _FIGURE]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in files:
        if isinstance(name, str) and Path(name).name == name:
            (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / _DATA, ignore_errors=True)


def _load_runs(out: Path) -> list[Run]:
    """Return the references and the agents that are finished; none before the first agent is."""
    try:
        results = load_results([out])
    except (ValueError, FileNotFoundError):
        return []
    return [*results.references[results.tasks[0]], *results.runs]


def _document(suite: Suite, runs: Sequence[Run], outcome: Outcome) -> dict[str, Any]:
    task = suite.tasks[0]
    finished = [run.policy for run in runs]
    return {
        "format": 1,
        "task": task.config.as_json(),
        "eval_episodes": task.eval_episodes,
        "seed": task.data_seed,
        "seeds": task.seeds,
        "data": {
            name: {"source": run.record["data"][name], **about}
            for run in runs
            for name, about in run.record.get("trajectories", {}).items()
            if about is not None
        },
        "policies": [_policy(run) for run in runs],
        "not_finished": [label for label in suite.agents if label not in finished],
        "failed": outcome.failed,
        "interrupted": outcome.interrupted,
        "machine": describe_machine(),
        "packages": package_versions(),
    }


def _policy(run: Run) -> dict[str, Any]:
    """Return all that is known of a policy, each episode included."""
    details = (
        ("expert", "modality") if run.role == "expert" else ("name", "options", "configuration", "updates", "file")
    )
    return {
        "policy": run.policy,
        "role": run.role,
        "success_rate": run.success,
        "return_mean": run.score,
        "return_std": run.std,
        "normalised_return": run.normalised,
        "percent_of_expert": run.percent,
        "train_seconds": run.train_seconds,
        **{name: run.record.get(name) for name in ("eval_seconds", "returns", "lengths", "successes")},
        **{name: run.record[name] for name in details if name in run.record},
    }


def _record_video(task: SuiteTask, runs: Sequence[Run], out: Path, path: Path, episodes: int) -> None:
    """Record the expert and the first agent side by side."""
    first = next(run for run in runs if run.role in ("agent", "oracle"))
    agent = load_agent(out / first.record["file"])
    policies = [VideoPolicy(first.policy, task.config, lambda env: agent)]
    if task.data.needs_expert:
        trained = out / "expert.zip"
        name = f"{(task.data.expert or '').partition(':')[0]}:{trained}" if trained.exists() else task.data.expert
        expert = prepare_expert(name, task.config, task.data_seed)
        policies.insert(0, VideoPolicy("expert", expert.task, expert.policy))
    record_video(path, policies, episodes=episodes, seed=task.seeds["evaluation"])
