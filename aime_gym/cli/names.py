"""``aime-gym list`` and ``aime-gym options``: what the other verbs can be told, by name."""

from __future__ import annotations

from typing import Annotated, Literal

from aime_gym.cli import shared


@shared.verb("the names of agents, environments and presets")
def list_(kind: Annotated[Literal["agents", "envs", "presets"], "agents|envs|presets"]) -> int:
    """Print the names that other verbs and Python know: agents with what they do,
    environments by simulator (any other registered Gymnasium id works too), or the
    presets of each agent and of its world model.

    :param kind: agents, envs or presets

    Examples:
      aime-gym list agents
      aime-gym list envs | grep walker
      aime-gym list presets
    """
    if kind == "envs":
        for simulator, names in _environments().items():
            shared.print_definitions(simulator, [(name, "") for name in names])
        return 0
    from aime_gym.agents.registry import AGENTS
    from aime_gym.config import plain_text
    from aime_gym.models.config import PRESETS

    if kind == "agents":
        summaries = {name: (agent.__doc__ or "").partition("\n\n")[0] for name, agent in AGENTS.items()}
        shared.print_definitions("agents", [(name, plain_text(text)) for name, text in summaries.items()])
        return 0
    shared.print_definitions("preset=", [(name, ", ".join(agent.presets)) for name, agent in AGENTS.items()])
    shared.print_definitions("world_model=", [("of every agent with one", ", ".join(PRESETS))])
    return 0


def _environments() -> dict[str, list[str]]:
    """Return ids by simulator, and the newest versions of Gymnasium's own."""
    import gymnasium
    from gymnasium.envs.registration import find_highest_version

    from aime_gym.simulators import list_envs

    listed = list_envs()
    newest = [
        spec.id
        for spec in gymnasium.registry.values()
        if spec.namespace is None and spec.version == find_highest_version(None, spec.name)
    ]
    # GymV21 and GymV26 wrap environments of older versions.
    others = [name for name in newest if name not in listed["mujoco"] and not name.startswith("GymV")]
    return listed | {"gymnasium": others}


@shared.verb("the hyper-parameters of an agent")
def options(agent: Annotated[str, "AGENT"], *, preset: Annotated[str, "NAME"] = "default") -> int:
    """Print the hyper-parameters of an agent: name, type, value and meaning. On the
    command line they are `aime-gym train AGENT -o NAME=VALUE`, in Python keywords
    of the constructor, and in a suite keys of its options.

    :param agent: a registered agent, see `aime-gym list agents`
    :param preset: the preset whose values are shown (default: default)

    Examples:
      aime-gym options bco
      aime-gym options aime --preset dreamer
    """
    with shared.checks():
        from aime_gym.agents.registry import get_agent_class
        from aime_gym.config import describe_fields, preset_config
        from aime_gym.models.config import PRESETS

        agent_class = get_agent_class(agent)
        config = preset_config(agent_class.__name__, agent_class.presets, preset, {})
    definitions = []
    for field in describe_fields(config):
        value = next((name for name, known in PRESETS.items() if known == field.default), field.default)
        definitions.append((field.name, f"{field.type}, {value}. {field.meaning[:1].upper()}{field.meaning[1:]}"))
    shared.print_definitions(f"{agent}, preset={preset}", definitions)
    return 0
