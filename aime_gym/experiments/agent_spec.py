"""Agents of an experiment: a registered name and its options, built and trained."""

from __future__ import annotations

import time
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import NoneType
from typing import Any

from pydantic import TypeAdapter, ValidationError
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback

from aime_gym.agents.base import ImitationAgent
from aime_gym.agents.registry import get_agent_class
from aime_gym.config import nearest_names, preset_config
from aime_gym.tasks import TaskConfig
from aime_gym.types import Trajectories


@dataclass(frozen=True)
class AgentSpec:
    """A registered agent and the hyper-parameters that differ from its default.

    :param name: name in the registry.
    :param options: arguments of the constructor: ``preset`` and fields of the agent's configuration.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> AgentSpec:
        """Read ``"aime"`` or ``"aime:preset=dreamer,model_updates=20"``.

        :raises ValueError: an unknown agent or option (with the nearest names), or a value of another type.
        """
        name, _, rest = text.partition(":")
        get_agent_class(name)
        options = {}
        for entry in filter(None, rest.split(",")):
            key, equals, value = entry.partition("=")
            if not equals:
                raise ValueError(f"agent {name}: expected option=value, got {entry!r}")
            options[key] = value
        return cls.of(name, options)

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any]) -> AgentSpec:
        """Make a spec from the options of a file, as values or as text.

        :raises ValueError: as `parse`.
        """
        types: dict[str, Any] = {"preset": str} | typing.get_type_hints(type(get_agent_class(name).presets["default"]))
        for key in options:
            if key not in types:
                raise ValueError(f"agent {name}: unknown option {key!r}; {nearest_names(key, types)}")
        return cls(name, {key: _value(value, types[key], f"agent {name}: {key}") for key, value in options.items()})

    @property
    def agent_class(self) -> type[ImitationAgent]:
        """The agent's class."""
        return get_agent_class(self.name)

    @property
    def config(self) -> Any:
        """The agent's configuration, with the preset's world model."""
        options = dict(self.options)
        preset = options.pop("preset", "default")
        options.pop("world_model", None)  # maybe a file, which the constructor reads
        return preset_config(self.agent_class.__name__, self.agent_class.presets, preset, options)

    @property
    def reads_actions(self) -> bool:
        """Whether the agent reads the demonstrations' actions."""
        return self.agent_class.reads_actions(self.config)

    @property
    def label(self) -> str:
        """The text that `parse` reads."""
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}:{options}" if options else self.name

    def build(self, task: TaskConfig, env: GymEnv, seed: int, **arguments: Any) -> ImitationAgent:
        """Make the agent, untrained.

        Where one observation holds the velocities, agents that stack observations take one, as in the AIME paper.

        :param arguments: arguments of the constructor, beside the options.
        :raises ValueError: options or spaces that the agent refuses.
        :raises NotImplementedError: spaces that it does not take yet.
        """
        options = dict(self.options)
        if task.modality == "state" and hasattr(self.agent_class.presets["default"], "stack"):
            options.setdefault("stack", 1)
        try:
            return self.agent_class(env, seed=seed, **arguments, **options)
        except (ValueError, NotImplementedError) as error:
            raise type(error)(f"agent {self.label}: {error}") from error


@contextmanager
def training_env(agent_class: type[ImitationAgent], task: TaskConfig) -> Iterator[GymEnv]:
    """Make the environment that an agent of this class trains in, in as many copies as it takes by default."""
    copies = agent_class.default_n_envs
    env: GymEnv = make_vec_env(task.make, n_envs=copies) if copies > 1 else task.make()
    try:
        yield env
    finally:
        env.close()


def train(
    agent: ImitationAgent,
    play: Trajectories | None,
    demos: Trajectories,
    *,
    learn: int = 0,
    callback: MaybeCallback = None,
    progress: bool = True,
) -> float:
    """Run the phases that an agent has data for, and return the seconds that they took.

    :param play: trajectories with actions, for an agent that has to pretrain.
    :param learn: environment steps of ``learn`` afterwards.
    :param callback: callback of SB3, for every phase.
    :raises KeyboardInterrupt: Ctrl-C. The agent is half trained then, and no later phase runs.
    """
    seconds = pretrain(agent, play, callback=callback, progress=progress)
    phases = [partial(agent.imitate, demos)] + ([partial(agent.learn, learn)] if learn else [])
    return seconds + _run(agent, phases, callback, progress)


def pretrain(
    agent: ImitationAgent, play: Trajectories | None, *, callback: MaybeCallback = None, progress: bool = True
) -> float:
    """Run the first phase of `train` alone, if the agent has to, and return the seconds that it took.

    :raises KeyboardInterrupt: Ctrl-C. The agent is half trained then.
    """
    return _run(agent, [partial(agent.pretrain, play)] if agent.must_pretrain else [], callback, progress)


def _run(
    agent: ImitationAgent, phases: Sequence[Callable[..., object]], callback: MaybeCallback, progress: bool
) -> float:
    start = time.perf_counter()
    for run_phase in phases:
        run_phase(callback=callback, progress_bar=progress)
        if agent.interrupted:
            raise KeyboardInterrupt("the training was interrupted: its result would pass for that of a whole one")
    return time.perf_counter() - start


def check_learn(agent_class: type[ImitationAgent], steps: int) -> None:
    """Check that an agent has an online phase after ``imitate``, if it is to take steps in it.

    :raises ValueError: an agent without one, or a negative number of steps.
    """
    if steps < 0:
        raise ValueError(f"learn: expected at least 0 environment steps, got {steps}")
    if steps and not agent_class.improves_online:
        instead = "; the option timesteps says how many imitate takes" * agent_class.imitates_online
        raise ValueError(
            f"learn: expected an agent that improves online after imitate, got {agent_class.__name__}, which does "
            f"not{instead}"
        )


def _value(value: Any, annotation: Any, argument: str) -> Any:
    """Read a value from its text; a table of a file has none."""
    text = value if isinstance(value, dict) else str(value)
    if NoneType in typing.get_args(annotation) and str(value).lower() == "none":
        return None
    try:
        return TypeAdapter(annotation).validate_python(text)
    except ValidationError as error:
        expected = annotation.__name__ if isinstance(annotation, type) else annotation
        raise ValueError(f"{argument}: expected {expected}, got {text!r}") from error
