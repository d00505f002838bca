"""Contract of environments: those an agent is made with, continues with and is evaluated in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecEnv,
    VecMonitor,
    VecNormalize,
)

from aime_gym.agents.base import ImitationAgent
from aime_gym.agents.registry import make_agent
from aime_gym.testing.base import ContractBase, assert_identical, parameters

#: Ways of SB3's users to wrap the toy environment, and the resulting number of copies.
ENVIRONMENTS: dict[str, tuple[Callable[[Callable[[], gym.Env]], GymEnv], int]] = {
    "plain": (lambda make: make(), 1),
    "Monitor": (lambda make: Monitor(make()), 1),
    "DummyVecEnv": (lambda make: DummyVecEnv([make] * 3), 3),
    "VecMonitor": (lambda make: VecMonitor(DummyVecEnv([make] * 2)), 2),
    "VecCheckNan": (lambda make: VecCheckNan(DummyVecEnv([make])), 1),
    "make_vec_env": (lambda make: make_vec_env(make, n_envs=2, seed=0), 2),
    "VecNormalize of rewards": (lambda make: _normalized(make, norm_obs=False), 1),
    # fork, since the default starts a new Python for each copy.
    "SubprocVecEnv": (lambda make: SubprocVecEnv([make] * 2, start_method="fork"), 2),
    "all wrappers": (lambda make: VecNormalize(VecMonitor(VecCheckNan(DummyVecEnv([make] * 2))), norm_obs=False), 2),
}


def _normalized(make: Callable[[], gym.Env], **options: Any) -> VecNormalize:
    return VecNormalize(DummyVecEnv([make]), **options)


def _check_all_verbs(contract: ContractBase, case: str, trained_agent: ImitationAgent) -> None:
    """Assert that an agent is made with an environment, learns and acts there, and continues in another."""
    wrap, copies = ENVIRONMENTS[case]
    env = wrap(contract.toy_class)
    try:
        agent = contract.make(env)
        assert agent.n_envs == agent.get_env().num_envs == copies  # type: ignore[union-attr]
        _, play, demos = contract.task()
        agent.pretrain(play, progress_bar=False).imitate(demos, progress_bar=False)
        if not contract.agent_class.imitates_online:  # the environment then does not influence training
            assert_identical(parameters(agent), parameters(trained_agent))
        mean, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=2, warn=False)
        assert np.isfinite(mean)
        other = contract.make()
        other.set_env(env)
        assert other.n_envs == other.get_env().num_envs == copies  # type: ignore[union-attr]
        assert agent.get_vec_normalize_env() is (env if isinstance(env, VecNormalize) else None)
        assert other.get_vec_normalize_env() is (env if isinstance(env, VecNormalize) else None)
    finally:
        env.close()


class EachEnvironmentContract(ContractBase):
    """Each form of an environment by itself, which one agent of each kind has to pass; others pass all at once."""

    @pytest.mark.parametrize("case", ENVIRONMENTS)
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_an_environment_of_sb3(self, case: str, trained_agent: ImitationAgent) -> None:
        _check_all_verbs(self, case, trained_agent)


class EnvironmentContract(ContractBase):
    """Constructor, ``set_env``, ``get_env``, ``evaluate_policy``."""

    def test_wrapped_environments_of_sb3(self, trained_agent: ImitationAgent) -> None:
        _check_all_verbs(self, "all wrappers", trained_agent)

    def test_normalised_observations_are_refused(self) -> None:
        agent = self.make()
        for refuse in (self.make, agent.set_env):
            with pytest.raises(ValueError, match=r"^env: .*norm_obs=False"):
                refuse(_normalized(self.toy_class))
        assert agent.get_vec_normalize_env() is None

    def test_forms_of_the_constructor(self) -> None:
        env = self.toy_class()
        arguments = {**self.tiny, "seed": 0}
        expected = parameters(make_agent(self.agent, env, **arguments))
        for agent in (
            make_agent(self.agent, env=env, **arguments),
            make_agent(self.agent, "MlpPolicy", env, **arguments),
            make_agent(self.agent, env=env, policy="MlpPolicy", **arguments),
            make_agent(self.agent, "MultiInputPolicy", env=env, **arguments),
            self.agent_class("MlpPolicy", env, **arguments),
        ):
            assert type(agent) is self.agent_class
            assert_identical(parameters(agent), expected)
        with pytest.raises(ValueError, match=r"^env: expected one environment"):
            make_agent(self.agent, env, env=env)

    def test_an_environment_by_its_id(self) -> None:
        self.skip_unless_supported(gym.make(self.other_id))
        for agent in (self.make(self.other_id), make_agent(self.agent, "MlpPolicy", self.other_id, **self.tiny)):
            env = agent.get_env()
            assert isinstance(env, VecEnv)
            action, _ = agent.predict(env.reset())  # type: ignore[arg-type]
            assert action.shape == (1, *agent.action_space.shape)

    def test_a_refused_environment_changes_nothing(self) -> None:
        agent = self.make()
        env = agent.get_env()
        before = parameters(agent)
        for wrong in (gym.make(self.other_id), _normalized(lambda: gym.make(self.other_id), norm_obs=False)):
            with pytest.raises(ValueError, match=r"env: expected the spaces"):
                agent.set_env(wrong)
            assert agent.get_env() is env
            assert agent.get_vec_normalize_env() is None
        assert_identical(parameters(agent), before)

    def test_set_env_takes_any_number_of_copies(self, trained_agent: ImitationAgent) -> None:
        agent = self.make()
        agent.set_parameters(trained_agent.get_parameters())
        for copies in (3, 1):
            agent.set_env(DummyVecEnv([self.toy_class] * copies))
            env = agent.get_env()
            assert env is not None
            actions, _ = agent.predict(env.reset())  # type: ignore[arg-type]
            assert len(actions) == agent.n_envs == copies
        agent.set_env(env, force_reset=False)
        assert agent.get_env() is env

    def test_an_agent_seeds_its_environment(self) -> None:
        first, second = self.make(self.toy_class(), seed=4), self.make(self.toy_class(), seed=4)
        np.testing.assert_array_equal(first.get_env().reset(), second.get_env().reset())  # type: ignore[union-attr]

    def test_data_of_other_spaces_is_refused(self) -> None:
        self.skip_unless_supported(gym.make(self.other_id))
        agent = self.make(DummyVecEnv([lambda: gym.make(self.other_id)] * 2))
        with pytest.raises(ValueError, match=r"^play.*shape"):
            agent.pretrain(self.task().play, progress_bar=False)
        with pytest.raises(ValueError, match=r"^demos.*shape"):
            agent.imitate(self.task().demos, progress_bar=False)
        assert agent.num_updates == 0
