"""The one loop that every offline phase runs in: progress, metrics, callbacks, interruption, checkpoints."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from stable_baselines3.common.logger import Logger

from aime_gym.progress import progress_bar
from aime_gym.training.callbacks import StepCallbacks, UpdateCallbacks
from aime_gym.training.checkpoint import PhaseCheckpoint, RunState, Stateful, snapshot
from aime_gym.training.signals import DeferredSignals
from aime_gym.types import Metrics

#: Updates between two entries in the log.
LOG_INTERVAL = 100


class RunComplete(Exception):
    """Raised by an update that has nothing left to do, before its run's last update."""


class StepCounter(Protocol):
    """Who counts updates and environment steps over all phases: an agent."""

    num_updates: int
    num_timesteps: int


@dataclass
class TrainingLoop:
    """How a phase reports, stops and goes on.

    :param counter: counts along.
    :param logger: of SB3.
    :param generator: all randomness of the updates.
    :param progress_bar: whether to show one.
    :param update_callbacks: the user's callback, in a phase of updates.
    :param step_callbacks: the user's callback, in a phase that interacts.
    :param total_timesteps: environment steps that such a phase was given; ``None`` leaves them to the agent.
    :param log_interval: rounds of such a phase between two entries in the log.
    :param checkpoint: where the phase is kept; ``None`` keeps nothing.
    :param signals: holds Ctrl-C back until an update is complete.
    :param updates: counted over all that ran in the phase.
    :param interrupted: whether Ctrl-C or the callback cut something short.
    """

    counter: StepCounter
    logger: Logger
    generator: torch.Generator
    progress_bar: bool
    update_callbacks: UpdateCallbacks | None = None
    step_callbacks: StepCallbacks | None = None
    total_timesteps: int | None = None
    log_interval: int = 1
    checkpoint: PhaseCheckpoint | None = None
    signals: DeferredSignals = field(default_factory=lambda: DeferredSignals(terminations=False))
    updates: int = 0
    interrupted: bool = False

    def run(self, phase: str, total: int, update: Callable[[], Metrics], state: Stateful) -> bool:
        """Call ``update`` ``total`` times, or as often as a checkpoint left to do.

        Metrics are averaged between log entries and appear in the logger as ``phase/name``.

        :param update: one update; may raise :class:`RunComplete`.
        :param state: all that ``update`` changes, the generator aside.
        :return: whether the run came to its end, rather than being stopped by Ctrl-C or by the callback. What was
            learnt until then is kept either way.
        :raises KeyboardInterrupt: Ctrl-C where a checkpoint is kept: it is written, and the rest is for another time.
        """
        run = self.checkpoint.enter(phase) if self.checkpoint is not None else RunState(phase)
        if run.state is not None and run.generator is not None:
            state.load_state_dict(run.state)
            self.generator.set_state(run.generator)
            self._count(run.updates)
        if run.ended:
            return run.completed
        if self.update_callbacks is not None:
            self.update_callbacks.start(phase, total, run.updates)
        try:
            run.completed = self._loop(run, total, update, state)
        except KeyboardInterrupt:
            if self.checkpoint is not None:
                raise
            message = f"{phase}: interrupted after {run.updates} of {total} updates; what was learnt is kept"
            warnings.warn(message, stacklevel=2)
            run.completed = False
        finally:
            if self.update_callbacks is not None:
                self.update_callbacks.end()
        run.ended = True
        self.interrupted |= not run.completed
        self._keep(run, snapshot(state.state_dict()))
        return run.completed

    def _loop(self, run: RunState, total: int, update: Callable[[], Metrics], state: Stateful) -> bool:
        with progress_bar(run.name, total, enabled=self.progress_bar) as advance:
            advance(run.updates, "")
            while run.updates < total:
                try:
                    run.window.append(update())
                except RunComplete:
                    self._log(run, advance)
                    break
                run.updates += 1
                self._count(1)
                advance(1, "")
                if run.updates % LOG_INTERVAL == 0 or run.updates == total:
                    self._log(run, advance)
                if self.signals.pending:
                    self._keep(run, state.state_dict())
                    self.signals.raise_pending()
                elif self.checkpoint is not None and run.updates % self.checkpoint.interval == 0:
                    self._keep(run, state.state_dict())
                if self.update_callbacks is not None and not self.update_callbacks.update(run.updates):
                    return False
        return True

    def _count(self, updates: int) -> None:
        self.updates += updates
        self.counter.num_updates += updates

    def _keep(self, run: RunState, state: Mapping[str, Any]) -> None:
        if self.checkpoint is not None:
            run.state, run.generator = state, self.generator.get_state()
            self.checkpoint.write()

    def _log(self, run: RunState, advance: Callable[[int, str], None]) -> None:
        """An entry for the updates since the last one."""
        if not run.window:
            return
        metrics, run.window = averaged(run.window), []
        advance(0, f"loss {metrics['loss']:.4g}" if "loss" in metrics else "")
        for name, value in metrics.items():
            self.logger.record(f"{run.name}/{name}", value)
        self.logger.record(f"{run.name}/updates", run.updates)
        self.logger.dump(step=self.counter.num_updates)
        if self.update_callbacks is not None:
            self.update_callbacks.log(metrics)


def averaged(window: list[Metrics]) -> dict[str, float]:
    """Mean of each metric over some updates; a non-finite loss ends training here, rather than in a useless agent."""
    metrics = {name: float(torch.stack([torch.as_tensor(m[name]).cpu() for m in window]).mean()) for name in window[0]}
    if not math.isfinite(metrics.get("loss", 0.0)):
        raise FloatingPointError(f"training diverged: the loss became {metrics['loss']}; lower the learning rate")
    return metrics
