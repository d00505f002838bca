"""Figures of results: single runs by their episodes, and suites by runs, profiles, improvements and curves."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from aime_gym.experiments.results import Report, Results, Role, Run
from aime_gym.experiments.statistics import Estimate, Profile
from aime_gym.serialization import atomically

_COLOURS: dict[Role, str] = {"random": "0.45", "expert": "#1a7f37", "agent": "#1f5fbf", "oracle": "#b35900"}


def draw_returns(runs: Sequence[Run], title: str, path: Path) -> Path:
    """Draw the return of every episode of every agent, with random and expert for reference.

    A ring is an episode that failed, where the task says so; the bar is the mean with its standard error.
    """
    agents = [run for run in runs if run.role in ("agent", "oracle")]
    references = sorted((run for run in runs if run not in agents), key=lambda run: run.score)
    figure, (axes,) = _subplots(1, 8, 2.2 + 0.85 * len(agents))
    jitter = np.random.default_rng(0)
    for height, run in enumerate(agents):
        returns = np.array(run.record["returns"])
        succeeded = np.array(run.record["successes"] or [True] * len(returns))
        colour = _COLOURS[run.role]
        heights = height + jitter.uniform(-0.22, 0.22, len(returns))
        for chosen, face in ((succeeded, colour), (~succeeded, "none")):
            look = {"s": 26, "facecolors": face, "edgecolors": colour, "alpha": 0.55}
            axes.scatter(returns[chosen], heights[chosen], zorder=2, **look)
        error = run.std / np.sqrt(len(returns))
        axes.errorbar(run.score, height, xerr=error, fmt="none", color="black", capsize=4, zorder=3)
        axes.plot([run.score] * 2, [height - 0.3, height + 0.3], color="black", linewidth=2.5, zorder=3)
    _draw_references(axes, references)
    axes.set_yticks(range(len(agents)), [_caption(run) for run in agents], fontsize=10)
    axes.set_ylim(len(agents) - 0.5, -0.5)
    marks = "filled: success, ring: failure, " if any(run.success is not None for run in agents) else ""
    axes.set_xlabel(f"return of an episode\n{marks}bar: mean ± standard error")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return _save(figure, [axes], path)


def _draw_references(axes: Any, references: Sequence[Run]) -> None:
    for run in references:
        axes.axvline(run.score, color=_COLOURS[run.role], linestyle="--", linewidth=1.5, zorder=1)
    left, right = axes.get_xlim()
    # Names of lines that stand close together point away from each other.
    close = len(references) == 2 and references[1].score - references[0].score < 0.2 * (right - left)
    for run, side in zip(references, ("right", "left"), strict=False):
        text = f"{run.policy}\n{run.score:.4g}"
        look = {"color": _COLOURS[run.role], "fontsize": 10, "va": "bottom", "ha": side if close else "center"}
        place = {"xy": (run.score, 1.0), "xycoords": ("data", "axes fraction")}
        axes.annotate(text, **place, xytext=(0, 4), textcoords="offset points", **look)


def _caption(run: Run) -> str:
    lines = textwrap.wrap(run.policy, 30)
    if run.role == "oracle":
        lines.append("oracle: sees the actions")
    if run.success is not None:
        lines.append(f"success {run.success:.2f}")
    if run.normalised is not None:
        lines.append(f"normalised {run.normalised:.2f}")
    return "\n".join(lines)


def draw_report(report: Report, out: Path) -> list[Path]:
    """Write the figures that there are data for, and return their paths."""
    results = report.results
    palette = colormaps["tab10" if len(results.policies) <= 10 else "tab20"]
    colours = {policy: palette(index % palette.N) for index, policy in enumerate(results.policies)}
    figures = [_draw_scores(report, colours, out / "scores.png")]
    if report.profile is not None:
        figures.append(_draw_profile(report.profile, report.common_tasks, colours, out / "profile.png"))
    if report.improvements:
        figures.append(_draw_improvements(report, colours, out / "improvement.png"))
    if any(run.curve for run in results.runs):
        figures.append(_draw_curves(results, colours, out / "curves.png"))
    return figures


def _draw_scores(report: Report, colours: Mapping[str, Any], path: Path) -> Path:
    """Draw interquartile means with their intervals, and each run; returns where there is nothing to normalise by."""
    tasks = report.tasks
    height = 1.2 + 0.45 * max(map(len, tasks.values()))
    figure, axes = _subplots(len(tasks), 3.8, height)
    for axis, (task, lines) in zip(axes, tasks.items(), strict=True):
        normalised = all(line.iqm is not None for line in lines)
        _draw_intervals(axis, {line.policy: line.iqm if normalised else line.mean for line in lines}, colours)
        for place, line in enumerate(lines):
            runs = report.results.of(task, line.policy)
            points = [run.normalised if normalised else run.score for run in runs]
            axis.scatter(points, [place] * len(points), s=14, color=colours[line.policy], zorder=3)
        axis.use_sticky_edges = False  # a run at the end of its interval would be cut by the frame
        axis.set_title(task, fontsize=10)
        axis.set_xlabel("IQM of normalised scores" if normalised else "mean return")
        for reference in (0, 1) if normalised else ():
            axis.axvline(reference, color="0.5", linestyle="--", linewidth=1, zorder=0)
    return _save(figure, axes, path)


def _draw_profile(profile: Profile, tasks: Sequence[str], colours: Mapping[str, Any], path: Path) -> Path:
    figure, (axis,) = _subplots(1, 5.5, 3.8)
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
    figure, (axis,) = _subplots(1, 5.5, 1.2 + 0.45 * len(report.improvements))
    _draw_intervals(axis, report.improvements, colours)
    axis.set_ylim(len(report.improvements) - 0.5, -0.5)
    axis.axvline(0.5, color="0.5", linestyle="--", linewidth=1, zorder=0)
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel(f"P(better than {report.against})")
    return _save(figure, [axis], path)


def _draw_curves(results: Results, colours: Mapping[str, Any], path: Path) -> Path:
    """Draw the mean return over the agent's environment steps: each run thin, their mean thick."""
    tasks = [task for task in results.tasks if any(run.curve for run in results.runs if run.task == task)]
    figure, axes = _subplots(len(tasks), 4.5, 3.6)
    for axis, task in zip(axes, tasks, strict=True):
        for policy in results.policies:
            curves = [run.curve for run in results.of(task, policy) if run.curve]
            for curve in curves:
                axis.plot(*zip(*curve, strict=True), color=colours[policy], alpha=0.35, linewidth=0.8)
            if curves:
                axis.plot(*_mean_curve(curves), color=colours[policy], linewidth=2, label=policy)
        for run in results.references[task]:
            style = "--" if run.role == "expert" else ":"
            axis.axhline(run.score, color="0.5", linestyle=style, linewidth=1, label=run.role)
        axis.set_title(task, fontsize=10)
        axis.set_xlabel("environment steps")
        axis.set_ylabel("return")
        axis.legend(frameon=False, fontsize=8)
    return _save(figure, axes, path)


