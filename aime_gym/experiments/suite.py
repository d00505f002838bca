"""What a benchmark suite's file says: tasks, agents, numbers of demonstrations and seeds, and the cells they make.

A suite is a TOML file; only tasks and agents have to be there::

    demonstrations = [5, 20]     # how many an agent gets: a number, or several to compare (default: 20)
    seeds = [0, 1, 2]            # of the agents (default: 0, 1, 2)
    eval_episodes = 50           # of each trained agent, the same ones for all (default: 50)
    data_seed = 0                # of recording and of evaluation (default: 0)
    curve_steps = 10_000         # learning curve: environment steps between two evaluations (default: no curve)
    curve_episodes = 10          # of each of them (default: 10)
    imports = ["my_agents"]      # modules that register agents of other packages

    [tasks.reach]                # a name of your choice; the id unless there is another one
    id = "reach-v3"              # and action_repeat, max_episode_steps, positions, as `aime-gym compare`
    modality = "position"        # of "pixels" image_size and quality too
    play = "play"                # and play_episodes, demos, expert, as `aime-gym compare`
    demos = "expert"
    eval_episodes = 100          # this, demonstrations and seeds may be a task's own,

    [agents.bco]                 # a name of your choice; the registered one unless `agent` says another
    [agents.bco-wide]
    agent = "bco"
    options = { batch_size = 500 }
    seeds = [0]                  # or an agent's own, which comes first
    tasks = ["reach"]            # where it runs (default: everywhere)
    learn = 10_000               # environment steps of `learn`, after `imitate` (default: none)

    [tasks.reach.options.bco]    # hyper-parameters on this task only
    stack = 3
"""

from __future__ import annotations

import importlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from aime_gym.config import nearest_names
from aime_gym.experiments.agents import AgentSpec, check_learn
from aime_gym.experiments.sources import DEMONSTRATIONS, EXPERT, PLAY_EPISODES, PLAY_POLICIES, Data
from aime_gym.experiments.task import TaskConfig
from aime_gym.serialization import digest

_TEXT, _NUMBER, _NUMBERS, _TABLE = "text", "a whole number", "a list of whole numbers", "a table"
_NAMES, _COUNTS, _POSITIONS = "a list of names", "a whole number or a list of them", "a list of numbers or of names"
#: What each table may hold.
_SUITE = {
    "demonstrations": _COUNTS,
    "seeds": _NUMBERS,
    "eval_episodes": _NUMBER,
    "data_seed": _NUMBER,
    "curve_steps": _NUMBER,
    "curve_episodes": _NUMBER,
    "imports": _NAMES,
    "tasks": _TABLE,
    "agents": _TABLE,
}
_TASK = {
    "id": _TEXT,
    "modality": _TEXT,
    "action_repeat": _NUMBER,
    "max_episode_steps": _NUMBER,
    "positions": _POSITIONS,
    "image_size": _NUMBER,
    "quality": _TEXT,
    "play": _TEXT,
    "play_episodes": _NUMBER,
    "demos": _TEXT,
    "expert": _TEXT,
    "demonstrations": _COUNTS,
    "seeds": _NUMBERS,
    "eval_episodes": _NUMBER,
    "options": _TABLE,
}
_AGENT = {
    "agent": _TEXT,
    "options": _TABLE,
    "demonstrations": _COUNTS,
    "seeds": _NUMBERS,
    "tasks": _NAMES,
    "learn": _NUMBER,
}
#: Numbers below which the options of a suite and of its tables mean nothing.
_LEAST = {
    "eval_episodes": 1,
    "data_seed": 0,
    "curve_steps": 1,
    "curve_episodes": 1,
    "demonstrations": 1,
    "seeds": 0,
    "learn": 0,
}


@dataclass(frozen=True)
class Curve:
    """Evaluations in the middle of training.

    :param steps: environment steps of the agent between two of them.
    :param episodes: of each.
    """

    steps: int
    episodes: int


