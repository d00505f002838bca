"""The agents by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stable_baselines3.common.type_aliases import GymEnv

from aime_gym.agents.aime import AIMEAgent
from aime_gym.agents.base import ImitationAgent
from aime_gym.agents.bc import BCAgent
from aime_gym.agents.bco import BCOAgent
from aime_gym.agents.storage import read_agent_file
from aime_gym.naming import suggestion

AGENTS: dict[str, type[ImitationAgent]] = {
    "aime": AIMEAgent,
    "bco": BCOAgent,
    "bc": BCAgent,
}


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


def make_agent(name: str, env: GymEnv | str, **kwargs: Any) -> ImitationAgent:
    """Make a registered agent: ``make_agent("aime", env, seed=0)``."""
    return agent_class(name)(env, **kwargs)


def load_agent(path: str | Path, env: GymEnv | None = None, **kwargs: Any) -> ImitationAgent:
    """Load an agent of whichever registered class.

    :raises FileNotFoundError: no such file.
    :raises ValueError: no agent's file, or one for other spaces than the environment's.
    """
    kind = read_agent_file(path)[0]["class"]
    classes = {candidate.__name__: candidate for candidate in AGENTS.values()}
    if kind not in classes:
        raise ValueError(f"path: expected a file of {', '.join(classes)}, got one of {kind} in {path}")
    return classes[kind].load(path, env=env, **kwargs)
