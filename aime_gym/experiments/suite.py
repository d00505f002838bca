"""Benchmark suites: tasks, agents, numbers of demonstrations and seeds, and the cells they make.

A suite is a TOML file; only tasks and agents are required:

    demonstrations = [5, 20]     # how many an agent gets: a number, or several to compare (default: 20)
    seeds = [0, 1, 2]            # of the agents (default: 0, 1, 2)
    eval_episodes = 50           # of each trained agent, the same ones for all (default: 50)
    data_seed = 0                # of recording and of evaluation (default: 0)
    curve_steps = 10_000         # learning curve: environment steps between two evaluations (default: no curve)
    curve_episodes = 10          # of each of them (default: 10)
    resources = { threads = 2, gpus = 1, minutes = 90 }  # of a job, mostly on clusters (default: 1, 0 and 240)
    imports = ["my_agents"]      # modules that register agents of other packages, installed or beside this file

    [tasks.reach]                # a name of your choice; the id unless there is another one
    id = "reach-v3"              # and action_repeat, max_episode_steps, positions, env_kwargs = { gravity = -5 }
    modality = "position"        # default: "state"; of "pixels" image_size, quality and camera too
    play = "play"                # and play_episodes, demos, expert, as `aime-gym compare`; or a list of datasets
    demos = "expert"             # of videos, resize = true fits their size to the task's
    eval_episodes = 100          # this, demonstrations, seeds and resources may be a task's own,

    [agents.bco]                 # a name of your choice; the registered one unless `agent` says another
    [agents.bco-wide]
    agent = "bco"
    options = { batch_size = 500 }
    seeds = [0]                  # or, but for eval_episodes, an agent's own, which comes first
    tasks = ["reach"]            # where it runs (default: everywhere)
    learn = 10_000               # environment steps of `learn`, after `imitate` (default: none)

    [tasks.reach.options.bco]    # hyper-parameters on this task only
    stack = 3

    [search.bco]                 # where `aime-gym tune` searches: a list of values, or a range
    batch_size = [50, 100, 200]
    learning_rate = { low = 1e-4, high = 1e-2, log = true }

    [plays]                      # a task without a play of its own becomes one task, NAME/PLAY, for each of these;
    random = "data/random"       # agents that need no play run on NAME alone
    mix = ["data/random", "data/walk"]

What agents learn from play before they see demonstrations is done once for all cells that have it in common: the agent
with its hyper-parameters and its seed, the play, and what the task shows. Stored play may serve several tasks. Seeds
mean what they mean without that: the cell of seed ``s`` is what an agent that is made with ``seed=s`` becomes by
``pretrain``, ``imitate`` and ``learn``.

A module that is imported runs its code, and so does an SB3 model that is read. A suite that asks for either (by
``imports``, an id as ``"module:Env-v0"``, or ``expert = "sac:model.zip"``) is refused without ``--allow-imports``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from annotated_types import Ge, MinLen
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from aime_gym.config import nearest_names
from aime_gym.experiments.agent_spec import AgentSpec, check_learn
from aime_gym.experiments.cells import Cell, Curve, Imports, Resources, Suite, SuiteTask
from aime_gym.experiments.config import DEMONSTRATIONS, DataConfig, Positive
from aime_gym.tasks import TaskConfig

# The file: keys, types and bounds


def _each_once(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"expected each number once, got {list(numbers)}")
    return numbers


_Seeds = Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1), AfterValidator(_each_once)]
_Counts = Annotated[
    tuple[Positive, ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else (value,)),
    MinLen(1),
    AfterValidator(_each_once),
]
_Names = tuple[str, ...]
_Play = str | tuple[str, ...]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Overrides(_Table):
    """Keys of tasks and agents that override those of the suite."""

    demonstrations: _Counts | None = None
    seeds: _Seeds | None = None
    resources: Resources | None = None


class _TaskKeys(_Overrides):
    eval_episodes: Positive | None = None
    options: dict[str, dict[str, Any]] = {}


def _keys_of(config: type) -> dict[str, Any]:
    """Return the fields of a configuration as keys of a table."""
    hints = get_type_hints(config, include_extras=True)
    return {field.name: (hints[field.name], field.default) for field in fields(config) if field.name != "demo_count"}


_TaskTable: Any = create_model(
    "_TaskTable",
    __base__=_TaskKeys,
    **_keys_of(TaskConfig) | _keys_of(DataConfig) | {"env_id": (str, Field(alias="id"))},
)


class _AgentTable(_Overrides):
    agent: str | None = None
    options: dict[str, Any] = {}
    tasks: _Names | None = None
    learn: Annotated[int, Ge(0)] = 0


class _SuiteTable(_Table):
    demonstrations: _Counts = (DEMONSTRATIONS,)
    seeds: _Seeds = (0, 1, 2)
    eval_episodes: Positive = 50
    data_seed: Annotated[int, Ge(0)] = 0
    curve_steps: Positive | None = None
    curve_episodes: Positive | None = None
    resources: Resources = Resources()
    imports: _Names = ()
    plays: dict[str, _Play] = {}
    search: dict[str, dict[str, Any]] = {}
    tasks: dict[str, _TaskTable]
    agents: dict[str, _AgentTable]


def read_suite(path: Path, *, allow_imports: bool = False) -> Suite:
    """Read a suite's file. Whether its environments, agents and data fit together is checked before it runs.

    :param allow_imports: whether to import the modules that it names, and to read SB3 models: both run code.
    :raises FileNotFoundError: no such file.
    :raises ValueError: no TOML; unknown or missing keys, other types, numbers out of range, unknown agents or
        hyper-parameters, imports that are not allowed. The message names the file and the key.
    """
    if not path.is_file():
        raise FileNotFoundError(f"suite: expected a TOML file, found none at {path}")
    with _errors_at(f"{path}: "):  # TOML's errors are values' errors, too
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        return _suite(path, _tables(document), allow_imports)


@contextmanager
def _errors_at(place: str) -> Iterator[None]:
    """Put the place in a suite in front of the errors of its values."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}{error}") from error


