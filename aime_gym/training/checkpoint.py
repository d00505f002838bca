"""Checkpoints of a phase: a file from which the next process resumes what a killed one had begun."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from aime_gym.serialization import plain_number, read_archive, write_archive
from aime_gym.training.data_parallel import ONE_PROCESS, DataParallel
from aime_gym.types import Metrics

_WHAT = "a checkpoint"


class Stateful(Protocol):
    """Anything that updates change: weights, moments, the position in the data."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state as nested JSON values and tensors."""

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Take over a state."""


@dataclass
class RunState:
    """Progress of one run of updates, or of environment steps.

    :param name: name of the run in the log.
    :param updates: number of updates so far.
    :param steps: number of environment steps so far.
    :param episodes: number of episodes so far.
    :param ended: whether nothing is left to do.
    :param completed: whether the run ended by itself, rather than by a callback.
    :param window: metrics since the last log entry.
    :param state: state of all that the updates change; ``None`` before the first checkpoint.
    :param generator: state of the source of their randomness, taken with ``state``.
    """

    name: str
    updates: int = 0
    steps: int = 0
    episodes: int = 0
    ended: bool = False
    completed: bool = True
    window: list[Metrics] = field(default_factory=list)
    state: Mapping[str, Any] | None = None
    generator: Tensor | None = None


class PhaseCheckpoint:
    """The file of one phase.

    A phase is a fixed function of the agent that it starts from and of its data: passes over the data, and runs of
    updates. So the file holds the agent at the start, the end of each finished run, and the middle of the current one.
    A resumed phase repeats what lies between the runs, and loads the runs.

    :param path: file that is written at least every ``interval`` updates, and at the end of each run.
    :param interval: number of updates between two checkpoints.
    :param identity: JSON values that have to agree for a file to be of this phase.
    :param parallel: processes of the phase, which all read the file; the first one writes it.
    :raises ValueError: a file that is damaged, or of another phase.
    """

    def __init__(
        self, path: Path, *, interval: int, identity: Mapping[str, Any], parallel: DataParallel = ONE_PROCESS
    ) -> None:
        self.path, self.interval, self._parallel = path, interval, parallel
        self.identity: dict[str, Any] = json.loads(json.dumps(identity, default=plain_number))
        #: Document of the agent at the start, or at the end once ``finished``; ``None`` before ``begin``.
        self.agent: dict[str, Any] | None = None
        self.finished = False
        self.runs: list[RunState] = []
        self._entered = 0
        if path.exists():
            self._read()

    def _read(self) -> None:
        document = read_archive(self.path, what=_WHAT)
        try:
            checkpoint = document.pop("checkpoint")
            identity = checkpoint["identity"]
            self.finished = checkpoint["finished"]
            division = {name: checkpoint.get(name, number) for name, number in self._division.items()}
            self.runs = [RunState(**run) for run in checkpoint["runs"]]
            differing = [key for key in self.identity if identity.get(key) != self.identity[key]]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"path: expected {_WHAT}, got {self.path} ({type(error).__name__}: {error})") from error
        if differing:
            raise ValueError(
                f"checkpoint_dir: {self.path} was left by another run, of another {', '.join(differing)}; name another "
                f"folder, or remove the file to start over"
            )
        if division != self._division and not self.finished:
            expected, got = (", ".join(f"{k}={n}" for k, n in of.items()) for of in (division, self._division))
            warnings.warn(
                f"checkpoint_dir: expected {expected}, as when {self.path} was written, got {got}; the resumed run may "
                f"end with other last bits, unless torch.set_num_threads({division['threads']}) comes first",
                stacklevel=2,
            )
        self.agent = document

    @property
    def _division(self) -> dict[str, int]:
        """Numbers that the order of sums depends on, and so the last bits of results."""
        return {"processes": self._parallel.size, "threads": torch.get_num_threads()}

    def begin(self, agent: Mapping[str, Any]) -> None:
        """Start from an agent's document, with nothing on disk yet."""
        self.agent = snapshot(agent)

    def enter(self, name: str) -> RunState:
        """Return the next run of the phase, as far as it came, or a new one."""
        if self._entered == len(self.runs):
            self.runs.append(RunState(name))
        self._entered += 1
        return self.runs[self._entered - 1]

    def finish(self, agent: Mapping[str, Any]) -> None:
        """Write the document of the agent that the finished phase has led to."""
        self.agent = dict(agent)
        self.runs = []
        self.finished = True
        self.write()

    def write(self) -> None:
        """Replace the file, in one piece or not at all."""
        assert self.agent is not None
        if self._parallel.rank > 0:
            return
        checkpoint = {
            "identity": self.identity,
            "finished": self.finished,
            **self._division,
            "runs": [vars(run) for run in self.runs],
        }
        write_archive(self.path, self.agent | {"checkpoint": checkpoint})


class Frozen(dict[str, Any]):
    """A part of a state that never changes again: snapshots share it."""


def snapshot(state: Any) -> Any:
    """Copy a nested state, so that later updates leave the copy as it is."""
    if isinstance(state, Frozen):
        return state
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {name: snapshot(part) for name, part in state.items()}
    return [snapshot(part) for part in state] if isinstance(state, list | tuple) else state
