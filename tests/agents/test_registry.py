"""Registry of agents, and errors that several agents share."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import small

import aime_gym
from aime_gym.agents import AIMEAgent, BCAgent, BCOAgent
from aime_gym.agents.registry import AGENTS, register_agent
from aime_gym.testing import toy

#: All that come with the package.
NAMES = ["aime", "bco", "bc", "iidm", "gaifo", "gail", "patch-ail", "imrl", "pmi-il", "mbbc", "ditto", "d-gail", "ilpo"]


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Copy of the registry, which each test may change."""
    monkeypatch.setattr("aime_gym.agents.registry.AGENTS", AGENTS.copy())


def test_a_registered_agent_is_made_and_loaded_by_its_name(tmp_path):
    @aime_gym.register_agent("mine")
    class MyAgent(BCAgent):
        pass

    assert aime_gym.list_agents() == [*NAMES, "mine"]
    agent = aime_gym.make_agent("mine", "MlpPolicy", toy.PointMass(), seed=0)
    assert type(agent) is MyAgent
    agent.save(tmp_path / "agent")
    assert type(aime_gym.load_agent(tmp_path / "agent")) is MyAgent


def test_a_cell_that_runs_twice_replaces_its_class():
    def cell():
        class MyAgent(BCAgent):
            pass

        return register_agent("mine", MyAgent)

    first, second = cell(), cell()
    assert first is not second
    assert type(aime_gym.make_agent("mine", toy.PointMass())) is second


def test_a_taken_name_is_refused():
    class MyAgent(BCAgent):
        pass

    with pytest.raises(ValueError, match="name: expected one that is free, got 'bc', which is .*BCAgent"):
        register_agent("bc", MyAgent)
    assert aime_gym.list_agents() == NAMES
    assert register_agent("bc", BCAgent) is BCAgent  # its own


def test_a_taken_class_name_is_refused():
    other = type("BCAgent", (BCOAgent,), {})
    with pytest.raises(
        ValueError, match="agent_class: expected a class name that is free.* got BCAgent, which is 'bc'"
    ):
        register_agent("mine", other)


def test_what_is_no_agent_is_refused():
    class Half(aime_gym.agents.ImitationAgent):
        needs_play = False

        def _pretrain(self, play, loop):
            pass

    for wrong in (dict, BCAgent.predict, "bc", BCAgent(toy.PointMass())):
        with pytest.raises(TypeError, match="agent_class: expected a subclass of ImitationAgent, got"):
            register_agent("mine", wrong)
    with pytest.raises(
        TypeError, match="agent_class: expected a complete agent, got Half without _act, .*_imitate, .*presets"
    ):
        register_agent("mine", Half)
    for name in (BCAgent, "", None):  # the first is @register_agent without its brackets
        with pytest.raises(TypeError, match="name: expected a name"):
            register_agent(name)


def test_unknown_agents_are_named():
    with pytest.raises(ValueError, match="unknown agent 'aim'; did you mean aime"):
        aime_gym.make_agent("aim", toy.PointMass())


def test_the_names_at_the_top_wait_for_pytorch():
    code = (
        "import sys, aime_gym; assert 'torch' not in sys.modules; "
        "aime_gym.register_agent; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# What only some agents have


@pytest.mark.parametrize("name", NAMES)
def test_hyper_parameters_out_of_range_are_named(name):
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        aime_gym.make_agent(name, toy.PointMass(), batch_size=0)
    with pytest.raises(ValueError, match="batch_siz: unknown hyper-parameter.*did you mean batch_size"):
        aime_gym.make_agent(name, toy.PointMass(), batch_siz=3)


@pytest.mark.parametrize("space", [gym.spaces.MultiDiscrete([2, 3]), gym.spaces.MultiBinary(2)])
def test_aime_refuses_other_actions(space):
    env = toy.PointMass()
    env.action_space = space
    with pytest.raises(ValueError, match=r"^action_space: expected Box or Discrete, got Multi"):
        AIMEAgent(env)


@pytest.mark.parametrize("kind", [BCAgent, BCOAgent])
def test_discrete_actions_outside_the_space_are_named(kind):
    env = toy.DiscretePointMass()
    demo = toy.demonstrations(env, 1)[0]
    for actions in (demo.actions + 5, demo.actions - 5):
        with pytest.raises(ValueError, match=r"^play\[0\].actions: expected"):
            kind(env).pretrain([demo.with_actions(actions)], progress_bar=False)


def test_actions_in_play_beyond_the_box_are_named():
    env, play, _ = toy.task()
    agent = BCOAgent(env, **small.TINY["bco"])
    with pytest.raises(ValueError, match=r"^play\[0\].actions: expected"):
        agent.pretrain([play[0].with_actions(play[0].actions * 0 + 3)], progress_bar=False)


def test_an_action_that_cannot_move_is_no_division_by_zero():
    env = toy.PointMass()
    env.action_space = gym.spaces.Box(np.array([-1, 0], np.float32), np.array([1, 0], np.float32))
    play = [one.with_actions(one.actions * [1, 0]) for one in toy.task().play]
    agent = BCOAgent(env, **small.TINY["bco"]).pretrain(play, progress_bar=False)
    assert all(np.isfinite(one.actions).all() for one in agent.infer_actions(toy.task().demos))
