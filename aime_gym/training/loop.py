"""The driver of updates, and what it shares with the driver of environment steps in [`rollouts`][].

Both count, show progress, log averages, write checkpoints, resume from them, and stop at Ctrl-C between two updates or
steps: all of that is in [`TrainingLoop`][], once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from aime_gym.data import SequenceSampler, TrajectoryDataset
from aime_gym.progress import progress_bar
from aime_gym.training.callbacks import StepCallbacks, UpdateCallbacks
from aime_gym.training.checkpoint import PhaseCheckpoint, RunState, Stateful, snapshot
from aime_gym.training.data_parallel import ONE_PROCESS, DataParallel
from aime_gym.training.optimizer import Optimizer
from aime_gym.training.signals import DeferredSignals
from aime_gym.types import Metrics, SequenceBatch

#: Updates between two entries in the log.
LOG_INTERVAL = 100

#: Moves a progress bar by some units, and shows a text beside it unless that is empty.
Advance = Callable[[int, str], None]


class RunComplete(Exception):
    """Raised by an update that has nothing left to do, before its run's last update."""


class StepCounter(Protocol):
    """Counts of an agent over all its phases."""

    num_updates: int
    num_timesteps: int


class UpdateRunner(Protocol):
    """Runs updates: a [`TrainingLoop`][], or a round of [`aime_gym.training.rollouts.Rollouts`][]."""

    def run(self, name: str, total: int, update: Callable[[], Metrics], state: Stateful) -> bool:
        """Call ``update`` up to ``total`` times, and return whether nothing stopped it; see [`TrainingLoop`][]."""
        ...


