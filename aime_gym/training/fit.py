"""The one loop that every offline phase runs in: progress, metrics, interruption."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from stable_baselines3.common.logger import Logger

from aime_gym.progress import progress_bar
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


@dataclass
class Fit:
    """How a phase reports: its logger, callback and progress bar.

    :param updates: counted over all that ran in it.
    :param interrupted: whether Ctrl-C or the callback cut something short.
    """

    logger: Logger
    callback: PhaseCallback | None
    progress_bar: bool
    updates: int = 0
    interrupted: bool = False

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
            with progress_bar(phase, total, enabled=self.progress_bar) as advance:
                while done < total:
                    try:
                        window.append(update())
                    except Finished:
                        total = done
                    else:
                        done += 1
                        self.updates += 1
                        advance(1, "")
                    if window and (done % LOG_INTERVAL == 0 or done == total):
                        metrics, window = averaged(window), []
                        advance(0, f"loss {metrics['loss']:.4g}" if "loss" in metrics else "")
                        if not self._report(PhaseProgress(phase, done, total, metrics)):
                            self.interrupted = True
                            return False
        except KeyboardInterrupt:
            message = f"{phase}: interrupted after {done} of {total} updates; what was learnt is kept"
            warnings.warn(message, stacklevel=2)
            self.interrupted = True
            return False
        return True

    def _report(self, progress: PhaseProgress) -> bool:
        """Log, and ask the callback whether to go on."""
        for name, value in progress.metrics.items():
            self.logger.record(f"{progress.phase}/{name}", value)
        self.logger.record(f"{progress.phase}/updates", progress.updates)
        self.logger.dump(step=progress.updates)
        return self.callback is None or self.callback(progress) is not False


def averaged(window: list[Metrics]) -> dict[str, float]:
    """Mean of each metric over some updates; a non-finite loss ends training here, rather than in a useless agent."""
    metrics = {name: float(torch.stack([torch.as_tensor(m[name]) for m in window]).mean()) for name in window[0]}
    if not math.isfinite(metrics.get("loss", 0.0)):
        raise FloatingPointError(f"training diverged: the loss became {metrics['loss']}; lower the learning rate")
    return metrics
