"""The one loop that every offline phase runs in: progress, metrics, interruption."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from stable_baselines3.common.logger import Logger

from aime_gym.types import Metrics

#: Updates between two entries in the log.
LOG_INTERVAL = 100


class Finished(Exception):
    """Raised by an update that has nothing left to do, before its phase's last update."""


class PhaseProgress(NamedTuple):
    """What a callback of an offline phase is told at each log entry."""

    phase: str
    updates: int
    total: int
    metrics: dict[str, float]


#: Called at each log entry; returning ``False`` ends the phase early.
PhaseCallback: TypeAlias = Callable[[PhaseProgress], bool | None]


class Fit(NamedTuple):
    """How a phase reports: its logger, callback and progress bar."""

    logger: Logger
    callback: PhaseCallback | None
    progress_bar: bool

    def run(self, phase: str, total: int, update: Callable[[], Metrics]) -> bool:
        """Call ``update`` ``total`` times.

        Metrics are averaged between log entries and appear in the logger as ``phase/name``.

        :param update: one update; may raise :class:`Finished`.
        :return: whether the phase ran to its end, rather than being stopped by Ctrl-C or by the callback. What was
            learnt until then is kept either way.
        """
        window: list[Metrics] = []
        done = 0
        try:
            with progress(phase, total, enabled=self.progress_bar) as advance:
                for done in range(1, total + 1):
                    window.append(update())
                    if done % LOG_INTERVAL and done < total:
                        advance(1, "")
                        continue
                    metrics, window = averaged(window), []
                    for name, value in metrics.items():
                        self.logger.record(f"{phase}/{name}", value)
                    self.logger.record(f"{phase}/updates", done)
                    self.logger.dump(step=done)
                    advance(1, f"loss {metrics['loss']:.4g}" if "loss" in metrics else "")
                    if self.callback is None:
                        continue
                    if self.callback(PhaseProgress(phase, done, total, metrics)) is False:
                        return False
        except Finished:
            return True
        except KeyboardInterrupt:
            warnings.warn(
                f"{phase}: interrupted after {done} of {total} updates; what was learnt is kept", stacklevel=2
            )
            return False
        return True


@contextmanager
def progress(title: str, total: int, *, enabled: bool) -> Iterator[Callable[[int, str], None]]:
    """A progress bar on stderr; yields ``advance(steps, text)``."""
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(
        *columns, TextColumn("{task.fields[text]}"), console=Console(stderr=True), disable=not enabled
    ) as bar:
        task = bar.add_task(title, total=total, text="")

        def advance(steps: int, text: str) -> None:
            bar.advance(task, steps)
            if text:
                bar.update(task, text=text)

        yield advance


def averaged(window: list[Metrics]) -> dict[str, float]:
    """Mean of each metric over some updates; a non-finite loss ends training here, rather than in a useless agent."""
    metrics = {name: float(torch.stack([torch.as_tensor(m[name]) for m in window]).mean()) for name in window[0]}
    if not math.isfinite(metrics.get("loss", 0.0)):
        raise FloatingPointError(f"training diverged: the loss became {metrics['loss']}; lower the learning rate")
    return metrics
