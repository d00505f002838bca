"""Imitation from demonstrations without actions, in any Gymnasium environment."""

from importlib import import_module
from typing import Any

from aime_gym.envs import make_env, register_envs

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

__all__ = ["make_env", "register_envs", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'aime_gym' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
