"""The one loop of every online phase: rounds of environment steps and updates, counted, watched, and kept."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

from aime_gym.progress import progress_bar
from aime_gym.training.checkpoint import RunState, Stateful, snapshot
from aime_gym.training.loop import TrainingLoop, averaged
from aime_gym.types import Metrics


class Rounds:
    """How an online phase takes its environment steps.

    A round starts with a reset of the environment, by a seed from the phase's generator, and ends before the next one.
    So no state of an environment outlives a round, and a checkpoint between two rounds holds all that there is: a
    resumed phase ends as an uninterrupted one.

    :param loop: of a phase with ``online``.
    :param phase: its name in the log.
    :param total: environment steps; the last round may take more.
    :param state: all that a round changes, the generator and the counters aside.
    """

    def __init__(self, loop: TrainingLoop, phase: str, total: int, state: Stateful) -> None:
        assert loop.step_callbacks is not None
        self._loop_state, self._phase, self._total, self._state = loop, phase, total, state
        self._callbacks, self._counter = loop.step_callbacks, loop.counter
        self._advance: Callable[[int, str], None] = lambda steps, text: None
        #: Whether the callback has asked to stop.
        self.stopped = False

    def run(self, play_round: Callable[[], Metrics]) -> bool:
        """Play rounds until all steps are taken, or those that a checkpoint left.

        :param play_round: takes steps and makes updates, which it reports to :meth:`step` and :meth:`update`; returns
            what else is to be logged, by whole names.
        :return: whether the phase came to its end, rather than being stopped by Ctrl-C or by the callback.
        :raises KeyboardInterrupt: Ctrl-C where a checkpoint is kept.
        """
        loop, checkpoint = self._loop_state, self._loop_state.checkpoint
        run = checkpoint.enter(self._phase) if checkpoint is not None else RunState(self._phase)
        if run.state is not None and run.generator is not None:
            self._state.load_state_dict(run.state)
            loop.generator.set_state(run.generator)
            self._counter.num_timesteps += run.steps
            self._counter.num_updates += run.updates
        if run.ended:
            return run.completed
        try:
            run.completed = self._loop(run, play_round)
        except KeyboardInterrupt:
            if checkpoint is not None:
                if run.state is not None:  # as the last round left it: this one is played again
                    checkpoint.write()
                raise
            message = f"{self._phase}: interrupted after {run.steps} of {self._total} steps; what was learnt is kept"
            warnings.warn(message, stacklevel=2)
            run.completed = False
        finally:
            self._callbacks.end()
        run.ended = True
        loop.interrupted |= not run.completed
        if checkpoint is not None:
            self._keep(run)
            checkpoint.write()
        return run.completed

    def _loop(self, run: RunState, play_round: Callable[[], Metrics]) -> bool:
        loop, counter, kept, began = self._loop_state, self._counter, run.updates, time.monotonic()
        first = run.steps
        rounds = 0
        with progress_bar(self._phase, self._total, enabled=loop.progress_bar) as advance:
            self._advance = advance
            advance(run.steps, "")
            self._callbacks.start({"total_timesteps": counter.num_timesteps + self._total - run.steps})
            while run.steps < self._total:
                steps, updates = counter.num_timesteps, counter.num_updates
                self._window: list[Metrics] = []
                self._callbacks.rollout_start()
                also = play_round()
                run.steps += counter.num_timesteps - steps
                run.updates += counter.num_updates - updates
                rounds += 1
                if rounds % loop.log_interval == 0 or run.steps >= self._total:
                    self._log(also | {"time/fps": (run.steps - first) / max(time.monotonic() - began, 1e-9)})
                if self.stopped:
                    return False
                if loop.checkpoint is not None:
                    self._keep(run)
                    if run.updates - kept >= loop.checkpoint.interval:
                        loop.checkpoint.write()
                        kept = run.updates
        return True

    def step(self, environments: int, local_values: dict[str, Any]) -> bool:
        """A step of all environments is complete; returns whether to go on.

        :param local_values: what callbacks of SB3 look for: ``infos``, ``dones``, ``rewards``, ``new_obs``.
        :raises KeyboardInterrupt: Ctrl-C.
        """
        self._counter.num_timesteps += environments
        self._advance(environments, "")
        self._loop_state.signals.raise_pending()
        if self._callbacks.watches and not self._callbacks.step(local_values):
            self.stopped = True
        return not self.stopped

    def collected(self, local_values: dict[str, Any]) -> None:
        """The steps of this round are taken; its updates follow."""
        self._callbacks.rollout_end(local_values)

    def update(self, metrics: Metrics) -> None:
        """An update is complete.

        :raises KeyboardInterrupt: Ctrl-C.
        """
        self._counter.num_updates += 1
        self._window.append(metrics)
        self._loop_state.signals.raise_pending()

    def _keep(self, run: RunState) -> None:
        run.state, run.generator = snapshot(self._state.state_dict()), self._loop_state.generator.get_state()

    def _log(self, also: Metrics) -> None:
        logger = self._loop_state.logger
        if self._window:
            also = also | {f"{self._phase}/{name}": value for name, value in averaged(self._window).items()}
        for name, value in also.items():
            logger.record(name, float(value))
        logger.record("time/total_timesteps", self._counter.num_timesteps)
        logger.record(f"{self._phase}/updates", self._counter.num_updates)
        logger.dump(step=self._counter.num_timesteps)
