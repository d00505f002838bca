"""Results of a suite, finished or not: its records as runs, and the numbers of a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aime_gym.config import import_extra, nearest_names
from aime_gym.experiments.evaluation import Score
from aime_gym.experiments.records import RESULTS, read_folder, read_records, results_files
from aime_gym.experiments.runner import PLAN
from aime_gym.experiments.statistics import (
    Estimate,
    Profile,
    estimates,
    interquartile_mean,
    normalise,
    performance_profile,
    probability_of_improvement,
)
from aime_gym.types import Array

Record = dict[str, Any]
Role = Literal["random", "expert", "agent", "oracle"]


@dataclass(frozen=True)
class Run:
    """One trained agent, or one of the references.

    :param policy: label of the agent; with the number of demonstrations where there are several.
    :param role: random and expert are references; an oracle is an agent that sees the demonstrations' actions.
    :param score: mean return.
    :param normalised: score on the scale where 0 is random and 1 the expert; ``None`` where a reference is missing or
        both are equal.
    :param percent: score in percent of the expert's; ``None`` where that is not positive.
    :param success: share of successful episodes, where the task says.
    :param train_seconds: seconds of all phases; of pretraining that runs have in common, each one has its share.
    :param curve: environment steps and mean return of each evaluation in the middle of training.
    :param record: line of the results' file.
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
    eval_seconds: float | None
    curve: tuple[tuple[int, float], ...]
    record: Record = field(repr=False, compare=False)

    @property
    def std(self) -> float:
        """Standard deviation of the return over the episodes."""
        return float(np.std(self.record["returns"]))


