"""The agents by name, those of other packages included."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

from stable_baselines3.common.type_aliases import GymEnv

from aime_gym.agents.aime import AIMEAgent
from aime_gym.agents.base import ImitationAgent
from aime_gym.agents.bc import BCAgent
from aime_gym.agents.bco import BCOAgent
from aime_gym.agents.gaifo import GAIfOAgent
from aime_gym.agents.gail import GAILAgent
from aime_gym.agents.ilpo import ILPOAgent
from aime_gym.agents.imrl import IMRLAgent
from aime_gym.agents.mbbc import MBBCAgent
from aime_gym.agents.patch_ail import PatchAILAgent
from aime_gym.agents.pmi_il import PMIILAgent
from aime_gym.archive import Source, read_archive
from aime_gym.naming import suggestion

Kind = TypeVar("Kind", bound=type[ImitationAgent])

AGENTS: dict[str, type[ImitationAgent]] = {
    "aime": AIMEAgent,
    "bco": BCOAgent,
    "bc": BCAgent,
    "gaifo": GAIfOAgent,
    "gail": GAILAgent,
    "patch-ail": PatchAILAgent,
    "imrl": IMRLAgent,
    "pmi-il": PMIILAgent,
    "mbbc": MBBCAgent,
    "ilpo": ILPOAgent,
}


@overload
def register_agent(name: str) -> Callable[[Kind], Kind]: ...


@overload
def register_agent(name: str, kind: Kind) -> Kind: ...


def register_agent(name: str, kind: Any = None) -> Any:
    """Give an agent's class a name, for ``make_agent``, ``load_agent`` and all that goes through the agents.

    As a function, ``register_agent("mine", MyAgent)``, or above the class::

        @register_agent("mine")
        class MyAgent(ImitationAgent): ...

    The same class again, as a notebook's cell defines it when it is run twice, takes its own place.

    :raises ValueError: a name or a class name that another agent has: files are told apart by the class's name.
    :raises TypeError: no name, no subclass of :class:`ImitationAgent`, or one that lacks a part of it.
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f'name: expected a name, as in @register_agent("mine"), got {name!r}')
    if kind is None:
        return lambda decorated: register_agent(name, decorated)
    if not (inspect.isclass(kind) and issubclass(kind, ImitationAgent)):
        raise TypeError(f"kind: expected a subclass of ImitationAgent, got {kind!r}")
    missing = sorted(kind.__abstractmethods__)
    missing += [attribute for attribute in ("presets", "needs_play") if not hasattr(kind, attribute)]
    if missing:
        raise TypeError(f"kind: expected a complete agent, got {kind.__name__} without {', '.join(missing)}")
    if name in AGENTS and not _same(AGENTS[name], kind):
        raise ValueError(f"name: expected one that is free, got {name!r}, which is {_path(AGENTS[name])}")
    for other, known in AGENTS.items():
        if known.__name__ == kind.__name__ and not _same(known, kind):
            raise ValueError(
                f"kind: expected a class name that is free, since files are told apart by it, got {kind.__name__}, "
                f"which is {other!r} already, {_path(known)}"
            )
    AGENTS[name] = kind
    return kind


def _same(one: type, other: type) -> bool:
    return _path(one) == _path(other)


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def list_agents() -> list[str]:
    """Names of all registered agents."""
    return list(AGENTS)


def agent_class(name: str) -> type[ImitationAgent]:
    """The class of a registered agent.

    :raises ValueError: an unknown name; the message has the nearest ones.
    """
    if name not in AGENTS:
        raise ValueError(f"agent: unknown agent {name!r}; {suggestion(name, AGENTS)}")
    return AGENTS[name]


def make_agent(name: str, /, *args: Any, **kwargs: Any) -> ImitationAgent:
    """Make a registered agent: ``make_agent("aime", env, seed=0)``, and whatever else its constructor accepts.

    :raises ValueError: an unknown name.
    """
    return agent_class(name)(*args, **kwargs)


def load_agent(path: Source, env: GymEnv | None = None, **kwargs: Any) -> ImitationAgent:
    """Load an agent of whichever registered class.

    :raises FileNotFoundError: no such file.
    :raises ValueError: no agent's file, or one for other spaces than the environment's.
    """
    found = read_archive(path).get("class")
    for kind in AGENTS.values():
        if kind.__name__ == found:
            return kind.load(path, env=env, **kwargs)
    known = ", ".join(kind.__name__ for kind in AGENTS.values())
    raise ValueError(f"path: expected a file of {known}, got one of {found} in {path}; see register_agent")
