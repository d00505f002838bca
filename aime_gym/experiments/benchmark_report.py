"""The results of a benchmark, finished or not: tables, figures, and all numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table

from aime_gym.config import nearest_names
from aime_gym.experiments.benchmark import PLAN, RESULTS
from aime_gym.experiments.records import read_records
from aime_gym.experiments.statistics import (
    Estimate,
    Profile,
    Run,
    estimates,
    interquartile_mean,
    matrix,
    normalise,
    performance_profile,
    probability_of_improvement,
    require_rliable,
)

Record = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """What results files hold.

    :param policies: in the order of the suites.
    :param references: mean returns of random and expert on each task, as the first run there has them.
    :param missing: titles of cells that are planned and have not been tried.
    :param failed: errors by title.
    """

    sources: tuple[str, ...]
    runs: tuple[Run, ...]
    policies: tuple[str, ...]
    oracles: frozenset[str]
    references: Mapping[str, Mapping[str, float | None]]
    missing: tuple[str, ...]
    failed: Mapping[str, str]

    @property
    def tasks(self) -> list[str]:
        """Those with runs, in the order of the files."""
        return list(dict.fromkeys(run.task for run in self.runs))

    def of(self, task: str, policy: str) -> list[Run]:
        """The runs of one policy on one task."""
        return [run for run in self.runs if (run.task, run.policy) == (task, policy)]


def load_results(paths: Sequence[Path]) -> Results:
    """Read results, also those of a benchmark that is still running.

    Of two results for the same task, agent, number of demonstrations and seed, the later one counts.

    :param paths: folders of `aime-gym benchmark`, or their files of results. In a folder, only cells that its suite
        still has count.
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
    runs = tuple(_run(record, labels[record["agent"], record["demonstrations"]], records) for record in cells.values())
    references: dict[str, dict[str, float | None]] = {}
    for record in cells.values():
        references.setdefault(
            record["task"], {what: _mean(records.get((what, record[what]))) for what in ("random", "expert")}
        )
    return Results(
        tuple(map(str, paths)),
        runs,
        tuple(dict.fromkeys(labels.values())),
        frozenset(labels[record["agent"], record["demonstrations"]] for record in cells.values() if record["oracle"]),
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
    """Names of what is compared: agents, and numbers of demonstrations where one of them has several."""
    cells = list(cells)
    agents = list(dict.fromkeys([*order, *(record["agent"] for record in cells)]))
    pairs = sorted(
        {(record["agent"], record["demonstrations"]) for record in cells},
        key=lambda pair: (agents.index(pair[0]), pair[1]),
    )
    by_task: dict[tuple[str, str], set[int]] = {}
    for record in cells:
        by_task.setdefault((record["task"], record["agent"]), set()).add(record["demonstrations"])
    several = {agent for (_, agent), counts in by_task.items() if len(counts) > 1}
    return {(agent, count): f"{agent}, {count} demos" if agent in several else agent for agent, count in pairs}


def _run(record: Record, policy: str, records: Mapping[tuple[str, str], Record]) -> Run:
    score = float(np.mean(record["returns"]))
    random, expert = (_mean(records.get((what, record[what]))) for what in ("random", "expert"))
    successes = record["successes"]
    return Run(
        record["task"],
        policy,
        record["seed"],
        score,
        normalise(score, random, expert),
        None if expert is None or expert <= 0 else 100 * score / expert,
        None if successes is None else float(np.mean(successes)),
        record["train_seconds"],
        tuple((point["env_steps"], float(np.mean(point["returns"]))) for point in record["curve"]),
    )


def _mean(record: Record | None) -> float | None:
    if record is None or record["status"] != "done" or record["returns"] is None:
        return None
    return float(np.mean(record["returns"]))


def _title(record: Record) -> str:
    if record["what"] != "cell":
        return f"{record['task']}, {record['what']}"
    return f"{record['task']}, {record['agent']}, {record['demonstrations']} demonstrations, seed {record['seed']}"


# What the runs say together


@dataclass(frozen=True)
class Line:
    """One policy on one task, or over all of them.

    :param runs: trained agents behind it.
    :param mean: of the returns.
    :param normalised: mean of the normalised scores.
    :param iqm: interquartile mean of the normalised scores.
    """

    policy: str
    runs: int
    mean: Estimate | None
    normalised: Estimate | None
    iqm: Estimate | None
    percent: float | None = None
    success: float | None = None
    train_seconds: float | None = None


@dataclass(frozen=True)
class Report:
    """Everything that is written.

    :param tables: by task.
    :param common: the tasks that ``over_tasks``, the profile and the improvements are about: those where every policy
        has a run.
    :param improvements: by policy, how probably it beats ``against``.
    """

    results: Results
    tables: Mapping[str, Sequence[Line]]
    common: Sequence[str]
    over_tasks: Sequence[Line]
    profile: Profile | None
    against: str
    improvements: Mapping[str, Estimate]


def summarise(results: Results, *, intervals: bool = False) -> dict[str, list[Line]]:
    """The table of each task.

    :param intervals: with bootstrap intervals, which need rliable.
    """
    return {
        task: [
            _line(policy, results.of(task, policy), intervals)
            for policy in results.policies
            if results.of(task, policy)
        ]
        for task in results.tasks
    }


def _line(policy: str, runs: Sequence[Run], intervals: bool) -> Line:
    def estimate(values: list[float]) -> tuple[Estimate, Estimate]:
        scores = np.array(values)[:, None]
        if intervals:
            return estimates(scores)
        return Estimate(float(scores.mean())), Estimate(interquartile_mean(scores))

    known = [run.normalised for run in runs if run.normalised is not None]
    normalised, iqm = estimate(known) if len(known) == len(runs) else (None, None)
    return Line(
        policy,
        len(runs),
        estimate([run.score for run in runs])[0],
        normalised,
        iqm,
        _average(run.percent for run in runs),
        _average(run.success for run in runs),
        _average(run.train_seconds for run in runs),
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
    scores = {}
    for policy in results.policies:
        values = matrix(results.runs, policy, common)
        if values is not None:
            scores[policy] = values
    over_tasks = [
        Line(policy, len(values), None, *estimates(values)) for policy, values in scores.items() if len(common) > 1
    ]
    improvements = {
        policy: probability_of_improvement(values, scores[against])
        for policy, values in scores.items()
        if policy != against and against in scores
    }
    profile = performance_profile(scores) if scores else None
    return Report(results, summarise(results, intervals=True), common, over_tasks, profile, against, improvements)


# On the terminal


def task_tables(results: Results, tables: Mapping[str, Sequence[Line]]) -> Group:
    """A table for each task, as rich prints it."""
    return Group(*(_rich_table(*_cells(results, task, lines)) for task, lines in tables.items()))


def report_tables(report: Report) -> Group:
    """All tables of a report."""
    more = [_rich_table(*_over_tasks_cells(report))] if report.over_tasks else []
    more += [_rich_table(*_improvement_cells(report))] if report.improvements else []
    return Group(task_tables(report.results, report.tables), *more)


def _rich_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", no_wrap=bool(index))
    for row in rows:
        table.add_row(*row)
    return table


_Cells = tuple[str, list[str], list[list[str]]]


def _cells(results: Results, task: str, lines: Sequence[Line]) -> _Cells:
    """Title, header and rows of a task's table."""
    header = ["policy", "runs", "success", "return", "normalised", "IQM", "% expert", "train s"]
    references = [
        [name, "", "", _number(score), f"{index:.2f}", f"{index:.2f}", "", ""]
        for index, (name, score) in enumerate(results.references[task].items())
        if score is not None
    ]
    rows = [
        [
            f"{line.policy} (oracle)" if line.policy in results.oracles else line.policy,
            str(line.runs),
            "" if line.success is None else f"{line.success:.2f}",
            _with_interval(line.mean, _number),
            _with_interval(line.normalised),
            _with_interval(line.iqm),
            "" if line.percent is None else f"{line.percent:.0f}",
            "" if line.train_seconds is None else f"{line.train_seconds:.0f}",
        ]
        for line in lines
    ]
    return task, header, references + rows


def _over_tasks_cells(report: Report) -> _Cells:
    rows = [
        [line.policy, str(line.runs), _with_interval(line.normalised), _with_interval(line.iqm)]
        for line in report.over_tasks
    ]
    return f"over {', '.join(report.common)}", ["policy", "runs", "normalised", "IQM"], rows


def _improvement_cells(report: Report) -> _Cells:
    rows = [[policy, _with_interval(value)] for policy, value in report.improvements.items()]
    return f"probability of improvement on {report.against}", ["policy", "probability"], rows


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _two_digits(value: float) -> str:
    return f"{value:.2f}"


def _with_interval(estimate: Estimate | None, form: Any = _two_digits) -> str:
    if estimate is None:
        return ""
    if estimate.interval is None:
        return str(form(estimate.value))
    low, high = map(form, estimate.interval)
    return f"{form(estimate.value)} ({low} to {high})"


# Files


def write_report(report: Report, out: Path) -> list[Path]:
    """Write ``report.md``, ``report.json`` and the figures, and return what was written."""
    out.mkdir(parents=True, exist_ok=True)
    figures = _figures(report, out)
    (out / "report.md").write_text(_markdown(report, figures), encoding="utf-8")
    (out / "report.json").write_text(json.dumps(_as_json(report), indent=1) + "\n", encoding="utf-8")
    return [out / "report.md", out / "report.json", *figures]


def _markdown(report: Report, figures: Sequence[Path]) -> str:
    results = report.results
    parts = ["# Benchmark", f"From {', '.join(f'`{source}`' for source in results.sources)}: {progress(results)}."]
    parts.append(
        "A run is one trained agent, and its score the mean return of its episodes. Normalised: 0 is random, 1 the "
        "expert. IQM: interquartile mean of normalised scores. In brackets: 95% stratified bootstrap intervals."
    )
    for task, lines in report.tables.items():
        parts.append(_markdown_table(*_cells(results, task, lines)))
    if report.over_tasks:
        parts.append(_markdown_table(*_over_tasks_cells(report)))
    if report.improvements:
        parts.append(_markdown_table(*_improvement_cells(report)))
    left_out = [task for task in results.tasks if task not in report.common]
    if left_out:
        parts.append(f"Left out where tasks are taken together, for want of runs or references: {', '.join(left_out)}.")
    parts += [f"![{figure.stem}]({figure.name})" for figure in figures]
    if results.failed:
        parts.append("## Failed")
        parts.append("\n".join(f"- {title}: {error}" for title, error in results.failed.items()))
    return "\n\n".join(parts) + "\n"


def progress(results: Results) -> str:
    """How much of the plan there is."""
    parts = [f"{len(results.runs)} runs"]
    parts += [f"{len(results.missing)} to come"] if results.missing else []
    parts += [f"{len(results.failed)} failed"] if results.failed else []
    return ", ".join(parts)


def _markdown_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _as_json(report: Report) -> dict[str, Any]:
    results = report.results
    return {
        "format": 1,
        "sources": results.sources,
        "references": results.references,
        "tasks": {task: [asdict(line) for line in lines] for task, lines in report.tables.items()},
        "common_tasks": report.common,
        "over_tasks": [asdict(line) for line in report.over_tasks],
        "improvement": {
            "against": report.against,
            "policies": {policy: asdict(estimate) for policy, estimate in report.improvements.items()},
        },
        "profile": None
        if report.profile is None
        else {
            "thresholds": report.profile.thresholds.tolist(),
            "policies": {
                policy: {"share": shares.tolist(), "interval": report.profile.intervals[policy].tolist()}
                for policy, shares in report.profile.shares.items()
            },
        },
        "runs": [asdict(run) for run in results.runs],
        "missing": results.missing,
        "failed": results.failed,
    }


# Figures


def _figures(report: Report, out: Path) -> list[Path]:
    matplotlib.use("Agg")
    from matplotlib import colormaps

    results = report.results
    colours = {policy: colormaps["tab10"](index % 10) for index, policy in enumerate(results.policies)}
    figures = [_draw_scores(report, colours, out / "scores.png")]
    if report.profile is not None:
        figures.append(_draw_profile(report.profile, report.common, colours, out / "profile.png"))
    if report.improvements:
        figures.append(_draw_improvements(report, colours, out / "improvement.png"))
    if any(run.curve for run in results.runs):
        figures.append(_draw_curves(results, colours, out / "curves.png"))
    return figures


def _draw_scores(report: Report, colours: Mapping[str, Any], path: Path) -> Path:
    """Interquartile means with their intervals, and each run; returns where there is nothing to normalise by."""
    from matplotlib import pyplot as plt

    tasks = report.tables
    height = 1.2 + 0.45 * max(map(len, tasks.values()))
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(1.2 + 3.4 * len(tasks), height), layout="constrained", squeeze=False
    )
    for axis, (task, lines) in zip(axes[0], tasks.items(), strict=True):
        normalised = all(line.iqm is not None for line in lines)
        for place, line in enumerate(lines):
            runs = report.results.of(task, line.policy)
            points = [run.normalised if normalised else run.score for run in runs]
            estimate = line.iqm if normalised else line.mean
            assert estimate is not None
            low, high = estimate.interval or (estimate.value, estimate.value)
            axis.barh(place, high - low, left=low, height=0.5, color=colours[line.policy], alpha=0.35)
            axis.plot([estimate.value] * 2, [place - 0.25, place + 0.25], color="black", linewidth=2)
            axis.scatter(points, [place] * len(points), s=14, color=colours[line.policy], zorder=3)
        axis.set_yticks(range(len(lines)), [line.policy for line in lines])
        axis.set_ylim(len(lines) - 0.5, -0.5)
        axis.use_sticky_edges = False  # a run at the end of its interval would be cut by the frame
        axis.set_title(task, fontsize=10)
        axis.set_xlabel("IQM of normalised scores" if normalised else "mean return")
        if normalised:
            for reference in (0, 1):
                axis.axvline(reference, color="0.5", linestyle="--", linewidth=1, zorder=0)
    return _save(figure, axes[0], path)


def _draw_profile(profile: Profile, tasks: Sequence[str], colours: Mapping[str, Any], path: Path) -> Path:
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(5.5, 3.8), layout="constrained")
    for policy, shares in profile.shares.items():
        low, high = profile.intervals[policy]
        axis.plot(profile.thresholds, shares, color=colours[policy], label=policy)
        axis.fill_between(profile.thresholds, low, high, color=colours[policy], alpha=0.2, linewidth=0)
    axis.set_xlabel("normalised score τ")
    axis.set_ylabel("share of runs with score > τ")
    axis.set_title(", ".join(tasks), fontsize=10)
    axis.legend(frameon=False)
    return _save(figure, [axis], path)


