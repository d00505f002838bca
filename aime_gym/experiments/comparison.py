"""A comparison of agents: a suite of one task and one seed, run in this process, whose agents are kept."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from annotated_types import Ge
from rich.console import Console

from aime_gym.agents.registry import load_agent
from aime_gym.experiments.agent_spec import AgentSpec
from aime_gym.experiments.config import DEMONSTRATIONS, DataConfig, Positive, TaskConfig, check_bounds
from aime_gym.experiments.data import derived_seeds
from aime_gym.experiments.experts import prepare_expert
from aime_gym.experiments.figures import draw_returns
from aime_gym.experiments.jobs import as_file_name
from aime_gym.experiments.provenance import describe_machine, package_versions
from aime_gym.experiments.report import run_table
from aime_gym.experiments.results import Run, load_results
from aime_gym.experiments.runner import PLAN, RESULTS, CheckedSuite, Outcome, check_task, run_suite
from aime_gym.experiments.suite import Cell, Suite, SuiteTask
from aime_gym.experiments.video import VideoPolicy, record_video
from aime_gym.serialization import atomically

_DOCUMENT, _FIGURE = "results.json", "returns.png"
_DEFAULT_AGENTS = (AgentSpec("aime"), AgentSpec("bco"), AgentSpec("bc"))


@dataclass(frozen=True)
class Comparison:
    """One task, one set of data, some agents.

    :param agents: the first one is in the video.
    :param eval_episodes: episodes in which every policy is evaluated.
    :param video_episodes: how many of these the video shows; 0 for no video.
    :param seed: of everything: recording, training and evaluation draw from seeds that follow from it.
    """

    task: TaskConfig
    agents: tuple[AgentSpec, ...] = _DEFAULT_AGENTS
    data: DataConfig = field(default_factory=DataConfig)
    eval_episodes: Positive = 50
    video_episodes: Annotated[int, Ge(0)] = 3
    seed: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        if not self.agents:
            raise ValueError("agents: expected at least one, got none")
        check_bounds(self)
        twice = sorted(label for label, count in Counter(spec.label for spec in self.agents).items() if count > 1)
        if twice:
            raise ValueError(f"agents: expected each one once, got {', '.join(twice)} again")

    @property
    def suite(self) -> Suite:
        """The suite of this task alone: its agents have their names as labels, as long as no two share one."""
        count = self.data.demo_count or (DEMONSTRATIONS if self.data.records_demos else None)
        data = replace(self.data, demo_count=None)  # a number of the cells
        task = SuiteTask(self.task.env_id, self.task, data, self.eval_episodes, self.seed)
        names = Counter(spec.name for spec in self.agents)
        labels = [spec.name if names[spec.name] == 1 else spec.label for spec in self.agents]
        cells = [Cell(task, label, spec, count, self.seed) for label, spec in zip(labels, self.agents, strict=True)]
        return Suite(self.task.env_id, (task,), tuple(labels), tuple(cells))


@dataclass(frozen=True)
class PreparedComparison:
    """A comparison whose every input has been checked; :func:`run` does the work."""

    comparison: Comparison
    checked: CheckedSuite


def prepare(comparison: Comparison) -> PreparedComparison:
    """Check all that the user chose, before any work.

    :raises ValueError: what does not fit, by name. So do the other errors of what it calls.
    """
    suite = comparison.suite
    return PreparedComparison(comparison, CheckedSuite(suite, check_task(suite.tasks[0], suite.cells, progress=True)))


def check_folder(out: Path) -> None:
    """Check that a folder holds no other benchmark: a comparison replaces the files of the one before it.

    :raises ValueError: it does.
    """
    if (out / RESULTS).exists() and not (out / _DOCUMENT).exists():
        raise ValueError(f"out: expected a new folder, or that of another comparison, got a benchmark's: {out}")


def run(prepared: PreparedComparison, out: Path, *, progress: bool = True) -> dict[str, Any]:
    """Do the work of a comparison, print its table, and write its files.

    Writes ``results.json`` and, line by line, ``results.jsonl``; ``returns.png``, ``<agent>.zip`` for each agent,
    ``expert.zip`` for an expert trained here, and ``<first agent>.mp4``. Ctrl-C ends the work: what was finished is
    reported, and a half-trained agent is kept as ``<agent>-interrupted.zip``. An earlier comparison's files go.

    :return: the content of ``results.json``.
    """
    check_folder(out)
    comparison = prepared.comparison
    start = time.perf_counter()
    console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=not progress)
    _remove_previous(out)
    out.mkdir(parents=True, exist_ok=True)
    labels = [*prepared.checked.suite.agents, "expert"]
    video = out / f"{as_file_name(labels[0])}.mp4"
    agents = [f"{as_file_name(label)}{suffix}.zip" for label in labels for suffix in ("", "-interrupted")]
    names = [_DOCUMENT, RESULTS, PLAN, *agents, _FIGURE, video.name]
    outcome = Outcome(len(comparison.agents))

    def write() -> dict[str, Any]:
        runs = _load_runs(out)
        document = _document(comparison, runs, outcome) | {
            "seconds": time.perf_counter() - start,
            "files": [name for name in names if name == _DOCUMENT or (out / name).exists()],
        }
        with atomically(out / _DOCUMENT) as file:
            file.write(json.dumps(document, indent=1).encode() + b"\n")
        return document

    with TemporaryDirectory(dir=out, prefix=".data-") as data:
        options: dict[str, Any] = {"workers": None, "data": Path(data), "keep": out, "progress": progress}
        outcome = run_suite(prepared.checked, out, **options, after_job=write)
    if outcome.interrupted:
        console.print("interrupted: reporting what is finished")
    write()
    runs = _load_runs(out)
    if runs:
        title = f"{comparison.task}, {comparison.eval_episodes} episodes each"
        tables = Console()
        tables.width = tables.width if tables.is_terminal else 130
        tables.print(run_table(runs, title))
        draw_returns(runs, title, out / _FIGURE)
        if comparison.video_episodes:
            outcome.interrupted |= _record_video(comparison, runs, out, video, console)
    document = write()
    console.print(f"wrote {', '.join(str(out / name) for name in document['files'])}", markup=False)
    return document


def _remove_previous(out: Path) -> None:
    """Remove the files that an earlier comparison says it wrote: beside new ones they would pass for them."""
    try:
        document = json.loads((out / _DOCUMENT).read_text(encoding="utf-8"))
        files = document["files"] if document["format"] == 1 else []
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in files:
        if isinstance(name, str) and Path(name).name == name:
            (out / name).unlink(missing_ok=True)


def _load_runs(out: Path) -> list[Run]:
    """Return the references and the agents that are finished; none before the first agent is."""
    try:
        results = load_results([out])
    except (ValueError, FileNotFoundError):
        return []
    return [*results.references[results.tasks[0]], *results.runs]


def _document(comparison: Comparison, runs: list[Run], outcome: Outcome) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for run in runs:
        for name, about in run.record.get("trajectories", {}).items():
            if about is not None:
                data[name] = {"source": run.record["data"][name], **about}
    finished = [run.policy for run in runs]
    return {
        "format": 1,
        "task": asdict(comparison.task),
        "eval_episodes": comparison.eval_episodes,
        "seed": comparison.seed,
        "seeds": derived_seeds(comparison.seed),
        "data": data,
        "policies": [_policy(run) for run in runs],
        "not_finished": [label for label in comparison.suite.agents if label not in finished],
        "failed": outcome.failed,
        "interrupted": outcome.interrupted,
        "machine": describe_machine(),
        "packages": package_versions(),
    }


def _policy(run: Run) -> dict[str, Any]:
    """Return all that is known of a policy, each episode included."""
    record = run.record
    details = ("expert", "modality") if run.role == "expert" else ("options", "configuration", "updates", "file")
    return {
        "policy": run.policy,
        "role": run.role,
        "success_rate": run.success,
        "return_mean": run.score,
        "return_std": run.std,
        "normalised_return": run.normalised,
        "percent_of_expert": run.percent,
        "train_seconds": run.train_seconds,
        "evaluation_seconds": record.get("eval_seconds"),
        **({"agent": record["name"]} if "name" in record else {}),
        **{name: record[name] for name in details if name in record},
        "returns": record["returns"],
        "lengths": record["lengths"],
        "successes": record["successes"],
    }


def _record_video(comparison: Comparison, runs: list[Run], out: Path, path: Path, console: Console) -> bool:
    """Record the expert and the first agent side by side, and return whether Ctrl-C came.

    Renderers fail in many ways, and none is worth the results.
    """
    first = next(run for run in runs if run.role in ("agent", "oracle"))
    data = comparison.data
    console.print(f"video: {comparison.video_episodes} episodes", markup=False)
    try:
        agent = load_agent(out / first.record["file"])
        policies = [VideoPolicy(first.policy, comparison.task, lambda env: agent)]
        if data.needs_expert:
            trained = out / "expert.zip"
            name = f"{(data.expert or '').partition(':')[0]}:{trained}" if trained.exists() else data.expert
            expert = prepare_expert(name, comparison.task, comparison.seed)
            policies.insert(0, VideoPolicy("expert", expert.task, expert.policy))
        seed = derived_seeds(comparison.seed)["evaluation"]
        record_video(path, policies, episodes=comparison.video_episodes, seed=seed)
    except (Exception, KeyboardInterrupt) as error:
        path.unlink(missing_ok=True)
        console.print(f"no video, all else is done: {error or 'interrupted'}", markup=False)
        return isinstance(error, KeyboardInterrupt)
    return False
