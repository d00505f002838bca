"""What a comparison found: a table to read at once, a figure, and all numbers as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from rich import box
from rich.table import Table

from aime_gym.experiments.evaluation import Score

Role = Literal["random", "expert", "agent", "oracle"]
_COLOURS: dict[Role, str] = {"random": "0.45", "expert": "#1a7f37", "agent": "#1f5fbf", "oracle": "#b35900"}


@dataclass(frozen=True)
class Row:
    """One policy of a comparison.

    :param label: what the reader knows it by.
    :param role: references are random and expert; an oracle is an agent that saw what the others may not.
    :param train_seconds: wall time of its training; ``None`` when nothing was trained.
    :param details: what else to remember, JSON.
    """

    label: str
    role: Role
    score: Score
    train_seconds: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The label, which says of an oracle that it is one."""
        return f"{self.label} (oracle: sees the actions)" if self.role == "oracle" else self.label


def normalised_return(row: Row, rows: Sequence[Row]) -> float | None:
    """(return - random) / (expert - random); ``None`` where one of them is unknown or the two are equal."""
    random, expert = _mean_of("random", rows), _mean_of("expert", rows)
    if random is None or expert is None or random == expert:
        return None
    return (row.score.mean - random) / (expert - random)


def percent_of_expert(row: Row, rows: Sequence[Row]) -> float | None:
    """Return in percent of the expert's; ``None`` where that is not positive, and percents mean nothing."""
    expert = _mean_of("expert", rows)
    return None if expert is None or expert <= 0 else 100 * row.score.mean / expert


def _mean_of(role: Role, rows: Sequence[Row]) -> float | None:
    return next((row.score.mean for row in rows if row.role == role), None)


def results_table(rows: Sequence[Row], title: str) -> Table:
    """One line for each policy; blank where nothing is known."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("policy", overflow="fold", max_width=44)
    for header in ("success", "return", "normalised", "% expert", "train s", "eval s"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        score = row.score
        table.add_row(
            row.title,
            _number(score.success_rate, ".2f"),
            f"{score.mean:.{_decimals(rows)}f} ± {score.std:.{_decimals(rows)}f}",
            _number(normalised_return(row, rows), ".2f"),
            _number(percent_of_expert(row, rows), ".0f"),
            _number(row.train_seconds, ".0f"),
            _number(score.seconds, ".1f"),
            style="dim" if row.role in ("random", "expert") else None,
        )
    return table


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _decimals(rows: Sequence[Row]) -> int:
    """Enough digits to tell the returns of this task apart."""
    largest = max(abs(row.score.mean) for row in rows)
    return 0 if largest >= 1000 else 1 if largest >= 10 else 2


def rows_as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """All that is known of every policy, each episode included."""
    return [
        {
            "policy": row.label,
            "role": row.role,
            "success_rate": row.score.success_rate,
            "return_mean": row.score.mean,
            "return_std": row.score.std,
            "normalised_return": normalised_return(row, rows),
            "percent_of_expert": percent_of_expert(row, rows),
            "train_seconds": row.train_seconds,
            "evaluation_seconds": row.score.seconds,
            **row.details,
            "returns": row.score.returns,
            "lengths": row.score.lengths,
            "successes": row.score.successes,
        }
        for row in rows
    ]


def plot_returns(rows: Sequence[Row], title: str, path: Path) -> None:
    """Draw the return of every episode of every agent, with random and expert for reference.

    A ring is an episode that failed, where the task says so; the bar is the mean with its standard error.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    agents = [row for row in rows if row.role in ("agent", "oracle")]
    figure, axes = plt.subplots(figsize=(8, 2.2 + 0.85 * len(agents)), layout="constrained")
    jitter = np.random.default_rng(0)
    for height, row in enumerate(agents):
        returns, colour = np.array(row.score.returns), _COLOURS[row.role]
        succeeded = np.array(row.score.successes if row.score.successes is not None else [True] * len(returns))
        heights = height + jitter.uniform(-0.22, 0.22, len(returns))
        for kind, face in ((succeeded, colour), (~succeeded, "none")):
            axes.scatter(returns[kind], heights[kind], s=26, facecolors=face, edgecolors=colour, alpha=0.55, zorder=2)
        mean, error = row.score.mean, row.score.std / np.sqrt(len(returns))
        axes.errorbar(mean, height, xerr=error, fmt="none", color="black", capsize=4, zorder=3)
        axes.plot([mean, mean], [height - 0.3, height + 0.3], color="black", linewidth=2.5, zorder=3)
    _draw_references(axes, rows)
    axes.set_yticks(range(len(agents)), [_caption(row, rows) for row in agents], fontsize=10)
    axes.set_ylim(len(agents) - 0.5, -0.5)
    axes.set_xlabel(f"return of an episode\n{_legend(agents)}")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_references(axes: Any, rows: Sequence[Row]) -> None:
    references = sorted((row for row in rows if row.role in ("random", "expert")), key=lambda row: row.score.mean)
    for row in references:
        axes.axvline(row.score.mean, color=_COLOURS[row.role], linestyle="--", linewidth=1.5, zorder=1)
    left, right = axes.get_xlim()
    distance = references[-1].score.mean - references[0].score.mean if references else 0.0
    # Names of lines that stand close together point away from each other.
    places = ["right", "left"] if len(references) == 2 and distance < 0.2 * (right - left) else ["center", "center"]
    for row, place in zip(references, places, strict=False):
        axes.annotate(
            f"{row.label}\n{row.score.mean:.{_decimals(rows)}f}",
            (row.score.mean, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha=place,
            va="bottom",
            color=_COLOURS[row.role],
            fontsize=10,
        )


def _caption(row: Row, rows: Sequence[Row]) -> str:
    lines = textwrap.wrap(row.label, 30)
    if row.role == "oracle":
        lines.append("oracle: sees the actions")
    if row.score.success_rate is not None:
        lines.append(f"success {row.score.success_rate:.2f}")
    normalised = normalised_return(row, rows)
    if normalised is not None:
        lines.append(f"normalised {normalised:.2f}")
    return "\n".join(lines)


def _legend(agents: Sequence[Row]) -> str:
    marks = "bar: mean ± standard error"
    if any(row.score.successes is not None for row in agents):
        return f"filled: success, ring: failure, {marks}"
    return marks
