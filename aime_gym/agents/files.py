"""Files of agents: what they hold, and how an agent is made of one again.

A file decides what its agent is and knows, and nothing else: the fields of its configuration, of its task and spaces,
weights and counters. Each of them is checked before anything is made of it. Other arguments of the constructor
(environment, data, folders, device) are the caller's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

import torch
from gymnasium import spaces
from stable_baselines3.common.utils import get_system_info

from aime_gym.config import MAX_LAYERS, MAX_UNITS, check_number, read_config
from aime_gym.data.spaces import read_space, write_space
from aime_gym.serialization import AllocationLimit, Source, read_archive
from aime_gym.tasks import KnownTask, read_known_task

#: Errors of the code that restores an agent, where a file is damaged or hostile.
_UNREADABLE = (KeyError, IndexError, TypeError, ValueError, RuntimeError, AttributeError, AssertionError, MemoryError)


#: Checks of values by name; each is called with the name and the value, and raises a ValueError.
ValueChecks: TypeAlias = Mapping[str, Callable[[str, Any], Any]]


class SavedAgent(Protocol):
    """An agent as its file knows it."""

    presets: ClassVar[Mapping[str, Any]]
    saved_attributes: ClassVar[ValueChecks]
    config: Any
    observation_space: spaces.Space
    action_space: spaces.Space
    policy_kwargs: dict[str, Any]
    generator: torch.Generator
    acting_generator: torch.Generator
    device: torch.device
    known_task: KnownTask | None

    def __init__(self, *args: Any, **options: Any) -> None: ...

    def get_parameters(self) -> dict[str, dict[str, Any]]: ...

    def set_parameters(self, load_path_or_dict: Any, exact_match: bool = ..., device: Any = ...) -> None: ...

    def set_random_seed(self, seed: int | None = None) -> None: ...

    def _setup_model(self) -> None: ...

    def _training_state(self) -> dict[str, Any]: ...

    def _load_training_state(self, state: Mapping[str, Any]) -> None: ...


Agent = TypeVar("Agent", bound=SavedAgent)


def check_policy_kwargs(name: str, options: Any) -> None:
    """Check the sizes of a policy network.

    :raises ValueError: something else than a dict of ``hidden`` (width) and ``layers``.
    """
    if options is not None and not isinstance(options, dict):
        raise ValueError(f"{name}: expected a dict, got {options!r}")
    most = {"hidden": MAX_UNITS, "layers": MAX_LAYERS}
    for option, value in (options or {}).items():
        if option not in most:
            raise ValueError(f"{name}: expected some of {sorted(most)}, got {option!r}")
        check_number(f"{name}[{option!r}]", value, int(option == "hidden"), most[option], whole=True)


def check_flag(name: str, value: Any) -> None:
    """Check a value that is true or false.

    :raises ValueError: another one.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected True or False, got {value!r}")


def check_count(name: str, value: Any) -> None:
    """Check a number of things.

    :raises ValueError: something else than a whole number, or less than zero.
    """
    check_number(name, value, 0, whole=True)


def description(agent: SavedAgent) -> dict[str, Any]:
    """Return what the agent is, before anything was learnt, as JSON values."""
    return {
        "class": type(agent).__name__,
        "config": asdict(agent.config),
        "observation_space": write_space(agent.observation_space),
        "action_space": write_space(agent.action_space),
    }


def agent_document(agent: SavedAgent) -> dict[str, Any]:
    """Return all that a file holds of the agent: JSON values and tensors."""
    return {
        **description(agent),
        "task": None if agent.known_task is None else agent.known_task.as_json(),
        "system": get_system_info(print_info=False)[1],
        # Not getattr: an agent as its callbacks see it counts updates where the agent counts environment steps.
        "attributes": {name: vars(agent)[name] for name in agent.saved_attributes},
        "parameters": agent.get_parameters(),
        "training": agent._training_state(),
        "generators": {"training": agent.generator.get_state(), "acting": agent.acting_generator.get_state()},
    }