@dataclass
class TrainingLoop:
    """Driver of the updates of a phase, with all that the phase reports to and keeps.

    :param counter: the agent, whose updates and environment steps are counted.
    :param logger: SB3's logger.
    :param generator: source of all randomness of the updates.
    :param progress_bar: whether to show one.
    :param update_callbacks: the user's callback, in a phase of updates.
    :param step_callbacks: the user's callback, in a phase of environment steps.
    :param total_timesteps: budget of environment steps of such a phase; ``None`` leaves it to the agent.
    :param log_interval: rounds of such a phase between two entries in the log.
    :param checkpoint: file that keeps how far the phase came; ``None`` keeps nothing.
    :param signals: holds Ctrl-C back until an update is complete.
    :param parallel: processes that make the updates together, and stop together.
    :param updates: number of updates in the phase so far.
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
    parallel: DataParallel = ONE_PROCESS
    updates: int = 0
    interrupted: bool = False

    def run(self, name: str, total: int, update: Callable[[], Metrics], state: Stateful) -> bool:
        """Call ``update`` ``total`` times, or as often as a checkpoint left to do.

        Metrics are averaged between log entries and appear in the logger as ``name/metric``.

        :param update: function that makes one update, and may raise [`RunComplete`][].
        :param state: object that holds all that ``update`` changes, the generator aside.
        :return: whether the run came to its end, rather than being stopped by Ctrl-C or by the callback. What was
            learnt until then is kept either way.
        :raises KeyboardInterrupt: Ctrl-C where a checkpoint is kept: it is written, and the rest is for another time.
        """
        callbacks = self.update_callbacks

        def body(run: RunState, advance: Advance) -> bool:
            if callbacks is not None:
                callbacks.start(name, total, run.updates)
            for _ in self.count_updates(run.window, total - run.updates, update):
                run.updates += 1
                advance(1, "")
                if run.updates % LOG_INTERVAL == 0 or run.updates == total:
                    self._log_updates(run, advance)
                received = self.parallel.largest(self.signals.pending)
                due = self.checkpoint is not None and run.updates % self.checkpoint.interval == 0
                if due or received:
                    self._write_checkpoint(run, state.state_dict())
                if received:
                    self.signals.raise_pending(received)
                stopped = callbacks is not None and not callbacks.update(run.updates)
                if self.parallel.largest(stopped):
                    return False
            self._log_updates(run, advance)
            return True

        return self.drive(name, total, "updates", state, body, end=None if callbacks is None else callbacks.end)

    def minimize(self, name: str, total: int, loss: Callable[[], tuple[Tensor, Metrics]], optimizer: Optimizer) -> bool:
        """Run gradient steps on a loss.

        :param loss: function that computes the scalar to minimise, on a new batch at each call, and its metrics.
        :return: as [`run`][].
        """

        def update() -> Metrics:
            value, metrics = loss()
            return self.parallel.averaged(metrics) | {"gradient_norm": optimizer.step(value)}

        return self.run(name, total, update, optimizer)

    # Shared with the driver of environment steps

    def count_updates(self, window: list[Metrics], total: int, update: Callable[[], Metrics]) -> Iterator[None]:
        """Make up to ``total`` updates; yields after each.

        :param window: list to which the metrics of each are appended.
        """
        for _ in range(total):
            try:
                window.append(update())
            except RunComplete:
                return
            self.updates += 1
            self.counter.num_updates += 1
            yield

    def drive(
        self,
        name: str,
        total: int,
        unit: str,
        state: Stateful | None,
        body: Callable[[RunState, Advance], bool],
        *,
        end: Callable[[], None] | None,
    ) -> bool:
        """Do what a checkpoint has left of a run, with a progress bar, up to its end or to Ctrl-C.

        :param name: title of the progress bar and of warnings.
        :param total: number of units that make the run complete.
        :param unit: counter of [`RunState`][] that shows how far the run came: ``updates``, ``steps``, ``episodes``.
        :param state: object that holds all that ``body`` changes, the generator and the counters aside; ``None`` where
            nothing is kept.
        :param body: function that does the work, counts in the [`RunState`][], and returns whether it came to its
            end.
        :param end: function to call whenever ``body`` is over, however it ended.
        :return: as [`run`][].
        """
        run = self.checkpoint.enter(name) if self.checkpoint is not None else RunState(name)
        if run.state is not None and run.generator is not None:
            assert state is not None
            state.load_state_dict(run.state)
            self.generator.set_state(run.generator)
            self.updates += run.updates
            self.counter.num_updates += run.updates
            self.counter.num_timesteps += run.steps
        if run.ended:
            return run.completed
        try:
            with progress_bar(name, total, enabled=self.progress_bar) as advance:
                advance(getattr(run, unit), "")
                run.completed = body(run, advance)
        except KeyboardInterrupt:
            # One of several processes cannot go on to what follows without knowing of the others.
            if self.checkpoint is not None or self.parallel.size > 1:
                raise
            done = f"{getattr(run, unit)} of {total} {unit}"
            warnings.warn(f"{name}: interrupted after {done}; what was learnt is kept", stacklevel=3)
            run.completed = False
        finally:
            if end is not None:
                end()
        run.ended = True
        self.interrupted |= not run.completed
        if state is not None:
            self._write_checkpoint(run, snapshot(state.state_dict()))
        return run.completed

    def _write_checkpoint(self, run: RunState, state: Any) -> None:
        if self.checkpoint is not None:
            run.state = state
            run.generator = self.generator.get_state()
            self.checkpoint.write()

    def record_averages(self, name: str, window: list[Metrics]) -> dict[str, float]:
        """Record the mean of each metric since the last log entry as ``name/metric``, and empty the window."""
        metrics = averaged(window)
        window.clear()
        for metric, value in metrics.items():
            self.logger.record(f"{name}/{metric}", value)
        return metrics

    def _log_updates(self, run: RunState, advance: Advance) -> None:
        """Write an entry for the updates since the last one."""
        if not run.window:
            return
        metrics = self.record_averages(run.name, run.window)
        advance(0, f"loss {metrics['loss']:.4g}" if "loss" in metrics else "")
        self.logger.record(f"{run.name}/updates", run.updates)
        self.logger.dump(step=self.counter.num_updates)
        if self.update_callbacks is not None:
            self.update_callbacks.log(metrics)


def averaged(window: list[Metrics]) -> dict[str, float]:
    """Return the mean of each metric over some updates.

    :raises FloatingPointError: a loss that is not finite, which ends training here rather than in a useless agent.
    """
    names = window[0] if window else ()
    metrics = {name: float(torch.stack([torch.as_tensor(m[name]).cpu() for m in window]).mean()) for name in names}
    if not math.isfinite(metrics.get("loss", 0.0)):
        raise FloatingPointError(f"training diverged: the loss became {metrics['loss']}; lower the learning rate")
    return metrics


class SequenceConfig(Protocol):
    """Options of a configuration that all updates on sequences follow."""

    @property
    def batch_size(self) -> int:
        """Sequences per update."""

    @property
    def sequence_length(self) -> int:
        """Records per sequence."""

    @property
    def max_grad_norm(self) -> float:
        """Largest global norm of a gradient."""

    @property
    def decay_learning_rate(self) -> bool:
        """Whether the learning rate falls linearly to zero."""


def train_on_sequences(
    name: str,
    module: nn.Module,
    loss: Callable[[SequenceBatch], tuple[Tensor, Metrics]],
    dataset: TrajectoryDataset,
    loop: TrainingLoop,
    config: SequenceConfig,
    *,
    updates: int,
    learning_rate: float,
    matrix_learning_rate: float | None = None,
    start_fraction: float,
) -> bool:
    """Train a module on batches of sequences.

    :param loss: scalar to minimise on a batch, such as the negative evidence, and its metrics.
    :param start_fraction: share of sequences that start where an episode starts.
    :return: whether the run came to its end.
    """
    sampler = SequenceSampler(
        dataset,
        sequence_length=config.sequence_length,
        batch_size=config.batch_size,
        generator=loop.generator,
        start_fraction=start_fraction,
        part=loop.parallel.part(config.batch_size),
    )
    optimizer = Optimizer(
        [module],
        learning_rate,
        matrix_learning_rate=matrix_learning_rate,
        max_grad_norm=config.max_grad_norm,
        decay_updates=updates if config.decay_learning_rate else None,
        parallel=loop.parallel,
    )
    return loop.minimize(name, updates, lambda: loss(sampler.sample()), optimizer)
