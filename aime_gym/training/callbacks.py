"""SB3's callbacks in phases of updates, and in phases of environment steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.type_aliases import MaybeCallback

#: What SB3's callbacks count steps with.
_CLOCKS = ("n_calls", "num_timesteps", "last_time_trigger")


def with_update_clock(agent: BaseAlgorithm) -> BaseAlgorithm:
    """Return an agent as a callback sees it in an offline phase: its ``num_timesteps`` counts updates.

    It shares all attributes with the agent, and is of a subclass of the same name: ``isinstance``, ``vars`` and
    ``copy`` find what they find in the agent.
    """
    kind = type(agent)
    body = {"num_timesteps": property(_updates, _set_timesteps), "__module__": kind.__module__, "__doc__": kind.__doc__}
    view: BaseAlgorithm = object.__new__(type(kind.__name__, (kind,), body))
    view.__dict__ = agent.__dict__
    return view


def _updates(agent: BaseAlgorithm) -> int:
    return int(vars(agent)["num_updates"])


def _set_timesteps(agent: BaseAlgorithm, value: int) -> None:
    vars(agent)["num_timesteps"] = value


class UpdateCallbacks:
    """Lets a callback watch the runs of a phase: one ``on_step`` for each update.

    Whatever the callback does every n steps (evaluate, save, stop) it does every n updates here: what it calls
    ``n_calls`` and ``num_timesteps`` is the number of the agent's updates, over all phases. Its ``locals`` hold
    ``phase``, ``updates`` and ``total`` of the run, and ``metrics``, the averages of the last log entry. When the phase
    is over the callback has back what it had counted of environment steps, so the same object can go on in ``learn``.

    Once it has returned ``False`` it is not asked again in this phase: the run ends there, and what the phase cannot do
    without, such as an inverse model, is still fitted.

    :param callback: what SB3's ``learn`` accepts: a callback, a list of them, a function of locals and globals.
    """

    def __init__(self, callback: MaybeCallback, agent: BaseAlgorithm) -> None:
        self._callback = _as_callback(callback)
        self._agent, self._view = agent, with_update_clock(agent)
        self._stopped = self._running = False
        self._locals: dict[str, Any] = {}
        self._clocks: list[tuple[BaseCallback, dict[str, int]]] = []

    def __enter__(self) -> UpdateCallbacks:
        if self._callback is not None:
            for callback, every_step in _tree(self._callback):
                clocks = {name: vars(callback)[name] for name in _CLOCKS if name in vars(callback)}
                if not every_step:  # it counts events, such as evaluations
                    clocks.pop("n_calls")
                self._clocks.append((callback, clocks))
                vars(callback).update(dict.fromkeys(clocks, self._view.num_timesteps))
            self._callback.init_callback(self._view)
        return self

    def __exit__(self, *error: object) -> None:
        for callback, clocks in self._clocks:
            vars(callback).update(clocks, model=self._agent)

    def start(self, phase: str, total: int, updates: int) -> None:
        """A run of updates starts, or goes on after ``updates`` of them."""
        if self._callback is None or self._stopped:
            return
        now, environments = self._view.num_timesteps, self._agent.n_envs
        for callback, clocks in self._clocks:
            if "n_calls" in clocks:
                callback.n_calls = now
        self._locals = {
            "self": self._agent,
            "phase": phase,
            "updates": updates,
            "total": total,
            "metrics": {},
            # What the callbacks of SB3 look for: a step of all environments counts for each of them there.
            "total_timesteps": now + (total - updates) * environments,
            "dones": np.zeros(environments, bool),
            "infos": [{} for _ in range(environments)],
        }
        self._callback.on_training_start(self._locals, {})
        self._running = True

    def log(self, metrics: dict[str, float]) -> None:
        """There was a log entry."""
        self._locals["metrics"] = metrics

    def update(self, updates: int) -> bool:
        """An update is complete; returns whether to go on."""
        if self._callback is None or self._stopped:
            return True
        self._locals["updates"] = updates
        self._callback.update_locals(self._locals)
        answer = self._callback.on_step()
        # A function that returns nothing goes on; NumPy's False is a False.
        self._stopped = answer is not None and not answer
        return not self._stopped

    def end(self) -> None:
        """The run is over."""
        if self._callback is not None and self._running:
            self._callback.on_training_end()
        self._running = False


class StepCallbacks:
    """Lets a callback watch an agent that interacts: one ``on_step`` for each step of all environments, as in SB3.

    Its ``locals`` are those of SB3's algorithm inside, ``self`` excepted, which is the agent. Once it has returned
    ``False`` the phase ends.

    :param callback: what SB3's ``learn`` accepts: a callback, a list of them, a function of locals and globals.
    """

    def __init__(self, callback: MaybeCallback, agent: BaseAlgorithm) -> None:
        self._callback = _as_callback(callback)
        self._agent = agent
        self._running = False

    @property
    def watches(self) -> bool:
        """Whether there is a callback."""
        return self._callback is not None

    def start(self, local_values: dict[str, Any]) -> None:
        """The interaction starts."""
        if self._callback is not None:
            self._callback.init_callback(self._agent)
            self._callback.on_training_start(local_values | {"self": self._agent}, {})
            self._running = True

    def rollout_start(self) -> None:
        """Experience is about to be collected."""
        if self._callback is not None:
            self._callback.on_rollout_start()

    def step(self, local_values: dict[str, Any]) -> bool:
        """A step is complete; returns whether to go on."""
        if self._callback is None:
            return True
        self._callback.update_locals(local_values | {"self": self._agent})
        answer = self._callback.on_step()
        return answer is None or bool(answer)

    def rollout_end(self, local_values: dict[str, Any]) -> None:
        """Experience has been collected, and will be learnt from."""
        if self._callback is not None:
            self._callback.update_locals(local_values | {"self": self._agent})
            self._callback.on_rollout_end()

    def end(self) -> None:
        """The interaction is over, however it ended."""
        if self._callback is not None and self._running:
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
    """A callback and those that it calls, and whether each is called at every step."""
    yield callback, every_step
    for name, value in vars(callback).items():
        for child in value if isinstance(value, list) else [value]:
            if name != "parent" and isinstance(child, BaseCallback):
                yield from _tree(child, every_step and isinstance(callback, CallbackList))
