"""Registry of agents by name, those of other packages included."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

from stable_baselines3.common.type_aliases import GymEnv

from aime_gym.agents.aime import AIMEAgent
from aime_gym.agents.base import ImitationAgent
from aime_gym.agents.bc import BCAgent
from aime_gym.agents.bco import BCOAgent
from aime_gym.agents.d_gail import DGAILAgent
from aime_gym.agents.ditto import DITTOAgent
from aime_gym.agents.gaifo import GAIfOAgent
from aime_gym.agents.gail import GAILAgent
from aime_gym.agents.iidm import IIDMAgent
from aime_gym.agents.ilpo import ILPOAgent
from aime_gym.agents.imrl import IMRLAgent
from aime_gym.agents.mbbc import MBBCAgent
from aime_gym.agents.patch_ail import PatchAILAgent
from aime_gym.agents.pmi_il import PMIILAgent
from aime_gym.config import nearest_names
from aime_gym.serialization import Source, read_archive

AgentClass = TypeVar("AgentClass", bound=type[ImitationAgent])

AGENTS: dict[str, type[ImitationAgent]] = {
    "aime": AIMEAgent,
    "bco": BCOAgent,
    "bc": BCAgent,
    "iidm": IIDMAgent,
    "gaifo": GAIfOAgent,
    "gail": GAILAgent,
    "patch-ail": PatchAILAgent,
    "imrl": IMRLAgent,
    "pmi-il": PMIILAgent,
    "mbbc": MBBCAgent,
    "ditto": DITTOAgent,
    "d-gail": DGAILAgent,
    "ilpo": ILPOAgent,
}


@overload
def register_agent(name: str) -> Callable[[AgentClass], AgentClass]: ...


@overload
def register_agent(name: str, agent_class: AgentClass) -> AgentClass: ...


def register_agent(name: str, agent_class: Any = None) -> Any:
    """Give an agent's class a name, for ``make_agent``, ``load_agent`` and all that goes through the agents.

    As a function, ``register_agent("mine", MyAgent)``, or above the class:

        @register_agent("mine")
        class MyAgent(ImitationAgent): ...

    The same class again, as a notebook's cell defines it when it is run twice, takes its own place.

    :raises ValueError: a name or a class name that another agent has: files are told apart by the class's name.
    :raises TypeError: no name, no subclass of [`ImitationAgent`][], or one that lacks a part of it.
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f'name: expected a name, as in @register_agent("mine"), got {name!r}')
    if agent_class is None:
        return lambda decorated: register_agent(name, decorated)
    if not (inspect.isclass(agent_class) and issubclass(agent_class, ImitationAgent)):
        raise TypeError(f"agent_class: expected a subclass of ImitationAgent, got {agent_class!r}")
    missing = sorted(agent_class.__abstractmethods__)
    missing += [attribute for attribute in ("presets", "needs_play") if not hasattr(agent_class, attribute)]
    if missing:
        raise TypeError(
            f"agent_class: expected a complete agent, got {agent_class.__name__} without {', '.join(missing)}"
        )
    if name in AGENTS and not _same(AGENTS[name], agent_class):
        raise ValueError(f"name: expected one that is free, got {name!r}, which is {_path(AGENTS[name])}")
    for other, known in AGENTS.items():
        if known.__name__ == agent_class.__name__ and not _same(known, agent_class):
            raise ValueError(
                f"agent_class: expected a class name that is free, since files are told apart by it, got "
                f"{agent_class.__name__}, which is {other!r} already, {_path(known)}"
            )
    AGENTS[name] = agent_class
    return agent_class


def _same(one: type, other: type) -> bool:
    return _path(one) == _path(other)


def _path(agent_class: type) -> str:
    return f"{agent_class.__module__}.{agent_class.__qualname__}"


def list_agents() -> list[str]:
    """Return the names of all registered agents."""
    return list(AGENTS)


def get_agent_class(name: str) -> type[ImitationAgent]:
    """Return the class of a registered agent.

    :raises ValueError: an unknown name; the message has the nearest ones.
    """
    if name not in AGENTS:
        raise ValueError(f"agent: unknown agent {name!r}; {nearest_names(name, AGENTS)}")
    return AGENTS[name]


def make_agent(name: str, /, *args: Any, **kwargs: Any) -> ImitationAgent:
    """Make a registered agent: ``make_agent("aime", env, seed=0)``, and whatever else its constructor accepts.

    :raises ValueError: an unknown name.
    """
    return get_agent_class(name)(*args, **kwargs)


def load_agent(path: Source, env: GymEnv | None = None, **kwargs: Any) -> ImitationAgent:
    """Load an agent of any registered class.

    :raises FileNotFoundError: no such file.
    :raises ValueError: no agent's file, or one for other spaces than the environment's.
    """
    found = read_archive(path).get("class")
    for agent_class in AGENTS.values():
        if agent_class.__name__ == found:
            return agent_class.load(path, env=env, **kwargs)
    known = ", ".join(agent_class.__name__ for agent_class in AGENTS.values())
    raise ValueError(f"path: expected a file of {known}, got one of {found} in {path}; see register_agent")