@dataclass(frozen=True)
class Results:
    """Runs of results files.

    :param sources: folders or files that were read.
    :param runs: runs of agents.
    :param policies: labels of the agents, in the order of the suites.
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
        rows = [[scores[seed] for scores in by_task] for seed in seeds]
        rows = [row for row in rows if None not in row]
        return np.array(rows, dtype=float) if rows else None

    @property
    def progress(self) -> str:
        """Finished, missing and failed cells, in words."""
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
    agents: list[str] = []
    planned: dict[str, str] = {}
    for path in paths:
        if not (path.is_file() or results_files(path)):
            raise FileNotFoundError(f"results: expected a folder of `aime-gym benchmark` or its {RESULTS}, got {path}")
        found = read_folder(path) if path.is_dir() else read_records(path)
        if (path / PLAN).is_file():
            plan = json.loads((path / PLAN).read_text(encoding="utf-8"))
            titles = {cell["key"]: cell["title"] for cell in plan["cells"]}
            found = [record for record in found if record["what"] != "cell" or record["key"] in titles]
            planned |= titles
            agents += plan["agents"]
        records |= {(record["what"], record["key"]): record for record in found}
    cells = {
        (record["task"], record["agent"], record["demonstrations"], record["seed"]): record
        for (what, _), record in records.items()
        if what == "cell" and record["status"] == "done"
    }
    if not cells:
        raise ValueError(f"results: expected at least one finished cell, found none in {', '.join(map(str, paths))}")
    # In the order of the suites, not of finishing.
    places = {key: place for place, key in enumerate(planned)}
    ordered = sorted(cells.values(), key=lambda record: places.get(record["key"], len(places)))
    labels = _labels(ordered, agents)
    runs = []
    references: dict[str, list[Run]] = {}
    for record in ordered:
        known = {what: _scored(records.get((what, record[what]))) for what in ("random", "expert")}
        means = {what: float(np.mean(found["returns"])) for what, found in known.items() if found is not None}
        label = labels[record["agent"], record["demonstrations"]]
        runs.append(_run(record, label, "oracle" if record["oracle"] else "agent", means))
        if record["task"] not in references:
            references[record["task"]] = [
                _run(found, _reference_label(found), what, means)  # type: ignore[arg-type]
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


def _labels(cells: Sequence[Record], order: Sequence[str]) -> dict[tuple[str, int | None], str]:
    """Return names of policies: agents, and numbers of demonstrations where one of them has several."""
    agents = list(dict.fromkeys([*order, *(record["agent"] for record in cells)]))
    counts: dict[tuple[str, str], set[int | None]] = {}
    for record in cells:
        counts.setdefault((record["task"], record["agent"]), set()).add(record["demonstrations"])
    several = {agent for (_, agent), numbers in counts.items() if len(numbers) > 1}
    pairs = {(agent, count) for (_, agent), numbers in counts.items() for count in numbers}
    return {
        (agent, count): f"{agent}, {count} demos" if agent in several else agent
        for agent, count in sorted(pairs, key=lambda pair: (agents.index(pair[0]), pair[1] or 0))
    }


def _scored(record: Record | None) -> Record | None:
    return None if record is None or record["status"] != "done" or record["returns"] is None else record


def _reference_label(record: Record) -> str:
    demonstrated = record["what"] == "expert" and "expert" not in record
    return f"{record['what']}{' (demonstrations)' * demonstrated}"


def _title(record: Record) -> str:
    if record["what"] == "pretraining":
        return f"{record['task']}, {record['agent']}, pretraining, seed {record['seed']}"
    if record["what"] != "cell":
        return f"{record['task']}, {record['what']}"
    return f"{record['task']}, {record['agent']}, {record['demonstrations']} demonstrations, seed {record['seed']}"


def _run(record: Record, policy: str, role: Role, references: Mapping[str, float]) -> Run:
    score = float(np.mean(record["returns"]))
    expert = references.get("expert")
    successes = record.get("successes")
    return Run(
        record["task"],
        policy,
        role,
        record.get("seed"),
        score,
        normalise(score, references.get("random"), expert),
        None if expert is None or expert <= 0 else 100 * score / expert,
        None if successes is None else float(np.mean(successes)),
        _train_seconds(record),
        record.get("eval_seconds"),
        tuple((point["env_steps"], float(np.mean(point["returns"]))) for point in record.get("curve", ())),
        record,
    )


def _train_seconds(record: Record) -> float | None:
    seconds = record.get("train_seconds")
    return None if seconds is None else seconds + record.get("pretrain_share_seconds", 0.0)


def run_of_score(policy: str, role: Role, score: Score) -> Run:
    """Return the run of a policy that was evaluated beside nothing to normalise by."""
    return _run({"task": "", **asdict(score), "eval_seconds": score.seconds}, policy, role, {})


# Runs taken together


@dataclass(frozen=True)
class Line:
    """One policy on one task, or over all of them: a line of a table.

    :param runs: number of trained agents; 0 for a reference.
    :param mean: mean of the returns.
    :param std: standard deviation of the return over the episodes, where there is one run.
    :param normalised: mean of the normalised scores.
    :param iqm: interquartile mean of the normalised scores.
    """

    policy: str
    role: Role
    runs: int
    mean: Estimate | None = None
    std: float | None = None
    normalised: Estimate | None = None
    iqm: Estimate | None = None
    percent: float | None = None
    success: float | None = None
    train_seconds: float | None = None
    eval_seconds: float | None = None


@dataclass(frozen=True)
class Report:
    """All numbers of a report.

    :param tasks: lines of each task's table.
    :param common_tasks: tasks that ``over_tasks``, the profile and the improvements are about: those where every policy
        has a run.
    :param improvements: probability, by policy, that a run of it is better than one of ``against``.
    """

    results: Results
    tasks: Mapping[str, Sequence[Line]]
    common_tasks: Sequence[str]
    over_tasks: Sequence[Line]
    profile: Profile | None
    against: str
    improvements: Mapping[str, Estimate]


def summarise(results: Results, *, intervals: bool = False) -> dict[str, list[Line]]:
    """Return the lines of each task's agents.

    :param intervals: whether to estimate bootstrap intervals, which need rliable.
    """
    groups = {task: [results.of(task, policy) for policy in results.policies] for task in results.tasks}
    return {task: [summarise_runs(runs, intervals=intervals) for runs in groups[task] if runs] for task in groups}


def summarise_runs(runs: Sequence[Run], *, intervals: bool = False) -> Line:
    """Return the line of one policy on one task."""
    first = runs[0]

    def estimate(values: Sequence[float | None]) -> tuple[Estimate, Estimate] | tuple[None, None]:
        if None in values:
            return None, None
        scores = np.array(values, dtype=float)[:, None]
        if intervals:
            return estimates(scores)
        return Estimate(float(scores.mean())), Estimate(interquartile_mean(scores))

    def average(values: Sequence[float | None]) -> float | None:
        return None if None in values else float(np.mean(values))  # type: ignore[arg-type]

    count = 0 if first.role in ("random", "expert") else len(runs)
    mean, _ = estimate([run.score for run in runs])
    std = first.std if len(runs) == 1 else None
    normalised, iqm = estimate([run.normalised for run in runs])
    averages = {
        name: average([getattr(run, name) for run in runs])
        for name in ("percent", "success", "train_seconds", "eval_seconds")
    }
    return Line(first.policy, first.role, count, mean, std, normalised, iqm, **averages)


def analyse(results: Results, against: str | None = None) -> Report:
    """Compute the numbers of a report.

    :param against: label of the policy that the others are to improve on; the first one unless given.
    :raises ValueError: an unknown policy.
    :raises ImportError: rliable is not installed.
    """
    import_extra("rliable.library", "report", "a report needs rliable")
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
    over_tasks = []
    for policy, values in scores.items() if len(common) > 1 else ():
        normalised, iqm = estimates(values)
        over_tasks.append(Line(policy, roles[policy], len(values), normalised=normalised, iqm=iqm))
    improvements = {
        policy: probability_of_improvement(values, scores[against])
        for policy, values in scores.items()
        if policy != against and against in scores
    }
    profile = performance_profile(scores) if scores else None
    return Report(results, summarise(results, intervals=True), common, over_tasks, profile, against, improvements)


def report_as_json(report: Report) -> str:
    """Return all numbers of a report, but for single episodes."""
    numbers = asdict(report, dict_factory=lambda items: {name: value for name, value in items if name != "record"})
    references = report.results.references.items()
    document = {
        "format": 1,
        "references": {task: {run.role: run.score for run in runs} for task, runs in references},
        **numbers,
    }
    return json.dumps(document, indent=1, default=np.ndarray.tolist)