@dataclass(frozen=True)
class SuiteTask:
    """A task with its data and its evaluation.

    :param label: what the reader knows it by.
    :param data: where play and demonstrations come from; how many demonstrations is the cell's.
    :param data_seed: of recording, of the expert and of the evaluation's episodes.
    """

    label: str
    config: TaskConfig
    data: Data
    eval_episodes: int
    data_seed: int

    @property
    def records_play(self) -> bool:
        """Whether play is recorded here, and not loaded."""
        return self.data.play in PLAY_POLICIES

    @property
    def records_demos(self) -> bool:
        """Whether demonstrations are recorded here, and not loaded."""
        return bool(self.data.demos == EXPERT)

    def random_identity(self) -> dict[str, Any]:
        """All that a random policy's score depends on."""
        return {
            "what": "random",
            "task": asdict(self.config),
            "data_seed": self.data_seed,
            "eval_episodes": self.eval_episodes,
        }

    def expert_identity(self) -> dict[str, Any]:
        """All that the expert's score depends on."""
        return self.random_identity() | {"what": "expert"} | self._demos_origin()

    def demos_identity(self, count: int) -> dict[str, Any]:
        """All that ``count`` recorded demonstrations depend on."""
        identity = {"what": "demos", "task": asdict(self.config), "data_seed": self.data_seed, "count": count}
        return identity | self._demos_origin()

    def play_identity(self) -> dict[str, Any]:
        """All that play data depends on."""
        # As recorded if it is, or all of it.
        episodes = self.data.play_episodes or (PLAY_EPISODES if self.records_play else None)
        return {
            "what": "play",
            "task": asdict(self.config),
            "data_seed": self.data_seed,
            "play": self.data.play,
            "play_episodes": episodes,
        }

    def _demos_origin(self) -> dict[str, Any]:
        return {"demos": self.data.demos, "expert": self.data.expert}


@dataclass(frozen=True)
class Cell:
    """One agent, trained and evaluated once.

    :param agent: what the reader knows it by.
    :param spec: the agent, with the hyper-parameters that it has on this task.
    :param demonstrations: how many it gets: the first ones.
    :param seed: of the agent.
    :param learn: environment steps of ``learn``, after ``imitate``.
    """

    task: SuiteTask
    agent: str
    spec: AgentSpec
    demonstrations: int
    seed: int
    curve: Curve | None = None
    imports: tuple[str, ...] = ()
    learn: int = 0

    @property
    def title(self) -> str:
        """The cell in words."""
        return f"{self.task.label}, {self.agent}, {self.demonstrations} demonstrations, seed {self.seed}"

    @property
    def key(self) -> str:
        """The same for cells that do the same: what is done under a key is not done again."""
        agent_class = self.spec.agent_class
        identity = {
            "what": "cell",
            "labels": [self.task.label, self.agent],
            "agent": self.spec.name,
            "options": dict(self.spec.options),
            "demonstrations": self.demonstrations,
            "seed": self.seed,
            "curve": None if self.curve is None else asdict(self.curve),
            "evaluation": self.task.expert_identity(),
            "play": self.task.play_identity() if agent_class.needs_play else None,
        }
        return identity_digest(identity | ({"learn": self.learn} if self.learn else {}))


@dataclass(frozen=True)
class Suite:
    """What is to be run.

    :param name: the file's.
    :param agents: labels, in the order of the file.
    """

    name: str
    tasks: tuple[SuiteTask, ...]
    agents: tuple[str, ...]
    cells: tuple[Cell, ...]

    def cells_of(self, task: SuiteTask) -> list[Cell]:
        """The cells on a task."""
        return [cell for cell in self.cells if cell.task.label == task.label]


def identity_digest(identity: Mapping[str, Any]) -> str:
    """Return a short name for a JSON document: equal for equal ones."""
    text = json.dumps(identity, sort_keys=True, default=list)
    return digest([text], size=8)