def _mean_curve(curves: Sequence[Sequence[tuple[int, float]]]) -> tuple[list[int], list[float]]:
    """Return the mean over the runs, as far as all of them go: at the steps of the first, the others interpolated."""
    last = min(curve[-1][0] for curve in curves)
    steps = [step for step, _ in curves[0] if step <= last]
    values = [np.interp(steps, [step for step, _ in curve], [score for _, score in curve]) for curve in curves]
    return steps, [float(value) for value in np.mean(values, axis=0)]


def _draw_intervals(axis: Any, estimates: Mapping[str, Estimate | None], colours: Mapping[str, Any]) -> None:
    """Draw one row for each policy: its interval as a bar, and its value as a line in it."""
    for place, (policy, estimate) in enumerate(estimates.items()):
        assert estimate is not None
        low, high = estimate.interval or (estimate.value, estimate.value)
        axis.barh(place, high - low, left=low, height=0.5, color=colours[policy], alpha=0.35)
        axis.plot([estimate.value] * 2, [place - 0.25, place + 0.25], color="black", linewidth=2)
    axis.set_yticks(range(len(estimates)), list(estimates))
    axis.set_ylim(len(estimates) - 0.5, -0.5)


def _subplots(count: int, width: float, height: float) -> tuple[Figure, Sequence[Any]]:
    """Return a figure outside of pyplot's state, and its axes in rows of three.

    :param width: inches of each axes, and so ``height``.
    """
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(count)]


def _save(figure: Any, axes: Iterable[Any], path: Path) -> Path:
    for axis in axes:
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    with atomically(path) as file:
        figure.savefig(file, dpi=150)
    return path
