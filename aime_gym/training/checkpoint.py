"""How far a phase came, on disk: what a process that was killed left to the next one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from aime_gym.serialization import read_archive, write_archive
from aime_gym.types import Metrics

_WHAT = "a checkpoint"


class Stateful(Protocol):
    """What an update changes: weights, moments, and where it stands in its data."""

    def state_dict(self) -> Mapping[str, Any]:
        """Nested JSON values and tensors."""

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Go on from there."""


@dataclass
class RunState:
    """How far one run of updates came.

    :param steps: environment steps, of a run that interacts.
    :param ended: nothing is left to do.
    :param completed: whether it ended by itself, rather than by a callback.
    :param window: metrics since the last log entry.
    :param state: of what the updates change, and ``generator`` of their randomness; ``None`` before the first one.
    """

    name: str
    updates: int = 0
    steps: int = 0
    ended: bool = False
    completed: bool = True
    window: list[Metrics] = field(default_factory=list)
    state: Mapping[str, Any] | None = None
    generator: Tensor | None = None


class PhaseCheckpoint:
    """The file of one phase.

    A phase is a fixed function of the agent that it starts from and of its data: passes over the data, and runs of
    updates. So the file holds the agent at the start, the end of each finished run, and the middle of the current one.
    Who goes on repeats what lies between the runs, and loads the runs.

    :param path: written at least every ``interval`` updates, and at the end of each run.
    :param identity: what has to agree for a file to be of this phase, as JSON values.
    :raises ValueError: a file that is damaged, or of another phase.
    """

    def __init__(self, path: Path, *, interval: int, identity: Mapping[str, Any]) -> None:
        self.path, self.interval = path, interval
        self.identity: dict[str, Any] = json.loads(json.dumps(identity, default=lambda number: number.item()))
        #: The agent at the start, or at the end once :attr:`finished`; ``None`` before :meth:`begin`.
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
            identity, self.finished = checkpoint["identity"], checkpoint["finished"]
            self.runs = [RunState(**run) for run in checkpoint["runs"]]
            differing = [key for key in self.identity if identity.get(key) != self.identity[key]]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"path: expected {_WHAT}, got {self.path} ({type(error).__name__}: {error})") from error
        if differing:
            raise ValueError(
                f"checkpoint_dir: {self.path} was left by another run, of another {', '.join(differing)}; name another "
                f"folder, or remove the file to start over"
            )
        self.agent = document

    def begin(self, agent: Mapping[str, Any]) -> None:
        """Start from here, with nothing on disk yet."""
        self.agent = snapshot(agent)

    def enter(self, name: str) -> RunState:
        """The next run: as far as it came, or a new one."""
        if self._entered == len(self.runs):
            self.runs.append(RunState(name))
        self._entered += 1
        return self.runs[self._entered - 1]

    def finish(self, agent: Mapping[str, Any]) -> None:
        """The phase is over, and this is the agent that came of it."""
        self.agent, self.runs, self.finished = dict(agent), [], True
        self.write()

    def write(self) -> None:
        """Replace the file, in one piece or not at all."""
        assert self.agent is not None
        checkpoint = {
            "identity": self.identity,
            "finished": self.finished,
            "runs": [vars(run) for run in self.runs],
        }
        write_archive(self.path, self.agent | {"checkpoint": checkpoint})


class Frozen(dict[str, Any]):
    """A part of a state that nobody changes any more: snapshots share it."""


def snapshot(state: Any) -> Any:
    """A nested state as it is now, whatever happens to its networks later."""
    if isinstance(state, Frozen):
        return state
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {name: snapshot(part) for name, part in state.items()}
    return [snapshot(part) for part in state] if isinstance(state, list | tuple) else state
