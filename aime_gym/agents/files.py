"""What an agent's file holds, and how an agent comes out of it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from gymnasium import spaces
from minari.serialization import deserialize_space, serialize_space
from stable_baselines3.common.utils import get_system_info

from aime_gym.serialization import Source, read_archive


class SavedAgent(Protocol):
    """An agent as its file knows it."""

    saved_attributes: ClassVar[tuple[str, ...]]
    config: Any
    observation_space: spaces.Space
    action_space: spaces.Space
    policy_kwargs: dict[str, Any]
    generator: torch.Generator
    acting_generator: torch.Generator
    device: torch.device

    def __init__(self, *args: Any, **options: Any) -> None: ...

    def get_parameters(self) -> dict[str, dict[str, Any]]: ...

    def set_parameters(self, load_path_or_dict: Any, exact_match: bool = ..., device: Any = ...) -> None: ...

    def set_random_seed(self, seed: int | None = None) -> None: ...

    def _setup_model(self) -> None: ...

    def _training_state(self) -> dict[str, Any]: ...

    def _load_training_state(self, state: Mapping[str, Any]) -> None: ...


Agent = TypeVar("Agent", bound=SavedAgent)


def description(agent: SavedAgent) -> dict[str, Any]:
    """What the agent is, before anything was learnt, as JSON values."""
    return {
        "class": type(agent).__name__,
        "config": asdict(agent.config),
        "observation_space": serialize_space(agent.observation_space),
        "action_space": serialize_space(agent.action_space),
    }


def agent_document(agent: SavedAgent) -> dict[str, Any]:
    """All that a file holds of the agent: JSON values and tensors."""
    return {
        **description(agent),
        "system": get_system_info(print_info=False)[1],
        "attributes": {name: getattr(agent, name) for name in agent.saved_attributes},
        "parameters": agent.get_parameters(),
        "training": agent._training_state(),
        "generators": {"training": agent.generator.get_state(), "acting": agent.acting_generator.get_state()},
    }


def restore(agent: SavedAgent, document: Mapping[str, Any]) -> None:
    """Make the agent what a document holds, of the same class, configuration and spaces."""
    for name in agent.saved_attributes:
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
    try:
        if print_system_info:
            current, saved = get_system_info(print_info=False)[1], document["system"]
            print(f"== CURRENT SYSTEM INFO ==\n{current}== SAVED SYSTEM INFO ==\n{saved}")  # noqa: T201
        agent = agent_class(None, device=device, **(document["config"] | changes))
        agent.policy_kwargs = document["attributes"]["policy_kwargs"]
        agent.observation_space = deserialize_space(document["observation_space"])
        agent.action_space = deserialize_space(document["action_space"])
        agent._setup_model()
    except (KeyError, TypeError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"path: expected an agent's file, got {path} ({type(error).__name__}: {error})") from error
    try:
        restore(agent, document)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if changed := sorted(changes.keys() & document["config"].keys()):
            trained = ", ".join(f"{name}={document['config'][name]}" for name in changed)
            raise ValueError(
                f"{changed[0]}: expected what fits the weights in {path}, which were trained with {trained} ({error})"
            ) from error
        raise ValueError(f"path: expected an agent's file, got {path} ({type(error).__name__}: {error})") from error
    for name in set(agent.saved_attributes) & set(changes):
        setattr(agent, name, changes[name])
    if "seed" in changes:
        agent.set_random_seed(changes["seed"])
    return agent
