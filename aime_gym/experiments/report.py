"""The report of results: tables on the terminal, in Markdown and HTML, figures, and all numbers as JSON."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table

from aime_gym.experiments.cells import as_file_name
from aime_gym.experiments.figures import draw_report
from aime_gym.experiments.results import Line, Report, Results, Run, report_as_json, summarise, summarise_runs
from aime_gym.experiments.statistics import Estimate
from aime_gym.serialization import write_text

#: Cells between two columns, and those that the first one, which may fold, needs beside the others.
_GAP, _FIRST_COLUMN = 2, 14
_LEGEND = (
    "A run is one trained agent, and its score the mean return of its episodes. Normalised: 0 is random, 1 the expert. "
    "IQM: interquartile mean of normalised scores. In brackets: 95% stratified bootstrap intervals."
)


def run_table(runs: Sequence[Run], title: str) -> Table:
    """Return a table of single runs, each with the spread of its episodes; blank where a figure is unknown."""
    lines = [summarise_runs([run]) for run in runs]
    columns = ["policy", "success", "return", "normalised", "% expert", "train s", "eval s"]
    table = _table(title, lines, columns, single=True)
    for row, line in zip(table.rows, lines, strict=True):
        row.style = None if line.runs else "dim"
    return table


def print_tables(*tables: RenderableType) -> None:
    """Print tables; those that are wider than the terminal, in parts."""
    console = Console()
    for table in tables:
        for part in _parts(table, console.width) if isinstance(table, Table) else [table]:
            console.print(part)


def _parts(table: Table, width: int) -> list[Table]:
    """Return a table in parts of at most a width, each with the first column."""
    first, *others = ([str(column.header), *map(str, column.cells)] for column in table.columns)
    groups: list[list[list[str]]] = []
    left = 0
    for column in others:
        needed = _GAP + max(map(cell_len, column))
        if left < needed:
            groups.append([first])
            left = width - min(_FIRST_COLUMN, max(map(cell_len, first)))
        groups[-1].append(column)
        left -= needed
    parts = []
    for group in groups:
        header, *rows = zip(*group, strict=True)
        part = _rich_table(str(table.title), header, rows)
        for row, original in zip(part.rows, table.rows, strict=True):
            row.style = original.style
        parts.append(part)
    return parts


def result_tables(results: Results) -> list[Table]:
    """Return a table for each task, without intervals."""
    return _task_tables(results, summarise(results))


def report_tables(report: Report) -> list[Table]:
    """Return all tables of a report."""
    tables = _task_tables(report.results, report.tasks)
    if report.over_tasks:
        title = f"over {', '.join(report.common_tasks)}"
        tables.append(_table(title, report.over_tasks, ["policy", "runs", "normalised", "IQM"]))
    if report.improvements:
        rows = [[policy, _with_interval(value)] for policy, value in report.improvements.items()]
        tables.append(_rich_table(f"probability of improvement on {report.against}", ["policy", "probability"], rows))
    return tables


def _task_tables(results: Results, tasks: Mapping[str, Sequence[Line]]) -> list[Table]:
    columns = ["policy", "runs", "success", "return", "normalised", "IQM", "% expert", "train s"]
    references = {task: [summarise_runs([run]) for run in results.references[task]] for task in tasks}
    return [_table(task, [*references[task], *lines], columns) for task, lines in tasks.items()]


def _table(title: str, lines: Sequence[Line], columns: Sequence[str], *, single: bool = False) -> Table:
    """Return a table of policies.

    :param single: whether each line is a single run.
    """
    number = _number_format(lines)
    oracle = "oracle: sees the actions" if single else "oracle"
    cells: dict[str, Callable[[Line], str]] = {
        "policy": lambda line: f"{line.policy} ({oracle})" if line.role == "oracle" else line.policy,
        "runs": lambda line: str(line.runs or ""),
        "success": lambda line: _figure(line.success, ".2f"),
        "return": lambda line: _with_interval(line.mean, number) + (f" ± {line.std:{number}}" if single else ""),
        "normalised": lambda line: _with_interval(line.normalised),
        "IQM": lambda line: _with_interval(line.iqm),
        "% expert": lambda line: _figure(line.percent, ".0f"),
        "train s": lambda line: _figure(line.train_seconds, ".0f"),
        "eval s": lambda line: _figure(line.eval_seconds, ".1f"),
    }
    return _rich_table(title, columns, [[cells[column](line) for column in columns] for line in lines])


def _rich_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(columns[0], overflow="fold", max_width=44)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _number_format(lines: Sequence[Line]) -> str:
    """Return a format with enough digits to tell the returns of a task apart."""
    largest = max((abs(line.mean.value) for line in lines if line.mean is not None), default=0)
    return ".0f" if largest >= 1000 else ".1f" if largest >= 10 else ".2f"


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _with_interval(estimate: Estimate | None, form: str = ".2f") -> str:
    if estimate is None:
        return ""
    interval = estimate.interval and f" ({estimate.interval[0]:{form}} to {estimate.interval[1]:{form}})"
    return f"{estimate.value:{form}}{interval or ''}"


def write_report(report: Report, out: Path, *, html: bool = False) -> list[Path]:
    """Write ``report.md``, ``report.json`` and the figures, and return what was written.

    :param html: whether to write ``report.html`` too, one page that holds all figures and videos and loads nothing.
    """
    out.mkdir(parents=True, exist_ok=True)
    figures = draw_report(report, out)
    content = _content(report)
    write_text(out / "report.md", _render("report.md", **content, figures=figures))
    write_text(out / "report.json", report_as_json(report) + "\n")
    if not html:
        return [out / "report.md", out / "report.json", *figures]
    pictures = {figure.stem: _inlined(figure) for figure in figures}
    videos = {title: _inlined(video) for title, video in _videos(report.results).items()}
    write_text(out / "report.html", _render("report.html", **content, figures=pictures, videos=videos))
    return [out / "report.html", out / "report.md", out / "report.json", *figures]


def _content(report: Report) -> dict[str, Any]:
    results = report.results
    tables = [
        {
            "title": table.title,
            "header": [str(column.header) for column in table.columns],
            "rows": list(zip(*(map(str, column.cells) for column in table.columns), strict=True)),
        }
        for table in report_tables(report)
    ]
    left_out = ", ".join(task for task in results.tasks if task not in report.common_tasks)
    return {
        "sources": results.sources,
        "progress": results.progress,
        "legend": _LEGEND,
        "tables": tables,
        "left_out": left_out
        and f"Left out where tasks are taken together, for want of runs or references: {left_out}.",
        "failed": results.failed,
    }


def _render(name: str, **content: Any) -> str:
    """Fill in a template of this package; in HTML, all texts are escaped."""
    templates = Environment(
        loader=PackageLoader("aime_gym.experiments"),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.get_template(name).render(content)


def _videos(results: Results) -> dict[str, Path]:
    """Return the videos of agents in the folders of results, as a comparison records them, by their titles."""
    names = dict.fromkeys(as_file_name(run.record["agent"]) for run in results.runs)
    folders = dict.fromkeys(path if path.is_dir() else path.parent for path in map(Path, results.sources))
    paths = [folder / f"{name}.mp4" for folder in folders for name in names]
    return {f"{path.stem}, {path.parent}" if len(folders) > 1 else path.stem: path for path in paths if path.is_file()}


def _inlined(path: Path) -> str:
    kind = "video" if path.suffix == ".mp4" else "image"
    return f"data:{kind}/{path.suffix[1:]};base64,{base64.b64encode(path.read_bytes()).decode()}"
