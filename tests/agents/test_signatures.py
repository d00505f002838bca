"""The keywords of each agent, as type checkers and editors see them: run as a script, this file writes them.

Constructors hand their options on to a configuration, which no type checker can follow. So a stub of `aime_gym.agents`
spells them out, from the signatures that `help` shows.
"""

import inspect
from pathlib import Path

import pytest

import aime_gym.agents

STUB = Path(__file__).resolve().parents[2] / "aime_gym" / "agents" / "__init__.pyi"
HEADER = '''"""Constructors of the agents, written by tests/agents/test_signatures.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.type_aliases import GymEnv

'''
POSITIONAL = (
    "env_or_policy: GymEnv | str | None = None, env_after_policy: GymEnv | str | None = None, /, *, "
    "_init_setup_model: bool = True"
)
#: What a constructor takes beside the values of its configuration.
WIDER = {"env": "GymEnv | str | None", "reward": "str | Callable[..., Any]"}


def keyword(parameter):
    default = parameter.default if isinstance(parameter.default, int | float | str | None) else "..."
    shown = default if default == "..." else repr(default)
    return f"{parameter.name}: {WIDER.get(parameter.name, parameter.annotation)} = {shown}"


def stub():
    """Return the stub: each agent's class with its constructor, and all other names as they are."""
    names = {name: getattr(aime_gym.agents, name) for name in aime_gym.agents.__all__}
    agents = [name for name, value in names.items() if inspect.isclass(value) and hasattr(value, "presets")]
    lines = [
        f"from {value.__module__} import {name} as {'_' * (name in agents)}{name}"
        for name, value in sorted(names.items(), key=lambda item: (item[1].__module__, item[0]))
    ]
    for name in agents:
        keywords = ", ".join(map(keyword, inspect.signature(names[name]).parameters.values()))
        lines += [f"\nclass {name}(_{name}):", f"    def __init__(self, {POSITIONAL}, {keywords}) -> None: ..."]
    return HEADER + "\n".join(lines) + "\n"


def test_the_stub_is_up_to_date():
    assert STUB.read_text() == stub(), "python tests/agents/test_signatures.py writes it anew"


@pytest.mark.slow
def test_a_misspelt_option_is_an_error_of_mypy(tmp_path):
    api = pytest.importorskip("mypy.api")
    script = tmp_path / "script.py"
    script.write_text(
        "from aime_gym.agents import AIMEAgent, ImitationAgent\n"
        "agent: ImitationAgent = AIMEAgent('walker-run', model_updates=3, world_model='small', reward=lambda s: s)\n"
        "AIMEAgent('MlpPolicy', 'walker-run', seed=0).imitate([]).save('a.zip')\n"
        "AIMEAgent('walker-run', modell_updates=3)\n"
        "AIMEAgent('walker-run', model_updates='3')\n"
    )
    text, _, _ = api.run([str(script), "--ignore-missing-imports", "--cache-dir", str(tmp_path)])
    assert 'script.py:4: error: Unexpected keyword argument "modell_updates" for "AIMEAgent"' in text
    assert 'script.py:5: error: Argument "model_updates" to "AIMEAgent" has incompatible type' in text
    assert text.count("error:") == 2


if __name__ == "__main__":
    STUB.write_text(stub())
