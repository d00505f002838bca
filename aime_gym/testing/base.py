"""Base class of the contract: the agent under test, and its toy tasks."""

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

#: Phases that take trajectories, in their order.
PHASES = ("pretrain", "imitate")


class ContractBase:
    """Agent under test and its hyper-parameters; each part of the contract subclasses this."""

    #: Registered name of the agent.
    agent: ClassVar[str] = ""
    #: Hyper-parameters for a fraction of a second of training: a few updates, at least two of them in ``imitate``, or a
    #: few dozen environment steps if the agent imitates online.
    tiny: ClassVar[Mapping[str, Any]] = {}
    #: Hyper-parameters with which the agent comes closer to the toy task's expert than to chance; ``None`` skips that
    #: test.
    learning: ClassVar[Mapping[str, Any] | None] = None
    #: Environment of the toy task. An agent whose constructor refuses continuous actions (by a ``NotImplementedError``
    #: that starts with "action_space: ") is tested on ``toy.DiscretePointMass``, and one that needs an image
    #: ("observation_space: ") on ``toy.PixelPointMass``.
    toy_class: ClassVar[type[toy.PointMass]] = toy.PointMass

    @property
    def callback_clock(self) -> str:
        """Name of the agent's counter that callbacks follow in ``imitate``."""
        return "num_timesteps" if self.agent_class.imitates_online else "num_updates"

    @property
    def agent_class(self) -> type[ImitationAgent]:
        return get_agent_class(self.agent)

    @property
    def other_id(self) -> str:
        """Gymnasium id of a task with the same type of actions and other spaces."""
        return "Pendulum-v1" if self.toy_class is toy.PointMass else "CartPole-v1"

    def task(self, observation_class: type[toy.PointMass] = toy.PointMass) -> toy.ToyTask:
        """Return the toy task, with the observations of ``observation_class``."""
        return toy.task(toy.combined(observation_class, self.toy_class))  # type: ignore[arg-type]  # a class has a hash

    def supports(self, env: gym.Env) -> bool:
        """Return whether the agent supports these spaces; if not, its constructor has to refuse them."""
        try:
            self.make(env)
        except NotImplementedError as error:
            assert str(error).startswith(("action_space: ", "observation_space: "))  # noqa: PT017
            return False
        return True

    def skip_unless_supported(self, env: gym.Env) -> None:
        """Skip the test for an agent that does not support these observations or actions."""
        if not self.supports(env):
            pytest.skip(f"{self.agent} refuses {env.observation_space} or {env.action_space}")

    def observations(self, steps: int = 6, envs: int = 3) -> Array:
        """Return random observations of the toy task, (T, B, *shape)."""
        space = self.toy_class.observation_space
        generator = np.random.default_rng(0)
        shape = (steps, envs, *(space.shape or ()))
        if space.dtype == np.uint8:
            return generator.integers(256, size=shape, dtype=np.uint8)
        return generator.normal(size=shape).astype(np.float32)

    def zero_observations(self, *leading: int) -> Array:
        """Return observations of zeros, (..., *shape)."""
        space = self.toy_class.observation_space
        return np.zeros((*leading, *(space.shape or ())), space.dtype)

    def make(self, env: GymEnv | str | None = None, *, seed: int | None = 0, **changes: Any) -> ImitationAgent:
        """Return an untrained agent with the hyper-parameters ``tiny``, on the toy task unless ``env`` is given."""
        env = env if env is not None else self.toy_class()
        return make_agent(self.agent, env, seed=seed, **{**self.tiny, **changes})

    def learner(self, env: gym.Env) -> ImitationAgent:
        """Return an agent with the hyper-parameters ``learning``; override it for one that has pretrained already."""
        return self.make(env, **(self.learning or {}))

    def trained(self, task: toy.ToyTask | None = None, *, callback: MaybeCallback = None, **changes: Any) -> Any:
        """Return an agent with the hyper-parameters ``tiny`` after both phases."""
        task = task if task is not None else self.task()
        agent = self.make(task.env, **changes)
        agent.pretrain(task.play, callback=callback, progress_bar=False)
        return agent.imitate(task.demos, callback=callback, progress_bar=False)

    @pytest.fixture(autouse=True)
    def _cpu_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hide accelerators, since the tests compare bits."""
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    @pytest.fixture(autouse=True)
    def _ctrl_c_interrupts(self) -> Iterator[None]:
        """Let Ctrl-C interrupt, which the tests send to themselves: shells start background jobs with it ignored."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.fixture
    def trained_agent(self) -> ImitationAgent:
        """Shared agent after both phases, seed 0; tests must not change it."""
        make: Callable[[], ContractBase] = type(self)
        return _trained_once(make)


@functools.cache
def _trained_once(make: Callable[[], ContractBase]) -> ImitationAgent:
    agent: ImitationAgent = make().trained()
    return agent


def parameters(agent: ImitationAgent) -> dict[str, torch.Tensor]:
    """Return a copy of the agent's parameters, as ``{"module/name": tensor}``."""
    return {
        f"{module}/{name}": tensor.clone()
        for module, state in agent.get_parameters().items()
        for name, tensor in state.items()
    }


def assert_identical(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> None:
    """Assert that all tensors are bit-identical."""
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