def read_suite(path: Path) -> Suite:
    """Read a suite's file. Whether its environments, agents and data fit together is checked by whoever runs it.

    :raises FileNotFoundError: no such file.
    :raises ValueError: no TOML; unknown or missing keys, other types, numbers out of range, unknown agents or
        hyper-parameters. The message names the file and the key.
    """
    if not path.is_file():
        raise FileNotFoundError(f"suite: expected a TOML file, found none at {path}")
    try:
        return _suite(path.stem, tomllib.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:  # TOML's errors are such
        raise ValueError(f"{path}: {error}") from error


def _suite(name: str, document: dict[str, Any]) -> Suite:
    _check(document, _SUITE, "")
    for table in ("tasks", "agents"):
        if not document.get(table):
            raise ValueError(f"{table}: expected at least one [{table}.NAME], got none")
        for label, entry in document[table].items():
            _check_type(entry, _TABLE, f"{table}.{label}")
            _check(entry, _TASK if table == "tasks" else _AGENT, f"{table}.{label}.")
    imports = tuple(document.get("imports", ()))
    import_modules(imports)
    tasks = tuple(_task(label, table, document) for label, table in document["tasks"].items())
    curve = None
    if "curve_steps" in document:
        curve = Curve(document["curve_steps"], document.get("curve_episodes", 10))
    elif "curve_episodes" in document:
        raise ValueError("curve_episodes: expected together with curve_steps, got it alone")
    specs = {label: _spec(label, table, document["tasks"]) for label, table in document["agents"].items()}
    for label, table in document["tasks"].items():
        _known(table.get("options", {}), specs, f"tasks.{label}.options")
    cells = []
    for task in tasks:
        own = document["tasks"][task.label]
        for label, table in document["agents"].items():
            if task.label not in table.get("tasks", document["tasks"]):
                continue
            counts = _first("demonstrations", table, own, document, default=DEMONSTRATIONS)
            spec = _on_task(specs[label], own.get("options", {}).get(label, {}), f"tasks.{task.label}.options.{label}")
            for count in counts if isinstance(counts, list) else [counts]:
                for seed in _first("seeds", table, own, document, default=[0, 1, 2]):
                    cells.append(Cell(task, label, spec, count, seed, curve, imports, table.get("learn", 0)))
    return Suite(name, tasks, tuple(specs), tuple(cells))


def import_modules(names: tuple[str, ...]) -> None:
    """Import what registers agents of other packages.

    :raises ValueError: a module that cannot be imported.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(f"imports: expected modules that Python finds, got {name} ({error})") from error


def _task(label: str, table: dict[str, Any], document: dict[str, Any]) -> SuiteTask:
    try:
        config = TaskConfig(
            table.get("id", label),
            table.get("modality", TaskConfig.modality),
            table.get("action_repeat"),
            table.get("max_episode_steps"),
            tuple(table.get("positions", ())),
            table.get("image_size"),
            table.get("quality", TaskConfig.quality),
        )
        data = Data(
            table.get("play", Data.play),
            table.get("play_episodes"),
            table.get("demos", Data.demos),
            expert=table.get("expert"),
        )
    except ValueError as error:
        raise ValueError(f"tasks.{label}.{error}") from error
    return SuiteTask(
        label, config, data, _first("eval_episodes", table, document, default=50), document.get("data_seed", 0)
    )


def _spec(label: str, table: dict[str, Any], tasks: dict[str, Any]) -> AgentSpec:
    _known(table.get("tasks", ()), tasks, f"agents.{label}.tasks")
    try:
        spec = AgentSpec.of(table.get("agent", label), table.get("options", {}))
        check_learn(spec.agent_class, table.get("learn", 0))
        return spec
    except ValueError as error:
        raise ValueError(f"agents.{label}: {error}") from error


def _on_task(spec: AgentSpec, options: Mapping[str, Any], where: str) -> AgentSpec:
    try:
        return replace(spec, options={**spec.options, **AgentSpec.of(spec.name, options).options})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _first(key: str, *tables: dict[str, Any], default: Any) -> Any:
    """The option as the first table has it."""
    return next((table[key] for table in tables if key in table), default)


def _known(names: Any, known: Mapping[str, Any], where: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: unknown name {name!r}; {nearest_names(name, known)}")


# Types and ranges


def _check(table: dict[str, Any], kinds: Mapping[str, str], where: str) -> None:
    for key, value in table.items():
        if key not in kinds:
            raise ValueError(f"{where}{key}: unknown key; {nearest_names(key, kinds)}")
        _check_type(value, kinds[key], f"{where}{key}")
        numbers = value if isinstance(value, list) else [value]
        if key in _LEAST:
            if not numbers:
                raise ValueError(f"{where}{key}: expected at least one number, got none")
            for number in numbers:
                if number < _LEAST[key]:
                    raise ValueError(f"{where}{key}: expected at least {_LEAST[key]}, got {number}")
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"{where}{key}: expected each number once, got {value}")
        if key == "options" and where.startswith("tasks."):
            for agent, options in value.items():
                _check_type(options, _TABLE, f"{where}{key}.{agent}")


def _check_type(value: Any, kind: str, where: str) -> None:
    fits = {
        _TEXT: lambda: isinstance(value, str),
        _NUMBER: lambda: _is_number(value),
        _NUMBERS: lambda: _all(value, _is_number),
        _COUNTS: lambda: _is_number(value) or _all(value, _is_number),
        _NAMES: lambda: _all(value, lambda entry: isinstance(entry, str)),
        _POSITIONS: lambda: _all(value, _is_number) or _all(value, lambda entry: isinstance(entry, str)),
        _TABLE: lambda: isinstance(value, dict),
    }
    if not fits[kind]():
        raise ValueError(f"{where}: expected {kind}, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _all(values: Any, fits: Any) -> bool:
    return isinstance(values, list) and all(map(fits, values))
