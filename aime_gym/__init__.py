"""Imitation from demonstrations without actions, in any Gymnasium environment."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aime_gym.envs import make_env, register_envs

if TYPE_CHECKING:
    from aime_gym.agents import list_agents, load_agent, make_agent, register_agent
    from aime_gym.data import collect, load_trajectories
    from aime_gym.types import Trajectory

__version__ = "0.1.0"

register_envs()

#: Modules of the names that need PyTorch; they are imported when the name is first used.
_LAZY = {
    "Trajectory": "aime_gym.types",
    "collect": "aime_gym.data",
    "list_agents": "aime_gym.agents",
    "load_agent": "aime_gym.agents",
    "load_trajectories": "aime_gym.data",
    "make_agent": "aime_gym.agents",
    "register_agent": "aime_gym.agents",
}

__all__ = [
    "Trajectory",
    "collect",
    "list_agents",
    "load_agent",
    "load_trajectories",
    "make_agent",
    "make_env",
    "register_agent",
    "register_envs",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'aime_gym' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
