"""The report of results: tables on the terminal and in Markdown, figures, and all numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from rich import box
from rich.console import Group
from rich.table import Table

from aime_gym.experiments.figures import draw_report
from aime_gym.experiments.results import Line, Report, Results, Run, report_as_json, summarise_runs
from aime_gym.experiments.statistics import Estimate

#: Title, header and rows.
_Cells: TypeAlias = tuple[str, list[str], list[list[str]]]


def run_table(runs: Sequence[Run], title: str) -> Table:
    """Return a table of single runs, each with the spread of its episodes; blank where a figure is unknown."""
    lines = [summarise_runs([run]) for run in runs]
    header = ["policy", "success", "return ± std", "normalised", "% expert", "train s", "eval s"]
    table = _rich_table((title, [name.removesuffix(" ± std") for name in header], _rows(lines, header)))
    for row, line in zip(table.rows, lines, strict=True):
        row.style = None if line.runs else "dim"
    return table


def task_tables(results: Results, tables: Mapping[str, Sequence[Line]]) -> Group:
    """Return a table for each task, as rich prints it."""
    return Group(*(_rich_table(_cells(results, task, lines)) for task, lines in tables.items()))


def report_tables(report: Report) -> Group:
    """Return all tables of a report, as rich prints them."""
    return Group(*map(_rich_table, _all_cells(report)))


def _rich_table(cells: _Cells) -> Table:
    title, header, rows = cells
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(header[0], overflow="fold", max_width=44)
    for name in header[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _all_cells(report: Report) -> list[_Cells]:
    tables = [_cells(report.results, task, lines) for task, lines in report.tables.items()]
    if report.over_tasks:
        rows = [
            [line.policy, str(line.runs), _with_interval(line.normalised), _with_interval(line.iqm)]
            for line in report.over_tasks
        ]
        tables.append((f"over {', '.join(report.common)}", ["policy", "runs", "normalised", "IQM"], rows))
    if report.improvements:
        rows = [[policy, _with_interval(value)] for policy, value in report.improvements.items()]
        tables.append((f"probability of improvement on {report.against}", ["policy", "probability"], rows))
    return tables


def _cells(results: Results, task: str, lines: Sequence[Line]) -> _Cells:
    header = ["policy", "runs", "success", "return", "normalised", "IQM", "% expert", "train s"]
    references = [summarise_runs([run]) for run in results.references[task]]
    return task, header, _rows([*references, *lines], header)


def _rows(lines: Sequence[Line], header: Sequence[str]) -> list[list[str]]:
    number = _number_format(lines)
    oracle = "oracle: sees the actions" if "runs" not in header else "oracle"
    columns: dict[str, Callable[[Line], str]] = {
        "policy": lambda line: f"{line.policy} ({oracle})" if line.role == "oracle" else line.policy,
        "runs": lambda line: str(line.runs or ""),
        "success": lambda line: _figure(line.success, ".2f"),
        "return": lambda line: _with_interval(line.mean, number),
        "return ± std": lambda line: f"{_with_interval(line.mean, number)} ± {_figure(line.std, number)}",
        "normalised": lambda line: _with_interval(line.normalised),
        "IQM": lambda line: _with_interval(line.iqm),
        "% expert": lambda line: _figure(line.percent, ".0f"),
        "train s": lambda line: _figure(line.train_seconds, ".0f"),
        "eval s": lambda line: _figure(line.eval_seconds, ".1f"),
    }
    return [[columns[name](line) for name in header] for line in lines]


def _number_format(lines: Sequence[Line]) -> str:
    """Return a format with enough digits to tell the returns of a task apart."""
    largest = max(abs(line.mean.value) for line in lines if line.mean is not None)
    return ".0f" if largest >= 1000 else ".1f" if largest >= 10 else ".2f"


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _with_interval(estimate: Estimate | None, form: str = ".2f") -> str:
    if estimate is None:
        return ""
    interval = estimate.interval and f" ({estimate.interval[0]:{form}} to {estimate.interval[1]:{form}})"
    return f"{estimate.value:{form}}{interval or ''}"


def write_report(report: Report, out: Path) -> list[Path]:
    """Write ``report.md``, ``report.json`` and the figures, and return what was written."""
    out.mkdir(parents=True, exist_ok=True)
    figures = draw_report(report, out)
    (out / "report.md").write_text(_markdown(report, figures), encoding="utf-8")
    (out / "report.json").write_text(json.dumps(report_as_json(report), indent=1) + "\n", encoding="utf-8")
    return [out / "report.md", out / "report.json", *figures]


def _markdown(report: Report, figures: Sequence[Path]) -> str:
    results = report.results
    parts = [
        "# Benchmark",
        f"From {', '.join(f'`{source}`' for source in results.sources)}: {results.progress}.",
        "A run is one trained agent, and its score the mean return of its episodes. Normalised: 0 is random, 1 the "
        "expert. IQM: interquartile mean of normalised scores. In brackets: 95% stratified bootstrap intervals.",
    ]
    for title, header, rows in _all_cells(report):
        lines = [header, ["---"] * len(header), *rows]
        parts.append(f"## {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    left_out = [task for task in results.tasks if task not in report.common]
    if left_out:
        parts.append(f"Left out where tasks are taken together, for want of runs or references: {', '.join(left_out)}.")
    parts += [f"![{figure.stem}]({figure.name})" for figure in figures]
    if results.failed:
        parts.append("## Failed")
        parts.append("\n".join(f"- {title}: {error}" for title, error in results.failed.items()))
    return "\n\n".join(parts) + "\n"
