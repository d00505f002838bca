"""Results of a suite, finished or not: its records as runs, and all that a report says of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aime_gym.config import nearest_names
from aime_gym.experiments.evaluation import Score
from aime_gym.experiments.records import read_records
from aime_gym.experiments.runner import PLAN, RESULTS
from aime_gym.experiments.statistics import (
    Estimate,
    Profile,
    estimates,
    interquartile_mean,
    normalise,
    performance_profile,
    probability_of_improvement,
    require_rliable,
)
from aime_gym.types import Array

Record = dict[str, Any]
Role = Literal["random", "expert", "agent", "oracle"]


@dataclass(frozen=True)
class Run:
    """One trained agent, or one of the references.

    :param policy: the agent's label; with the number of demonstrations where there are several.
    :param role: references are random and expert; an oracle is an agent that sees the demonstrations' actions.
    :param score: mean return.
    :param normalised: (score - random) / (expert - random); ``None`` where a reference is missing or both are equal.
    :param percent: of the expert; ``None`` where that is not positive.
    :param success: share of successful episodes, where the task says.
    :param record: all that was measured.
    """

    task: str
    policy: str
    role: Role
    seed: int | None
    score: float
    normalised: float | None
    percent: float | None
    success: float | None
    train_seconds: float | None
    curve: tuple[tuple[int, float], ...]
    record: Record = field(repr=False, compare=False)

    @property
    def std(self) -> float:
        """Standard deviation of the return over the episodes."""
        return float(np.std(self.record["returns"]))

    def to_dict(self) -> dict[str, Any]:
        """Return the run as JSON."""
        return {name: value for name, value in vars(self).items() if name != "record"}


@dataclass(frozen=True)
class Results:
    """Runs of results files.

    :param runs: of agents.
    :param policies: in the order of the suites.
    :param references: random and expert on each task, as the first run there has them.
    :param missing: titles of cells that are planned and have not been tried.
    :param failed: errors by title.
    """

    sources: tuple[str, ...]
    runs: tuple[Run, ...]
    policies: tuple[str, ...]
    references: Mapping[str, Sequence[Run]]
    missing: tuple[str, ...]
    failed: Mapping[str, str]

    @property
    def tasks(self) -> list[str]:
        """The tasks with runs, in the order of the files."""
        return list(dict.fromkeys(run.task for run in self.runs))

    def of(self, task: str, policy: str) -> list[Run]:
        """Return the runs of one policy on one task."""
        return [run for run in self.runs if (run.task, run.policy) == (task, policy)]

    def matrix(self, policy: str, tasks: Sequence[str]) -> Array | None:
        """Return normalised scores ``(runs, tasks)`` of the seeds that a policy has on all tasks, if there are any."""
        by_task = [{run.seed: run.normalised for run in self.of(task, policy)} for task in tasks]
        seeds = sorted(set.intersection(*map(set, by_task))) if by_task else []  # type: ignore[type-var]
        scores = [[scores[seed] for scores in by_task] for seed in seeds]
        rows = [row for row in scores if None not in row]
        return np.array(rows, dtype=float) if rows else None

    @property
    def progress(self) -> str:
        """How much of the plan is there, in words."""
        parts = [f"{len(self.runs)} runs"]
        parts += [f"{len(self.missing)} to come"] if self.missing else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        return ", ".join(parts)


def load_results(paths: Sequence[Path]) -> Results:
    """Read results, also those of a suite that is still running.

    Of two results for the same task, agent, number of demonstrations and seed, the later one counts.

    :param paths: folders of `aime-gym benchmark` and `compare`, or their files of results. In a folder, only cells that
        its suite still has count.
    :raises FileNotFoundError: no results there.
    :raises ValueError: a damaged file, or no finished cell.
    """
    records: dict[tuple[str, str], Record] = {}
    order: list[str] = []
    planned: dict[str, str] = {}
    for path in paths:
        found, plan = _read(path)
        wanted = None if plan is None else {cell["key"] for cell in plan["cells"]}
        records |= {
            (record["what"], record["key"]): record
            for record in found
            if wanted is None or record["what"] != "cell" or record["key"] in wanted
        }
        if plan is not None:
            order += plan["agents"]
            planned |= {cell["key"]: cell["title"] for cell in plan["cells"]}
    cells = {
        (record["task"], record["agent"], record["demonstrations"], record["seed"]): record
        for (what, _), record in records.items()
        if what == "cell" and record["status"] == "done"
    }
    # In the order of the suites, whichever was finished first.
    places = {key: place for place, key in enumerate(planned)}
    cells = dict(sorted(cells.items(), key=lambda item: places.get(item[1]["key"], len(places))))
    if not cells:
        raise ValueError(f"results: expected at least one finished cell, found none in {', '.join(map(str, paths))}")
    labels = _labels(cells.values(), order)
    runs = []
    references: dict[str, list[Run]] = {}
    for record in cells.values():
        known = {what: _reference(records.get((what, record[what]))) for what in ("random", "expert")}
        means = {what: None if found is None else float(np.mean(found["returns"])) for what, found in known.items()}
        label = labels[record["agent"], record["demonstrations"]]
        runs.append(_run(record, label, "oracle" if record["oracle"] else "agent", means))
        if record["task"] not in references:
            references[record["task"]] = [
                _run(found, "random" if what == "random" else _expert_label(found), what, means)  # type: ignore[arg-type]
                for what, found in known.items()
                if found is not None
            ]
    return Results(
        tuple(map(str, paths)),
        tuple(runs),
        tuple(dict.fromkeys(labels.values())),
        references,
        tuple(title for key, title in planned.items() if ("cell", key) not in records),
        {_title(record): record["error"] for record in records.values() if record["status"] == "failed"},
    )


def _read(path: Path) -> tuple[list[Record], dict[str, Any] | None]:
    file = path / RESULTS if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"results: expected a folder of `aime-gym benchmark` or its {RESULTS}, got {path}")
    plan = path / PLAN
    return read_records(file), json.loads(plan.read_text(encoding="utf-8")) if plan.is_file() else None


def _labels(cells: Iterable[Record], order: Sequence[str]) -> dict[tuple[str, int], str]:
    """Return names of policies: agents, and numbers of demonstrations where one of them has several."""
    cells = list(cells)
    agents = list(dict.fromkeys([*order, *(record["agent"] for record in cells)]))
    pairs = sorted(
        {(record["agent"], record["demonstrations"]) for record in cells},
        key=lambda pair: (agents.index(pair[0]), pair[1] or 0),
    )
    by_task: dict[tuple[str, str], set[int]] = {}
    for record in cells:
        by_task.setdefault((record["task"], record["agent"]), set()).add(record["demonstrations"])
    several = {agent for (_, agent), counts in by_task.items() if len(counts) > 1}
    return {(agent, count): f"{agent}, {count} demos" if agent in several else agent for agent, count in pairs}


def _run(record: Record, policy: str, role: Role, references: Mapping[str, float | None]) -> Run:
    score = float(np.mean(record["returns"]))
    expert, successes = references["expert"], record.get("successes")
    return Run(
        record["task"],
        policy,
        role,
        record.get("seed"),
        score,
        normalise(score, references["random"], expert),
        None if expert is None or expert <= 0 else 100 * score / expert,
        None if successes is None else float(np.mean(successes)),
        record.get("train_seconds"),
        tuple((point["env_steps"], float(np.mean(point["returns"]))) for point in record.get("curve", ())),
        record,
    )


def run_of_score(policy: str, role: Role, score: Score) -> Run:
    """Return the run of a policy that was evaluated beside nothing to normalise by."""
    record = {"task": "", **asdict(score), "eval_seconds": score.seconds}
    return _run(record, policy, role, {"random": None, "expert": None})


def _reference(record: Record | None) -> Record | None:
    return None if record is None or record["status"] != "done" or record["returns"] is None else record


def _expert_label(record: Record) -> str:
    return "expert" if "expert" in record else "expert (demonstrations)"


def _title(record: Record) -> str:
    if record["what"] != "cell":
        return f"{record['task']}, {record['what']}"
    return f"{record['task']}, {record['agent']}, {record['demonstrations']} demonstrations, seed {record['seed']}"


# Runs taken together


@dataclass(frozen=True)
class Line:
    """One policy on one task, or over all of them.

    :param runs: trained agents behind it; 0 for a reference.
    :param mean: of the returns.
    :param std: of the returns of the episodes, where there is one run.
    :param normalised: mean of the normalised scores.
    :param iqm: interquartile mean of the normalised scores.
    """

    policy: str
    role: Role
    runs: int
    mean: Estimate | None
    std: float | None
    normalised: Estimate | None
    iqm: Estimate | None
    percent: float | None = None
    success: float | None = None
    train_seconds: float | None = None
    eval_seconds: float | None = None


@dataclass(frozen=True)
class Report:
    """Everything that is written.

    :param tables: by task.
    :param common: the tasks that ``over_tasks``, the profile and the improvements are about: those where every policy
        has a run.
    :param improvements: by policy, the probability that it beats ``against``.
    """

    results: Results
    tables: Mapping[str, Sequence[Line]]
    common: Sequence[str]
    over_tasks: Sequence[Line]
    profile: Profile | None
    against: str
    improvements: Mapping[str, Estimate]


def summarise(results: Results, *, intervals: bool = False) -> dict[str, list[Line]]:
    """Return the lines of each task's agents.

    :param intervals: with bootstrap intervals, which need rliable.
    """
    return {
        task: [
            summarise_runs(runs, intervals=intervals)
            for policy in results.policies
            if (runs := results.of(task, policy))
        ]
        for task in results.tasks
    }


def summarise_runs(runs: Sequence[Run], *, intervals: bool = False) -> Line:
    """Return the line of one policy on one task."""

    def estimate(values: list[float]) -> tuple[Estimate, Estimate]:
        scores = np.array(values)[:, None]
        if intervals:
            return estimates(scores)
        return Estimate(float(scores.mean())), Estimate(interquartile_mean(scores))

    known = [run.normalised for run in runs if run.normalised is not None]
    normalised, iqm = estimate(known) if len(known) == len(runs) else (None, None)
    first = runs[0]
    return Line(
        first.policy,
        first.role,
        0 if first.role in ("random", "expert") else len(runs),
        estimate([run.score for run in runs])[0],
        first.std if len(runs) == 1 else None,
        normalised,
        iqm,
        _average(run.percent for run in runs),
        _average(run.success for run in runs),
        _average(run.train_seconds for run in runs),
        _average(run.record.get("eval_seconds") for run in runs),
    )


def _average(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else float(np.mean(known))  # type: ignore[arg-type]


def analyse(results: Results, against: str | None = None) -> Report:
    """Work out all that a report says.

    :param against: the policy, or the agent, that the others are to improve on; the first one unless given.
    :raises ValueError: it is not there.
    :raises ImportError: rliable is not installed.
    """
    require_rliable()
    if against is None:
        against = results.policies[0]
    elif against not in results.policies:
        raise ValueError(f"against: unknown policy {against!r}; {nearest_names(against, results.policies)}")
    common = [
        task
        for task in results.tasks
        if all(any(run.normalised is not None for run in results.of(task, policy)) for policy in results.policies)
    ]
    matrices = {policy: results.matrix(policy, common) for policy in results.policies}
    scores = {policy: values for policy, values in matrices.items() if values is not None}
    roles = {run.policy: run.role for run in results.runs}
    over_tasks = [
        Line(policy, roles[policy], len(values), None, None, *estimates(values))
        for policy, values in scores.items()
        if len(common) > 1
    ]
    improvements = {
        policy: probability_of_improvement(values, scores[against])
        for policy, values in scores.items()
        if policy != against and against in scores
    }
    profile = performance_profile(scores) if scores else None
    return Report(results, summarise(results, intervals=True), common, over_tasks, profile, against, improvements)


def report_as_json(report: Report) -> dict[str, Any]:
    """Return all numbers of a report."""
    results, profile = report.results, report.profile
    shares = {} if profile is None else profile.shares
    references = {
        task: {what: next((run.score for run in runs if run.role == what), None) for what in ("random", "expert")}
        for task, runs in results.references.items()
    }
    return {
        "format": 1,
        "sources": results.sources,
        "references": references,
        "tasks": {task: [asdict(line) for line in lines] for task, lines in report.tables.items()},
        "common_tasks": report.common,
        "over_tasks": [asdict(line) for line in report.over_tasks],
        "improvement": {
            "against": report.against,
            "policies": {policy: asdict(estimate) for policy, estimate in report.improvements.items()},
        },
        "profile": profile
        and {
            "thresholds": profile.thresholds.tolist(),
            "policies": {
                policy: {"share": share.tolist(), "interval": profile.intervals[policy].tolist()}
                for policy, share in shares.items()
            },
        },
        "runs": [run.to_dict() for run in results.runs],
        "missing": results.missing,
        "failed": results.failed,
    }