def _draw_improvements(report: Report, colours: Mapping[str, Any], path: Path) -> Path:
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(5.5, 1.2 + 0.45 * len(report.improvements)), layout="constrained")
    for place, (policy, estimate) in enumerate(report.improvements.items()):
        low, high = estimate.interval or (estimate.value, estimate.value)
        axis.barh(place, high - low, left=low, height=0.5, color=colours[policy], alpha=0.35)
        axis.plot([estimate.value] * 2, [place - 0.25, place + 0.25], color="black", linewidth=2)
    axis.set_yticks(range(len(report.improvements)), list(report.improvements))
    axis.set_ylim(len(report.improvements) - 0.5, -0.5)
    axis.axvline(0.5, color="0.5", linestyle="--", linewidth=1, zorder=0)
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel(f"P(better than {report.against})")
    return _save(figure, [axis], path)


def _draw_curves(results: Results, colours: Mapping[str, Any], path: Path) -> Path:
    """Mean return over the agent's environment steps: each run thin, their mean thick."""
    from matplotlib import pyplot as plt

    tasks = [task for task in results.tasks if any(run.curve for run in results.runs if run.task == task)]
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(1.0 + 4.2 * len(tasks), 3.6), layout="constrained", squeeze=False
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        for policy in results.policies:
            curves = [run.curve for run in results.of(task, policy) if run.curve]
            for curve in curves:
                axis.plot(*zip(*curve, strict=True), color=colours[policy], alpha=0.35, linewidth=0.8)
            if curves:
                axis.plot(*_mean_curve(curves), color=colours[policy], linewidth=2, label=policy)
        for name, score in results.references[task].items():
            if score is not None:
                axis.axhline(score, color="0.5", linestyle="--" if name == "expert" else ":", linewidth=1, label=name)
        axis.set_title(task, fontsize=10)
        axis.set_xlabel("environment steps")
        axis.set_ylabel("return")
        axis.legend(frameon=False, fontsize=8)
    return _save(figure, axes[0], path)


def _mean_curve(curves: Sequence[Sequence[tuple[int, float]]]) -> tuple[list[int], list[float]]:
    """The mean over the runs, as far as all of them go: at the steps of the first, interpolated in the others."""
    last = min(curve[-1][0] for curve in curves)
    steps = [step for step, _ in curves[0] if step <= last]
    values = [np.interp(steps, [step for step, _ in curve], [score for _, score in curve]) for curve in curves]
    return steps, [float(value) for value in np.mean(values, axis=0)]


def _save(figure: Any, axes: Iterable[Any], path: Path) -> Path:
    from matplotlib import pyplot as plt

    for axis in axes:
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
