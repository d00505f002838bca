"""Registration of the agents among RL Zoo's algorithms, and their files of hyper-parameters."""

from __future__ import annotations

from pathlib import Path

from aime_gym.agents.base import ImitationAgent
from aime_gym.agents.registry import AGENTS

_HYPERPARAMS = Path(__file__).parent / "hyperparams"


def register_agents() -> None:
    """Put every registered agent into RL Zoo's ``ALGOS``, for ``--algo`` and for scripts of one's own.

    :raises ModuleNotFoundError: rl_zoo3 is not installed; the message holds the command.
    :raises ValueError: an agent with the name of another algorithm of RL Zoo.
    """
    try:
        from rl_zoo3.utils import ALGOS
    except ImportError as error:
        raise ModuleNotFoundError(
            f'RL Zoo is not installed ({error}): pip install "aime-gym[zoo]"', name=error.name
        ) from error
    for name, agent_class in AGENTS.items():
        if name in ALGOS and not issubclass(ALGOS[name], ImitationAgent):
            raise ValueError(f"agent: expected a name that RL Zoo does not have, got {name!r}, its {ALGOS[name]}")
        ALGOS[name] = agent_class


def hyperparams_file(name: str) -> Path:
    """Return the file of a registered agent's hyper-parameters; agents of other packages share one."""
    own = _HYPERPARAMS / f"{name}.yml"
    return own if own.is_file() else _HYPERPARAMS / "default.yml"
