"""Report of a diagnosis: a verdict with its reasons, tables, JSON and a figure."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from aime_gym.data.coverage import LIMIT, outside_text
from aime_gym.serialization import atomically
from aime_gym.types import Array

#: Verdicts.
MORE_PLAY = "more play"
MORE_DEMONSTRATIONS = "more demonstrations"
FINE = "fine"


@dataclass(frozen=True)
class Thresholds:
    """Limits from which on a figure becomes part of the verdict.

    They separate the cases that were measured on reach-v3, with one seed: 20 demonstrations after play of all sizes
    (success 0.87), 5 and 2 of them (0.5 and 0), 20 after play of small actions only (0.2). Read the figure rather than
    the verdict where it is near its limit.

    :param unidentified: std of an action's posterior on play, as a share of that of a flat one, from which on the
        evidence does not identify the action. A uniform posterior over 0.8 of the range has 0.8; an action without
        effect has 0.99, those of reach-v3 at most 0.36.
    :param outside: share of demonstration steps with less evidence than 95% of play's. Without a barrier it is 0.05.
        Experts go where play rarely does: 0.17 to 0.19 do no harm, and with two demonstrations one of them may lie
        outside as a whole (0.43). After play of small actions it is 1.
    :param action_error: squared error of inferred actions in units of their variance; predicting the mean gives 1.
        Measured: 0.22 to 0.46, and 0.58 after play of small actions.
    :param disagreement: root mean square distance of the inverse model's actions from the posterior means, in the
        demonstrations, over the std of a flat posterior; that of a guess is 1. It needs neither true actions nor a
        comparison with play, which hides how far demonstrations lie outside if the world model does not know that play
        either. Measured: 0.64 to 0.9, and 1.5 after play of small actions.
    :param held_out_error: squared error, in units of the variance, of the actions of policies that were cloned from
        other demonstrations. Measured: 0.23 for 20 demonstrations, 1.1 for 5 and for 2.
    """

    unidentified: float = 0.8
    outside: float = 0.5
    action_error: float = 0.5
    disagreement: float = 1.0
    held_out_error: float = 0.5


THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class WorstStep:
    """Step of a demonstration with little evidence.

    :param trajectory: number of the demonstration.
    :param step: number of the step, counted from 0 at the first observation.
    :param elbo: evidence of this step, in nats.
    :param sensor: entry of the observation with the largest error of the prior's prediction, relative to that in play.
    :param ratio: error of that entry, in units of its root mean square error in play.
    """

    trajectory: int
    step: int
    elbo: float
    sensor: str
    ratio: float


@dataclass(frozen=True)
class EvidenceSummary:
    """ELBO per step, in nats at the posterior's mode, without the first record of each trajectory.

    :param play: evidence (N,) of play under the recorded actions.
    :param play_inferred: evidence (N,) of play under the inverse model's actions.
    :param demos: evidence (T,) of each demonstration under the inferred actions.
    :param demos_true: evidence (T,) of each demonstration under the true actions; ``None`` if they are unknown.
    :param worst: steps of the demonstrations with the least evidence, the worst first.
    """

    play: Array
    play_inferred: Array
    demos: tuple[Array, ...]
    demos_true: tuple[Array, ...] | None
    worst: tuple[WorstStep, ...]

    @property
    def outside(self) -> float:
        """Share of demonstration steps with less evidence than 95% of play's."""
        return float(np.mean(np.concatenate(self.demos) < np.quantile(self.play, 0.05)))


@dataclass(frozen=True)
class ActionKnowledge:
    """Figures of one entry of the actions, which are in [-1, 1], or probabilities of discrete ones.

    :param name: name of the entry.
    :param play_spread: mean std of the entry's posterior, given the observations and the other actions, in play.
    :param demo_spread: mean std of that posterior in the demonstrations.
    :param play_disagreement: root mean square distance of the inverse model from that posterior's mean, in play.
    :param demo_disagreement: root mean square distance from that posterior's mean in the demonstrations.
    :param play_error: root mean square error of the inverse model in play, and the std of the true actions there.
    :param demo_error: root mean square error of the agent's actions in the demonstrations, and the std of the true
        ones; ``None`` if they are unknown.
    :param flat_spread: std of a posterior that the evidence does not change.
    """

    name: str
    play_spread: float
    demo_spread: float
    play_disagreement: float
    demo_disagreement: float
    play_error: tuple[float, float] | None
    demo_error: tuple[float, float] | None
    flat_spread: float

    @property
    def identified(self) -> bool:
        """Whether the evidence of play, which the model was trained on, identifies the action."""
        return self.play_spread < THRESHOLDS.unidentified * self.flat_spread


