"""The cells of a suite, and what they are made of: tasks with their data, agents, numbers of demonstrations, seeds."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from annotated_types import Ge

from aime_gym.experiments.agent_spec import AgentSpec
from aime_gym.experiments.config import PLAY_EPISODES, DataConfig, Positive, check_bounds
from aime_gym.experiments.data import derived_seeds
from aime_gym.serialization import digest
from aime_gym.tasks import TaskConfig


@dataclass(frozen=True)
class Imports:
    """Modules that register agents or environments of other packages.

    :param modules: names, as Python imports them.
    :param folder: folder that is searched after all other places.
    """

    modules: tuple[str, ...] = ()
    folder: str = ""

    def load(self) -> None:
        """Import the modules, in every process that needs them.

        :raises ValueError: a module that cannot be imported.
        """
        if self.modules and self.folder not in sys.path:
            sys.path.append(self.folder)
        for name in self.modules:
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise ValueError(f"imports: expected modules that Python finds, got {name} ({error})") from error


@dataclass(frozen=True)
class Resources:
    """Threads, GPUs and time that a job takes.

    :param threads: threads of PyTorch, and cores to reserve.
    :param gpus: GPUs to reserve.
    :param minutes: limit of Slurm for the job; no other executor has one.
    """

    threads: Positive = 1
    gpus: Annotated[int, Ge(0)] = 0
    minutes: Positive = 240


@dataclass(frozen=True)
class Curve:
    """Evaluations in the middle of training.

    :param steps: environment steps of the agent between two evaluations.
    :param episodes: number of episodes in each evaluation.
    """

    steps: int
    episodes: int


@dataclass(frozen=True)
class SuiteTask:
    """A task with its data and its evaluation.

    :param label: name of the task in tables.
    :param data: origin of play and demonstrations; each cell has its own number of demonstrations.
    :param eval_episodes: number of episodes in which each policy is evaluated.
    :param data_seed: seed of recording, of the expert and of the evaluation's episodes.
    :param resources: resources of the references and of recording; each cell has its own.
    :raises ValueError: numbers below their bounds, by name.
    """

    label: str
    config: TaskConfig
    data: DataConfig
    eval_episodes: Positive
    data_seed: Annotated[int, Ge(0)]
    resources: Resources = Resources()

    def __post_init__(self) -> None:
        check_bounds(self)

    def random_identity(self) -> dict[str, Any]:
        """Return all that a random policy's score depends on."""
        return self._identity("random", eval_episodes=self.eval_episodes)

    def expert_identity(self) -> dict[str, Any]:
        """Return all that the expert's score depends on."""
        origin = {"demos": self.data.demos, "expert": self.data.expert}
        return self._identity("expert", eval_episodes=self.eval_episodes, **origin)

    def demos_identity(self, count: int) -> dict[str, Any]:
        """Return all that ``count`` recorded demonstrations depend on."""
        return self._identity("demos", count=count, demos=self.data.demos, expert=self.data.expert)

    def play_identity(self) -> dict[str, Any]:
        """Return all that play data depends on."""
        return self._identity("play", play=self.data.play, play_episodes=self.play_episodes)

    def pretraining_identity(self) -> dict[str, Any]:
        """Return all of the task that pretraining depends on, beside what it shows: stored play serves any task."""
        if self.data.records_play:
            return self.play_identity()
        return {"play": self.data.play, "play_episodes": self.play_episodes}

    def _identity(self, what: str, **details: Any) -> dict[str, Any]:
        resized = {"resize": True} if self.data.resize else {}
        return {"what": what, "task": self.config.as_json(), "data_seed": self.data_seed, **details, **resized}

    @property
    def seeds(self) -> dict[str, int]:
        """Seeds of recording and of the evaluation."""
        return derived_seeds(self.data_seed)

    @property
    def play_episodes(self) -> int | None:
        """Episodes of play to record, or to take of what is loaded; ``None`` for all."""
        return self.data.play_episodes or (PLAY_EPISODES if self.data.records_play else None)


@dataclass(frozen=True)
class Cell:
    """One agent, trained and evaluated once.

    :param agent: name of the agent in tables.
    :param spec: the agent, with the hyper-parameters that it has on this task.
    :param demonstrations: number of demonstrations, the first ones; ``None`` for all that are stored.
    :param seed: seed of the agent.
    :param learn: environment steps of ``learn``, after ``imitate``.
    """

    task: SuiteTask
    agent: str
    spec: AgentSpec
    demonstrations: int | None
    seed: int
    curve: Curve | None = None
    learn: int = 0
    resources: Resources = Resources()

    @property
    def title(self) -> str:
        """The cell in words."""
        count = "all" if self.demonstrations is None else self.demonstrations
        return f"{self.task.label}, {self.agent}, {count} demonstrations, seed {self.seed}"

    @property
    def about(self) -> dict[str, Any]:
        """Entries that tell the cell from others with the same hyper-parameters."""
        return {"task": self.task.label, "agent": self.agent, "demonstrations": self.demonstrations, "seed": self.seed}

    @property
    def pretraining_title(self) -> str:
        """The cell's pretraining in words."""
        return f"{self.task.label}, {self.agent}, pretraining, seed {self.seed}"

    @property
    def key(self) -> str:
        """A short name, equal for cells of equal results: a cell whose key has a result is not run again."""
        identity = {
            "what": "cell",
            "labels": [self.task.label, self.agent],
            "agent": self.spec.name,
            "options": dict(self.spec.options),
            "demonstrations": self.demonstrations,
            "seed": self.seed,
            "curve": None if self.curve is None else asdict(self.curve),
            "evaluation": self.task.expert_identity(),
            "play": self.task.play_identity() if self.spec.agent_class.needs_play else None,
        }
        return identity_digest(identity | ({"learn": self.learn} if self.learn else {}))


@dataclass(frozen=True)
class Suite:
    """Cells to run, and what they need.

    :param name: name of the file, or of the only task.
    :param agents: labels, in the order of the file.
    :param search: values of hyper-parameters to search, by the label of an agent and their names.
    """

    name: str
    tasks: tuple[SuiteTask, ...]
    agents: tuple[str, ...]
    cells: tuple[Cell, ...]
    imports: Imports = Imports()
    search: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def cells_of(self, task: SuiteTask) -> list[Cell]:
        """Return the cells on a task."""
        return [cell for cell in self.cells if cell.task.label == task.label]


def identity_digest(identity: Mapping[str, Any]) -> str:
    """Return a short name for a JSON document: equal for equal ones."""
    text = json.dumps(identity, sort_keys=True, default=list)
    return digest([text], size=8)


def as_file_name(text: str) -> str:
    """Return a name for a file, from a label that may hold slashes and colons."""
    return re.sub(r"[^A-Za-z0-9.=_-]+", "-", text).strip("-")
