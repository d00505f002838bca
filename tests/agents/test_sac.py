"""SAC on a learned reward: continuous actions, rewards of the moment, files."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv
from test_learned_reward_agents import Line

from aime_gym.agents import GAIfOAgent, GAILAgent, IMRLAgent, PMIILAgent
from aime_gym.data import collect
from aime_gym.testing import toy
from aime_gym.testing.base import assert_identical, parameters

AGENTS = [GAIfOAgent, GAILAgent, IMRLAgent, PMIILAgent]
SAC = {"algorithm": "sac", "policy_kwargs": {"hidden": 32}, "device": "cpu"}
MODEL = {"learning_rate": 3e-3, "batch_size": 128}


class SlidingLine(Line):
    """Steps of any size to either side."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def step(self, action):
        return super().step(1 + float(action[0]))


def make(kind, env, **algorithm_kwargs):
    hidden = {"discriminator_hidden": 32} if kind in (GAIfOAgent, GAILAgent) else {"hidden": 32, "updates": 500}
    options = {"learning_starts": 256, "batch_size": 64} | algorithm_kwargs
    return kind(env, seed=0, **SAC, **MODEL, **hidden, algorithm_kwargs=options)


def mean_action(agent):
    return float(np.mean([t.actions.mean() for t in collect(SlidingLine(), agent, 5, seed=2, progress=False)]))


@pytest.mark.parametrize("kind", AGENTS)
def test_it_learns_what_the_expert_does(kind):
    def rush(_):
        return np.array([0.9], np.float32)

    demos = collect(SlidingLine(), rush, 8, seed=1, progress=False)
    agent = make(kind, DummyVecEnv([SlidingLine] * 8), learning_rate=3e-3, ent_coef="auto_0.1")
    before = mean_action(agent)
    agent.imitate(demos, 800, progress_bar=False)
    assert mean_action(agent) > max(0.5, before)


@pytest.mark.parametrize("kind", AGENTS)
def test_discrete_actions_are_refused_before_any_step(kind):
    with pytest.raises(ValueError, match=r"^algorithm: expected ppo or trpo for Discrete actions, got 'sac'"):
        make(kind, toy.DiscretePointMass())


@pytest.mark.parametrize("kind", AGENTS)
def test_a_loaded_agent_learns_on_as_the_saved_one(kind, tmp_path):
    _, _, demos = toy.task()
    agent = make(kind, DummyVecEnv([toy.PointMass] * 2), learning_starts=64)
    agent.imitate(demos, 320, progress_bar=False)
    agent.save(tmp_path / "agent")
    loaded = kind.load(tmp_path / "agent", env=DummyVecEnv([toy.PointMass] * 2), demonstrations=demos, device="cpu")
    before = parameters(agent)
    for one in (agent, loaded):
        one.learn(128, reset_num_timesteps=False)
    assert_identical(parameters(loaded), parameters(agent))
    assert any(not torch.equal(tensor, before[name]) for name, tensor in parameters(agent).items())
    observation = np.zeros((3, 2), np.float32)
    np.testing.assert_array_equal(agent.predict(observation)[0], loaded.predict(observation)[0])


@pytest.mark.parametrize("option", ["replay_buffer_class", "n_steps", "action_noise"])
def test_what_is_not_its_own_to_choose_is_named(option):
    with pytest.raises(ValueError, match=rf"^algorithm_kwargs: expected some of .*, got '{option}'"):
        make(GAIfOAgent, toy.PointMass(), **{option: 3})


@pytest.mark.slow
def test_learns_the_toy_task():
    env, _, demos = toy.task(play=60, demos=10)
    agent = make(IMRLAgent, DummyVecEnv([toy.PointMass] * 8), learning_rate=1e-3, ent_coef="auto_0.1")
    agent.imitate(demos, 10_000, progress_bar=False)
    assert toy.score(env, agent) > 0.5