@dataclass(frozen=True)
class Coverage:
    """Cross-validation of policies that are cloned from some demonstrations, on the others.

    Errors are squared errors of inferred actions that are identified, in units of their variance.

    :param demonstrations: number of demonstrations.
    :param sizes: numbers of demonstrations to clone from; empty for a single demonstration.
    :param errors: error on held-out demonstrations, for each of these numbers.
    :param by_demonstration: error on each demonstration of policies cloned from the largest number of others.
    :param training_error: error of those policies on the demonstrations that they were cloned from.
    """

    demonstrations: int
    sizes: tuple[int, ...]
    errors: tuple[float, ...]
    by_demonstration: tuple[float, ...]
    training_error: float | None


@dataclass(frozen=True)
class Diagnosis:
    """Result of [`aime_gym.analysis.diagnosis.diagnose`][].

    :param evidence: evidence of play and of the demonstrations.
    :param actions: figures of each entry of the actions.
    :param coverage: cross-validation over the demonstrations.
    :param outside_play: share of the demonstrations' records that lie where that play has not been; see
        ``aime_gym.data.coverage``.
    :param play_episodes: number of episodes of play that the demonstrations are compared with.
    :param play_held_out: whether the world model was trained on other play, as far as that is known. Play that it was
        trained on has too much evidence, so that demonstrations look farther away than they are.
    """

    evidence: EvidenceSummary
    actions: tuple[ActionKnowledge, ...]
    coverage: Coverage
    outside_play: float
    play_episodes: int
    play_held_out: bool

    # Interpretation

    @property
    def verdict(self) -> tuple[str, ...]:
        """Verdict: ``"more play"``, ``"more demonstrations"``, both, or ``"fine"``."""
        needs = {MORE_PLAY: self.play_reasons, MORE_DEMONSTRATIONS: self.demonstration_reasons}
        return tuple(need for need, reasons in needs.items() if reasons) or (FINE,)

    @property
    def play_reasons(self) -> tuple[str, ...]:
        """Signs of an embodiment knowledge barrier."""
        reasons = [outside_text(self.outside_play)] if self.outside_play > LIMIT else []
        if self.evidence.outside > THRESHOLDS.outside:
            reasons.append(
                f"{self.evidence.outside:.0%} of the demonstrations' steps are explained worse than 95% of play's "
                f"(the limit is {THRESHOLDS.outside:.0%})"
            )
        for place, error in (("play", self.play_error), ("the demonstrations", self.demo_error)):
            if error is not None and error > THRESHOLDS.action_error:
                reasons.append(
                    f"inferred actions are wrong in {place}: {error:.2f} of their variance (the limit is "
                    f"{THRESHOLDS.action_error:g}; guessing the mean gives 1)"
                )
        if self.disagreement > THRESHOLDS.disagreement:
            reasons.append(
                f"the inverse model contradicts the evidence of the demonstrations: its actions are "
                f"{self.disagreement:.2f} times as far off as a guess (the limit is {THRESHOLDS.disagreement:g})"
            )
        return tuple(reasons)

    @property
    def disagreement(self) -> float:
        """Distance of the inverse model from the posterior means in the demonstrations, over identified actions.

        In units of the std of a flat posterior.
        """
        distances = [action.demo_disagreement / action.flat_spread for action in self.actions if action.identified]
        return float(np.sqrt(np.mean(np.square(distances)))) if distances else 0.0

    @property
    def play_error(self) -> float | None:
        """Squared error of the inverse model in play, in units of the variance, over identified actions.

        Entries that hardly vary do not count; ``None`` if no entry is left.
        """
        return _pooled([action.play_error for action in self.actions if action.identified])

    @property
    def demo_error(self) -> float | None:
        """Squared error of the agent's actions in the demonstrations, likewise; ``None`` also without true actions."""
        return _pooled([action.demo_error for action in self.actions if action.identified])

    @property
    def demonstration_reasons(self) -> tuple[str, ...]:
        """Signs of a demonstration knowledge barrier."""
        coverage = self.coverage
        if coverage.demonstrations == 1:
            return ("there is one demonstration: nothing says how another one would go",)
        if coverage.errors[-1] > THRESHOLDS.held_out_error:
            return (
                f"a policy cloned from {coverage.sizes[-1]} of the demonstrations is wrong about the others' actions: "
                f"{coverage.errors[-1]:.2f} of their variance (the limit is {THRESHOLDS.held_out_error:g}; guessing "
                f"the mean gives 1)",
            )
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Limitations of the verdict."""
        notes = []
        if not self.play_held_out:
            notes.append(
                "compared with play that the world model was trained on, which it explains too well: the "
                "demonstrations look farther away than they are; pass fresh play for a fair comparison"
            )
        blind = [action.name for action in self.actions if not action.identified]
        if len(blind) == len(self.actions):
            notes.append(
                "play does not identify any action: the world model has learnt too little, or the sensors show "
                "nothing of what actions do"
            )
        elif blind:
            notes.append(
                f"the sensors do not show {', '.join(blind)}: no play and no demonstration will teach it; it takes "
                "another sensor, if the task needs it at all"
            )
        if self.play_reasons and self.coverage.demonstrations > 1:
            notes.append("coverage is measured on inferred actions, which are not to be trusted here: first more play")
        return tuple(notes)

    # Output

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        evidence = self.evidence
        true = evidence.demos_true
        return {
            "format": 1,
            "verdict": list(self.verdict),
            "play_reasons": list(self.play_reasons),
            "demonstration_reasons": list(self.demonstration_reasons),
            "notes": list(self.notes),
            "thresholds": asdict(THRESHOLDS),
            "play": {"episodes": self.play_episodes, "held_out": self.play_held_out, "outside": self.outside_play},
            "evidence": {
                "quantiles": {name: dict(zip(_QUANTILE_NAMES, _quantiles(values), strict=True))
                              for name, values in self._evidence_rows()},
                "outside": evidence.outside,
                "worst": [asdict(step) for step in evidence.worst],
                "demos": [values.tolist() for values in evidence.demos],
                "demos_true": None if true is None else [values.tolist() for values in true],
            },
            "actions": [asdict(action) | {"identified": action.identified} for action in self.actions],
            "action_errors": {"play": self.play_error, "demos": self.demo_error},
            "disagreement": self.disagreement,
            "coverage": asdict(self.coverage),
        }  # fmt: skip

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=110)
        console.print(self.table())
        return console.file.getvalue().rstrip()  # type: ignore[attr-defined]

    def table(self) -> Group:
        """Return tables and verdict, for rich's ``print``."""
        needs = {MORE_PLAY: self.play_reasons, MORE_DEMONSTRATIONS: self.demonstration_reasons}
        lines = [f"{self.outside_play:.0%} of the demonstrations' records lie where play has not been"]
        lines += [f"verdict: {' and '.join(self.verdict)}"]
        lines += [f"- {need}: {reason}" for need, reasons in needs.items() for reason in reasons]
        lines += [f"- note: {note}" for note in self.notes]
        return Group(
            *self._evidence_table(),
            *self._worst_table(),
            *self._action_table(),
            *self._coverage_table(),
            Text("\n".join(lines)),
        )

    def _evidence_rows(self) -> list[tuple[str, Array]]:
        evidence = self.evidence
        rows = [
            ("play, recorded actions", evidence.play),
            ("play, inferred actions", evidence.play_inferred),
            ("demonstrations, inferred actions", np.concatenate(evidence.demos)),
        ]
        if evidence.demos_true is not None:
            rows.append(("demonstrations, true actions", np.concatenate(evidence.demos_true)))
        return rows

    def _evidence_table(self) -> _Titled:
        held_out = "held out" if self.play_held_out else "TRAINED ON"
        title = (
            f"evidence per step (nats): {self.coverage.demonstrations} demonstrations, "
            f"{self.play_episodes} episodes of play ({held_out})"
        )
        low = np.quantile(self.evidence.play, 0.05)
        return _table(
            title,
            ["", *_QUANTILE_NAMES, "below play's 5%"],
            [
                [name, *(f"{value:.1f}" for value in _quantiles(values)), f"{np.mean(values < low):.0%}"]
                for name, values in self._evidence_rows()
            ],
        )

    def _worst_table(self) -> _Titled:
        return _table(
            "steps of the demonstrations that are explained worst",
            ["demonstration", "step", "nats", "worst predicted", "error / usual error"],
            [
                [str(step.trajectory), str(step.step), f"{step.elbo:.1f}", step.sensor, f"{step.ratio:.1f}"]
                for step in self.evidence.worst
            ],
        )

    def _action_table(self) -> _Titled:
        return _table(
            f"actions: spread of their posterior ({self.actions[0].flat_spread:.2f} is flat), distance of the inverse "
            "model from its mean, error (and spread) of inferred actions",
            ["", "spread: play", "demos", "distance: play", "demos", "error: play", "demos", ""],
            [
                [
                    action.name,
                    f"{action.play_spread:.2f}",
                    f"{action.demo_spread:.2f}",
                    f"{action.play_disagreement:.2f}",
                    f"{action.demo_disagreement:.2f}",
                    *(
                        "" if error is None else f"{error[0]:.2f} ({error[1]:.2f})"
                        for error in (action.play_error, action.demo_error)
                    ),
                    "" if action.identified else "unidentified",
                ]
                for action in self.actions
            ]
            + [
                ["all, squared / variance", "", "", "", ""]
                + ["" if error is None else f"{error:.2f}" for error in (self.play_error, self.demo_error)]
                + [""]
            ],
        )

    def _coverage_table(self) -> _Titled:
        coverage = self.coverage
        rows = [
            [str(size), f"{error:.2f}", ""] for size, error in zip(coverage.sizes, coverage.errors, strict=True)
        ] or [["1", "", ""]]
        if coverage.training_error is not None:
            rows[-1][-1] = f"{coverage.training_error:.2f}"
        return _table(
            "coverage: error of a policy cloned from some demonstrations, in units of the actions' variance",
            ["cloned from", "on others", "on its own"],
            rows,
        )

    def figure(self, path: str | os.PathLike[str]) -> None:
        """Draw the evidence of the demonstrations over time, beside that of play.

        :param path: output file, in a format of matplotlib.
        """
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        evidence = self.evidence
        low, middle, high = _quantiles(evidence.play)
        figure, axis = plt.subplots(figsize=(8, 4.2), layout="constrained")
        for values in evidence.demos:
            axis.plot(np.arange(1, len(values) + 1), values - middle, color=_DEMOS, alpha=0.3, linewidth=0.8)
        for curves, colour, label in ((evidence.demos, _DEMOS, "inferred"), (evidence.demos_true, _TRUE, "true")):
            if curves is not None:
                padded = np.full((len(curves), max(map(len, curves))), np.nan)
                for row, values in zip(padded, curves, strict=True):
                    row[: len(values)] = values
                median = np.nanmedian(padded, axis=0) - middle
                label = f"demonstrations, {label} actions: median"
                axis.plot(np.arange(1, len(median) + 1), median, color=colour, linewidth=2, label=label)
        axis.axhspan(low - middle, high - middle, color=_PLAY, alpha=0.3, label="play, recorded actions: 5% to 95%")
        axis.axhline(0, color=_PLAY, linewidth=1.5)
        axis.set_yscale("symlog", linthresh=max(1e-3, 2 * (middle - low)))  # linear between the quantiles of play
        axis.set_ylim(top=max(1e-3, 2 * (high - middle)))
        axis.set_xlabel("step")
        axis.set_ylabel("evidence per step, from play's median (nats)")
        axis.set_title(f"{evidence.outside:.0%} of the steps below play's 5% quantile", fontsize=10)
        axis.legend(frameon=False, fontsize=7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
        figure.suptitle(f"verdict: {' and '.join(self.verdict)}", x=0.01, ha="left", fontsize=12)
        with atomically(Path(path)) as file:
            figure.savefig(file, dpi=150, format=Path(path).suffix[1:] or None)
        plt.close(figure)


_Titled: TypeAlias = tuple[Text, Table]
#: Colours of the figure: inferred actions of demonstrations, their true actions, play.
_DEMOS = "#1f5fbf"
_TRUE = "#b35900"
_PLAY = "0.55"
_QUANTILE_NAMES = ("5%", "median", "95%")


def _quantiles(values: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(values, [0.05, 0.5, 0.95]))


def _pooled(errors: Sequence[tuple[float, float] | None]) -> float | None:
    """Combine root mean square errors and stds of all entries to one squared error in units of the variance.

    Only entries with at least a tenth of the largest std count: those that are nearly constant in the demonstrations,
    such as a gripper that stays open, do not matter as much as the others.
    """
    greatest = max((error[1] for error in errors if error is not None), default=0.0)
    counted = [error for error in errors if error is not None and error[1] >= 0.1 * greatest]
    variance = sum(spread**2 for _, spread in counted)
    return sum(error**2 for error, _ in counted) / variance if variance > 0 else None


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> _Titled:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    return Text(title), table
