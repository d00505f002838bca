"""SB3's callbacks in phases of updates, and in phases of environment steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.type_aliases import MaybeCallback

#: Counters of SB3's callbacks.
_COUNTERS = ("n_calls", "num_timesteps", "last_time_trigger")


class CallbackModel(Protocol):
    """An agent as callbacks know it, which expect an algorithm of SB3's."""

    num_timesteps: int
    num_updates: int
    n_envs: int


def with_update_clock(agent: CallbackModel) -> CallbackModel:
    """Return an agent as a callback sees it in an offline phase: its ``num_timesteps`` counts updates.

    It shares all attributes with the agent, and is of a subclass of the same name: ``isinstance``, ``vars`` and
    ``copy`` find what they find in the agent.
    """
    kind = type(agent)
    body = {"num_timesteps": property(_updates, _set_timesteps), "__module__": kind.__module__, "__doc__": kind.__doc__}
    view: CallbackModel = object.__new__(type(kind.__name__, (kind,), body))
    view.__dict__ = agent.__dict__
    return view


def _updates(agent: CallbackModel) -> int:
    return int(agent.num_updates)


def _set_timesteps(agent: CallbackModel, value: int) -> None:
    vars(agent)["num_timesteps"] = value


class UpdateCallbacks:
    """Calls a user's callback in a phase of updates: one ``on_step`` for each update.

    Whatever the callback does every n steps (evaluate, save, stop) it does every n updates here: its ``n_calls`` and
    ``num_timesteps`` count the agent's updates, over all phases. Its ``locals`` hold ``phase``, ``updates`` and
    ``total`` of the run, and ``metrics``, the averages of the last log entry. When the phase is over, its counters show
    environment steps again, as before the phase, so that the same object can be used in ``learn``.

    Once it has returned ``False`` it is not called again in this phase: the run ends there, and what the phase cannot
    do without, such as an inverse model, is still fitted.

    :param callback: callback of SB3, a list of them, or a function of locals and globals, as in SB3's ``learn``.
    :param agent: the agent that the phase trains.
    """

    def __init__(self, callback: MaybeCallback, agent: CallbackModel) -> None:
        self._callback = _as_callback(callback)
        self._agent = agent
        self._view = with_update_clock(agent)
        self._stopped = self._running = False
        self._locals: dict[str, Any] = {}
        self._counters: list[tuple[BaseCallback, dict[str, int]]] = []

    def __enter__(self) -> UpdateCallbacks:
        if self._callback is not None:
            for callback, every_step in _tree(self._callback):
                counters = {name: vars(callback)[name] for name in _COUNTERS if name in vars(callback)}
                if not every_step:  # it counts events, such as evaluations
                    counters.pop("n_calls")
                self._counters.append((callback, counters))
                vars(callback).update(dict.fromkeys(counters, self._view.num_timesteps))
            self._callback.init_callback(self._view)  # type: ignore[arg-type]
        return self

    def __exit__(self, *error: object) -> None:
        for callback, counters in self._counters:
            vars(callback).update(counters, model=self._agent)

    def start(self, phase: str, total: int, updates: int) -> None:
        """Call ``on_training_start`` for a run of ``total`` updates, of which ``updates`` were made before."""
        if self._callback is None or self._stopped:
            return
        now = self._view.num_timesteps
        environments = self._agent.n_envs
        for callback, counters in self._counters:
            if "n_calls" in counters:
                callback.n_calls = now
        self._locals = {
            "self": self._agent,
            "phase": phase,
            "updates": updates,
            "total": total,
            "metrics": {},
            # Entries that the callbacks of SB3 look for: a step of all environments counts for each of them there.
            "total_timesteps": now + (total - updates) * environments,
            "dones": np.zeros(environments, bool),
            "infos": [{} for _ in range(environments)],
        }
        self._callback.on_training_start(self._locals, {})
        self._running = True

    def log(self, metrics: dict[str, float]) -> None:
        """Keep the averages of the last log entry for the callback."""
        self._locals["metrics"] = metrics

    def update(self, updates: int) -> bool:
        """Call ``on_step`` after an update, and return whether to continue."""
        if self._callback is None or self._stopped:
            return True
        self._locals["updates"] = updates
        self._callback.update_locals(self._locals)
        answer = self._callback.on_step()
        # A function that returns nothing continues; NumPy's False is a False.
        self._stopped = answer is not None and not answer
        return not self._stopped

    def end(self) -> None:
        """Call ``on_training_end`` for the run."""
        if self._callback is not None and self._running:
            self._callback.on_training_end()
        self._running = False


class StepCallbacks:
    """Calls a user's callback in a phase of environment steps: one ``on_step`` for each step of all copies, as in SB3.

    Its ``locals`` are those of SB3's algorithm inside, ``self`` excepted, which is the agent. Once it has returned
    ``False`` the phase ends.

    :param callback: callback of SB3, a list of them, or a function of locals and globals, as in SB3's ``learn``.
    :param agent: the agent that takes the steps.
    """

    def __init__(self, callback: MaybeCallback, agent: CallbackModel) -> None:
        self._callback = _as_callback(callback)
        self._agent = agent
        self._running = False
        #: Context in which the callback is called: one that gives it random numbers of its own, for example.
        self.context: Callable[[], AbstractContextManager[None]] = nullcontext

    def start(self, local_values: dict[str, Any]) -> None:
        """Call ``on_training_start``."""
        if self._callback is not None:
            with self.context():
                self._callback.init_callback(self._agent)  # type: ignore[arg-type]
                self._callback.on_training_start(local_values | {"self": self._agent}, {})
            self._running = True

    def rollout_start(self) -> None:
        """Call ``on_rollout_start``."""
        if self._callback is not None:
            with self.context():
                self._callback.on_rollout_start()

    def step(self, local_values: dict[str, Any]) -> bool:
        """Call ``on_step``, and return whether to continue."""
        if self._callback is None:
            return True
        self._callback.update_locals(local_values | {"self": self._agent})
        with self.context():
            answer = self._callback.on_step()
        return answer is None or bool(answer)

    def rollout_end(self, local_values: dict[str, Any]) -> None:
        """Call ``on_rollout_end``."""
        if self._callback is not None:
            self._callback.update_locals(local_values | {"self": self._agent})
            with self.context():
                self._callback.on_rollout_end()

    def end(self) -> None:
        """Call ``on_training_end``, however the interaction ended."""
        if self._callback is not None and self._running:
            with self.context():
                self._callback.on_training_end()
        self._running = False


def _as_callback(callback: MaybeCallback) -> BaseCallback | None:
    if callback is None or isinstance(callback, BaseCallback):
        return callback
    if isinstance(callback, list):
        return CallbackList(callback)
    if callable(callback):
        return ConvertCallback(callback)
    raise TypeError(f"callback: expected an SB3 callback, a list of them, or a function, got {type(callback).__name__}")


def _tree(callback: BaseCallback, every_step: bool = True) -> Iterator[tuple[BaseCallback, bool]]:
    """Yield a callback and those that it calls, and whether each is called at every step."""
    yield callback, every_step
    for name, value in vars(callback).items():
        for child in value if isinstance(value, list) else [value]:
            if name != "parent" and isinstance(child, BaseCallback):
                yield from _tree(child, every_step and isinstance(callback, CallbackList))
