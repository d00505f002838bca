"""The agent under test, and what the tests of the contract share."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback

from aime_gym.agents.base import ImitationAgent
from aime_gym.agents.registry import get_agent_class, make_agent
from aime_gym.testing import toy
from aime_gym.types import Array

#: Phases, in their order.
PHASES = ("pretrain", "imitate")


class Subject:
    """Which agent is tested, and with what hyper-parameters."""

    #: The registered name.
    agent: ClassVar[str] = ""
    #: With these, everything runs in a moment: a few updates, and more than one in ``imitate``. An agent that imitates
    #: in its environment takes a few dozen steps in it.
    tiny: ClassVar[Mapping[str, Any]] = {}
    #: With these, the agent comes closer to the toy task's expert than to chance; ``None`` leaves that test out.
    learning: ClassVar[Mapping[str, Any] | None] = None
    #: The toy task. An agent that refuses continuous actions (a ``NotImplementedError`` that starts with "action_space:
    #: ", from its constructor) is tested on ``toy.DiscretePointMass``, and one that needs an image ("observation_space:
    #: ") on ``toy.PixelPointMass``.
    point_mass: ClassVar[type[toy.PointMass]] = toy.PointMass

    @property
    def clock(self) -> str:
        """What callbacks count in ``imitate``: an attribute of the agent."""
        return "num_timesteps" if self.agent_class.imitates_online else "num_updates"

    @property
    def agent_class(self) -> type[ImitationAgent]:
        return get_agent_class(self.agent)

    @property
    def other_id(self) -> str:
        """A task of Gymnasium with actions of the same agent_class and other spaces."""
        return "Pendulum-v1" if self.point_mass is toy.PointMass else "CartPole-v1"

    def task(self, seen: type[toy.PointMass] = toy.PointMass) -> toy.Task:
        """The toy task, with the observations of a class of toys."""
        return toy.task(toy.mixed(seen, self.point_mass))  # type: ignore[arg-type]  # a class has a hash

    def acts_in(self, env: gym.Env) -> bool:
        """Whether the agent knows such spaces; the only way not to is to say so when it is made."""
        try:
            self.make(env)
        except NotImplementedError as error:
            assert str(error).startswith(("action_space: ", "observation_space: "))  # noqa: PT017
            return False
        return True

    def needs_spaces_of(self, env: gym.Env) -> None:
        """Skip the test for an agent that does not know such observations or actions."""
        if not self.acts_in(env):
            pytest.skip(f"{self.agent} refuses {env.observation_space} or {env.action_space}")

    def observations(self, steps: int = 6, envs: int = 3) -> Array:
        """Some of the toy task, (T, B, *shape)."""
        space, generator = self.point_mass.observation_space, np.random.default_rng(0)
        shape = (steps, envs, *(space.shape or ()))
        if space.dtype == np.uint8:
            return generator.integers(256, size=shape, dtype=np.uint8)
        return generator.normal(size=shape).astype(np.float32)

    def blank(self, *leading: int) -> Array:
        """Zeros in place of observations, (..., *shape)."""
        space = self.point_mass.observation_space
        return np.zeros((*leading, *(space.shape or ())), space.dtype)

    def make(self, env: GymEnv | str | None = None, *, seed: int | None = 0, **changes: Any) -> ImitationAgent:
        """A tiny agent that has learnt nothing, on the toy task unless told otherwise."""
        env = env if env is not None else self.point_mass()
        return make_agent(self.agent, env, seed=seed, **{**self.tiny, **changes})

    def trained(self, task: toy.Task | None = None, *, callback: MaybeCallback = None, **changes: Any) -> Any:
        """A tiny agent after both phases."""
        task = task if task is not None else self.task()
        agent = self.make(task.env, **changes)
        agent.pretrain(task.play, callback=callback, progress_bar=False)
        return agent.imitate(task.demos, callback=callback, progress_bar=False)

    @pytest.fixture(autouse=True)
    def _on_the_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever the machine has: the tests compare bits."""
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    @pytest.fixture(autouse=True)
    def _ctrl_c_interrupts(self) -> Iterator[None]:
        """A shell starts jobs in the background with Ctrl-C ignored, and the tests send it to themselves."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.fixture
    def learnt(self) -> ImitationAgent:
        """A tiny agent after both phases, seed 0, for tests that leave it as it is."""
        make: Callable[[], Subject] = type(self)
        return _trained_once(make)


@functools.cache
def _trained_once(make: Callable[[], Subject]) -> ImitationAgent:
    agent: ImitationAgent = make().trained()
    return agent


def parameters(agent: ImitationAgent) -> dict[str, torch.Tensor]:
    """A copy of all that the agent has learnt, by name."""
    return {f"{m}/{n}": t.clone() for m, state in agent.get_parameters().items() for n, t in state.items()}


def assert_identical(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> None:
    """To the last bit."""
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