def _tables(document: dict[str, Any]) -> _SuiteTable:
    for name in ("tasks", "agents"):
        if not document.get(name):
            raise ValueError(f"{name}: expected at least one [{name}.NAME], got none")
    if isinstance(document["tasks"], dict):
        for label, table in document["tasks"].items():
            if isinstance(table, dict):
                table.setdefault("id", label)
    try:
        # As JSON, where a list is a tuple: the tables are frozen.
        return _SuiteTable.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        raise ValueError(_message(error.errors()[0], document)) from error


#: Errors of pydantic in this package's grammar, and the types that it expects by its names for their errors.
_MESSAGES = {
    "greater_than_equal": "expected at least {ge}, got {value!r}",
    "too_short": "expected at least one number, got none",
    "value_error": "{error}",
    "literal_error": "expected one of {expected}, got {value!r}",
}
_TYPES = {"int_type": "a whole number", "string_type": "text"}
_TYPES |= dict.fromkeys(("dict_type", "model_type", "dataclass_type"), "a table")
#: Types of keys that hold several values.
_LISTS = {
    "seeds": "a list of whole numbers",
    "demonstrations": "a whole number or a list of them",
    "imports": "a list of names",
    "tasks": "a list of names",
    "positions": "a list of numbers or of names",
    "play": "text or a list of texts",
}


def _message(error: Any, document: dict[str, Any]) -> str:
    """Return an error of pydantic in this package's grammar."""
    depths = {"tasks": 3, "agents": 3, "plays": 2, "search": 2}
    depth = 4 if error["loc"][2:3] == ("options",) else depths.get(error["loc"][0], 1)
    place = [part for part in error["loc"][:depth] if isinstance(part, str)]
    kind = error["type"]
    key = place[-1]
    if kind == "extra_forbidden":
        table = {"tasks": _TaskTable, "agents": _AgentTable}.get(place[0], _SuiteTable)
        message = (
            f"unknown key; {nearest_names(key, [field.alias or name for name, field in table.model_fields.items()])}"
        )
    elif kind == "unexpected_keyword_argument":
        unknown = str(error["loc"][-1])
        message = f"unknown key {unknown!r}; {nearest_names(unknown, [field.name for field in fields(Resources)])}"
    elif kind in _MESSAGES:
        message = _MESSAGES[kind].format(value=error["input"], **error["ctx"])
    else:
        expected = _TYPES.get(kind, error["msg"])
        if expected != "a table":
            expected = _LISTS.get("play" if place[0] == "plays" else key, expected)
        message = f"expected {expected}, got {reduce(lambda table, part: table[part], place, document)!r}"
    return f"{'.'.join(place)}: {message}"


# The suite that the tables make