def restore(agent: SavedAgent, document: Mapping[str, Any]) -> None:
    """Make the agent what a document holds, of the same class, configuration and spaces."""
    for name, check in agent.saved_attributes.items():
        check(name, document["attributes"][name])
        setattr(agent, name, document["attributes"][name])
    agent.generator.set_state(document["generators"]["training"])
    agent.acting_generator.set_state(document["generators"]["acting"])
    agent.set_parameters(document["parameters"], exact_match=True, device=agent.device)
    agent._load_training_state(document.get("training", {}))


def read_agent_document(agent_class: type[SavedAgent], path: Source) -> dict[str, Any]:
    """Read the file of an agent of a class.

    :raises FileNotFoundError: no such file.
    :raises ValueError: a damaged file, another agent's, or a checkpoint from the middle of a phase.
    """
    document = read_archive(path)
    if document.get("class") != agent_class.__name__:
        raise ValueError(
            f"path: expected a file of {agent_class.__name__}, got one of {document.get('class')} in {path}"
        )
    if not document.get("checkpoint", {"finished": True})["finished"]:
        raise ValueError(
            f"path: expected a finished agent, got the checkpoint of an unfinished phase in {path}; run what wrote it "
            f"again, with checkpoint_dir"
        )
    return document


def load_agent_file(
    agent_class: type[Agent],
    path: Source,
    device: torch.device | str,
    print_system_info: bool,
    changes: Mapping[str, Any],
) -> Agent:
    """Make an agent from its file.

    :param changes: arguments of the constructor that differ from what the file says.
    :raises FileNotFoundError: no such file.
    :raises ValueError: a damaged file, or another agent's.
    """
    document = read_agent_document(agent_class, path)
    if fixed := {"preset", "policy_kwargs"} & set(changes):
        raise ValueError(f"{fixed.pop()}: expected none in load, since the file says what the agent is")
    if print_system_info:
        current = get_system_info(print_info=False)[1]
        print(f"== CURRENT SYSTEM INFO ==\n{current}== SAVED SYSTEM INFO ==\n{_printable(document)}")  # noqa: T201
    try:
        config = read_config(type(agent_class.presets["default"]), document["config"])
        policy_kwargs = document["attributes"]["policy_kwargs"]
        check_policy_kwargs("policy_kwargs", policy_kwargs)
        observation_space = read_space(document["observation_space"])
        action_space = read_space(document["action_space"])
        known_task = None if document["task"] is None else read_known_task(document["task"])
        limit = AllocationLimit(document["parameters"])
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    # Fields as they are, not asdict: a nested configuration stays one.
    options = {field.name: getattr(config, field.name) for field in fields(config)}
    agent = agent_class(None, device=device, **{**options, **changes})  # an error here is of the caller's arguments
    agent.policy_kwargs = {} if policy_kwargs is None else policy_kwargs
    agent.observation_space = observation_space
    agent.action_space = action_space
    agent.known_task = known_task
    try:
        with limit:
            agent._setup_model()
        restore(agent, document)
    except _UNREADABLE as error:
        if changed := sorted(changes.keys() & document["config"].keys()):
            trained = ", ".join(f"{name}={document['config'][name]}" for name in changed)
            raise ValueError(
                f"{changed[0]}: expected what fits the weights in {path}, which were trained with {trained} ({error})"
            ) from error
        raise _unreadable(path, error) from error
    for name in set(agent.saved_attributes) & set(changes):
        setattr(agent, name, changes[name])
    if "seed" in changes:
        agent.set_random_seed(changes["seed"])
    return agent


def _printable(document: Mapping[str, Any]) -> str:
    """Return the system that wrote a file, in the file's words, less what would steer a terminal."""
    return "".join(letter for letter in str(document.get("system")) if letter.isprintable() or letter == "\n")


def _unreadable(path: Source, error: Exception) -> ValueError:
    return ValueError(f"path: expected an agent's file, got {path} ({type(error).__name__}: {error})")
