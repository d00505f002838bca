"""Contract of wrong input: one error that names the argument, before any training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from aime_gym.agents.base import ImitationAgent
from aime_gym.agents.registry import make_agent
from aime_gym.testing.base import ContractBase, assert_identical, parameters
from aime_gym.types import Trajectory

#: Ways to corrupt a trajectory, and the pattern of the error.
BAD_DATA: dict[str, tuple[Callable[[Any], list[Trajectory]], str]] = {
    "empty": (lambda t: [], "at least one trajectory"),
    "shape": (lambda t: [Trajectory(np.zeros((5, 3), t.observations.dtype), np.zeros((4, 2)))], "shape"),
    "not a number": (lambda t: [replace(t, observations=np.full_like(t.observations, np.nan))], "NaN|nan|finite"),
    "infinite rewards": (lambda t: [replace(t, rewards=np.full(len(t), np.inf))], "inf|finite"),
    "images": (lambda t: [replace(t, observations=t.observations.astype(np.uint8))], "uint8"),
}

#: Cases that do not exist for images.
NOT_FOR_IMAGES = ("not a number", "images")

#: Ways to corrupt a valid state of three environments.
BAD_STATES: dict[str, Callable[[Any], Any]] = {
    "one part too many": lambda state: (*state, np.zeros((3, 1), np.float32)),
    "none of the parts": lambda state: (),
    "two environments": lambda state: tuple(part[:2] for part in state),
    "one array": lambda state: np.zeros(7),
    "text": lambda state: "state",
    "a number": lambda state: 3,
    "no arrays": lambda state: (None,) * len(state),
}


class InputContract(ContractBase):
    """Data, and arguments of the constructor and of ``predict``."""

    @pytest.mark.parametrize("case", BAD_DATA)
    def test_bad_data_is_named_before_any_training(self, case: str) -> None:
        env, play, demos = self.task()
        if self.zero_observations().dtype == np.uint8 and case in NOT_FOR_IMAGES:
            pytest.skip("images are always valid")
        corrupt, message = BAD_DATA[case]
        agent = self.make(env)
        before = parameters(agent)
        with pytest.raises(ValueError, match=rf"^play.*({message})"):
            agent.pretrain(corrupt(play[0]), progress_bar=False)
        with pytest.raises(ValueError, match=rf"^demos.*({message})"):
            agent.imitate(corrupt(demos[0]), progress_bar=False)
        assert_identical(before, parameters(agent))

    def test_missing_data_and_missing_actions_are_named(self) -> None:
        env, play, demos = self.task()
        agent = self.make(env)
        with pytest.raises(ValueError, match=r"play: expected trajectories, got None"):
            agent.pretrain()
        with pytest.raises(ValueError, match=r"demos: expected trajectories, got None"):
            agent.imitate()
        with pytest.raises(ValueError, match=r"play\[0\].*actions"):
            agent.pretrain([one.without_actions() for one in play])
        for actions in (np.full((len(play[0]), 2), np.nan), np.zeros((len(play[0]), 1))):
            with pytest.raises(ValueError, match=r"^play\[0\].actions: expected"):
                agent.pretrain([play[0].with_actions(actions)], progress_bar=False)
        if self.agent_class.needs_demonstration_actions:
            with pytest.raises(ValueError, match=r"demos\[0\].*actions"):
                agent.imitate([one.without_actions() for one in demos])
        with pytest.raises(ValueError, match=r"infer_actions: .* has learnt nothing yet"):
            agent.infer_actions(demos)
        assert agent.num_updates == 0

    def test_arguments_of_the_constructor_are_named(self) -> None:
        cases: list[tuple[dict[str, Any], str]] = [
            ({"learning_rat_": 3}, "learning_rat_: unknown hyper-parameter"),
            ({"preset": "nothing"}, "preset: .*'nothing'"),
            ({"policy": "CnnPolicy"}, "policy: expected MlpPolicy or MultiInputPolicy, got 'CnnPolicy'"),
            ({"policy_kwargs": {"net_arch": [64]}}, "policy_kwargs: .*'net_arch'"),
            ({"checkpoint_interval": 0}, "checkpoint_interval: expected at least 1, got 0"),
        ]
        for arguments, message in cases:
            with pytest.raises(ValueError, match=message):
                self.make(**arguments)
        images = self.toy_class()
        images.observation_space = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
        try:
            self.make(images)
        except NotImplementedError as error:
            assert str(error).startswith("observation_space: ")  # noqa: PT017
            assert "image" in str(error)  # noqa: PT017
        unbounded = self.toy_class()
        unbounded.action_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        with pytest.raises(ValueError, match=r"action_space: expected"):
            self.make(unbounded)

    def test_presets_are_frozen_and_fit_into_a_file(self) -> None:
        assert "default" in self.agent_class.presets
        for preset in self.agent_class.presets.values():
            values = dataclasses.asdict(preset)
            assert json.loads(json.dumps(values)) == values
            for name in values:
                with pytest.raises(dataclasses.FrozenInstanceError):
                    setattr(preset, name, None)

    def test_an_agent_without_an_environment_says_so(self) -> None:
        _, play, demos = self.task()
        agent = make_agent(self.agent, seed=0, play=play, demonstrations=demos, **self.tiny)
        calls: list[Callable[[], object]] = [
            lambda: agent.pretrain(play),
            lambda: agent.imitate(demos),
            lambda: agent.infer_actions(demos),
            lambda: agent.learn(0),
            lambda: agent.predict(np.zeros(2, np.float32)),
            lambda: agent.save("nowhere"),
            lambda: agent.set_parameters({}),
        ]
        for call in calls:
            with pytest.raises(ValueError, match=r"^(env|infer_actions): "):
                call()
        agent.set_env(self.toy_class())
        assert_identical(parameters(agent), parameters(self.make()))
        assert_identical(parameters(agent.learn(0)), parameters(self.trained()))

    # predict

    def test_observations_are_named(self, trained_agent: ImitationAgent) -> None:
        with pytest.raises(ValueError, match=r"observation, info"):
            trained_agent.predict((np.zeros(2, np.float32), {}))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"observation"):
            trained_agent.predict(np.zeros(5, np.float32))
        with pytest.raises(ValueError, match=r"observation"):
            trained_agent.predict({"position": np.zeros(2, np.float32)})

    @pytest.mark.parametrize("case", BAD_STATES)
    def test_states_are_named(self, case: str, trained_agent: ImitationAgent) -> None:
        batch = self.zero_observations(3)
        _, state = trained_agent.predict(batch)
        wrong = BAD_STATES[case](state)
        if isinstance(wrong, tuple) and not (wrong or state):
            pytest.skip("valid for an agent without a state")
        with pytest.raises(ValueError, match=r"^state: expected"):
            trained_agent.predict(batch, wrong)

    def test_episode_starts_are_named(self, trained_agent: ImitationAgent) -> None:
        batch = self.zero_observations(3)
        _, state = trained_agent.predict(batch)
        with pytest.raises(ValueError, match=r"^episode_start: expected shape"):
            trained_agent.predict(batch, state, np.array([True]))