def _suite(path: Path, tables: _SuiteTable, allow_imports: bool) -> Suite:
    if not allow_imports:
        _refuse_code(tables)
    imports = Imports(tables.imports, str(path.resolve().parent))
    imports.load()
    if tables.curve_steps is None and tables.curve_episodes is not None:
        raise ValueError("curve_episodes: expected together with curve_steps, got it alone")
    curve = None if tables.curve_steps is None else Curve(tables.curve_steps, tables.curve_episodes or 10)
    tasks = {label: _tasks_of(label, table, tables) for label, table in tables.tasks.items()}
    specs = {label: _spec(label, table, tables) for label, table in tables.agents.items()}
    for label, table in tables.tasks.items():
        _check_names(table.options, specs, f"tasks.{label}.options")
    _check_names(tables.search, specs, "search")
    cells = []
    for task_label, own in tables.tasks.items():
        for label, table in tables.agents.items():
            if table.tasks is not None and task_label not in table.tasks:
                continue
            spec = specs[label]
            with _errors_at(f"tasks.{task_label}.options.{label}: "):
                changed = AgentSpec.of(spec.name, own.options.get(label, {}))
            spec = replace(spec, options={**spec.options, **changed.options})
            alone, *with_play = tasks[task_label]
            for task in with_play if with_play and spec.agent_class.needs_play else [alone]:
                for count in table.demonstrations or own.demonstrations or tables.demonstrations:
                    for seed in table.seeds or own.seeds or tables.seeds:
                        resources = table.resources or own.resources or tables.resources
                        cells.append(Cell(task, label, spec, count, seed, curve, table.learn, resources))
    used = {cell.task.label for cell in cells}
    kept = [task for group in tasks.values() for task in group if len(group) == 1 or task.label in used]
    return Suite(path.stem, tuple(kept), tuple(specs), tuple(cells), imports, tables.search)


def _refuse_code(tables: _SuiteTable) -> None:
    """Refuse files that run code.

    :raises ValueError: modules to import, or SB3 models to read.
    """
    allow = "without --allow-imports, since it runs code"
    if tables.imports:
        raise ValueError(f"imports: expected none {allow}, got {', '.join(tables.imports)}")
    for label, table in tables.tasks.items():
        if ":" in table.env_id:
            raise ValueError(f"tasks.{label}.id: expected no module {allow}, got {table.env_id!r}")
        for name, value in (table.env_kwargs or {}).items():
            if ":" in json.dumps(value):  # an environment may take the id of another, with its module
                raise ValueError(
                    f"tasks.{label}.env_kwargs: expected no text with a colon {allow}, got {name}={value!r}"
                )
        algorithm, _, argument = (table.expert or "").partition(":")
        if argument and not argument.isdigit() and algorithm != "dreamer":
            raise ValueError(f"tasks.{label}.expert: expected no SB3 model {allow}, got {table.expert!r}")


def _tasks_of(label: str, table: Any, tables: _SuiteTable) -> list[SuiteTask]:
    """Return a task, and what it becomes with each of the suite's plays, if it has none of its own."""
    tasks = [_task(label, table, tables)]
    for name, play in tables.plays.items() if "play" not in table.model_fields_set else ():
        with _errors_at(f"plays.{name}: "):
            data = replace(tasks[0].data, play=play)
        tasks.append(replace(tasks[0], label=f"{label}/{name}", data=data))
    return tasks


def _task(label: str, table: Any, tables: _SuiteTable) -> SuiteTask:
    with _errors_at(f"tasks.{label}."):
        config = TaskConfig(**{name: getattr(table, name) for name in _keys_of(TaskConfig)})
        data = DataConfig(**{name: getattr(table, name) for name in _keys_of(DataConfig)})
    resources = table.resources or tables.resources
    return SuiteTask(label, config, data, table.eval_episodes or tables.eval_episodes, tables.data_seed, resources)


def _spec(label: str, table: _AgentTable, tables: _SuiteTable) -> AgentSpec:
    _check_names(table.tasks or (), tables.tasks, f"agents.{label}.tasks")
    with _errors_at(f"agents.{label}: "):
        spec = AgentSpec.of(table.agent or label, table.options)
        check_learn(spec.agent_class, table.learn)
    return spec


def _check_names(names: Iterable[str], known: Mapping[str, Any], where: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: unknown name {name!r}; {nearest_names(name, known)}")
