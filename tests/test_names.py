"""What an editor, a notebook and a type checker see of the package: names, versions, signatures."""

import configparser
import inspect
from dataclasses import fields
from pathlib import Path

import pytest

import aime_gym
from aime_gym import agents
from aime_gym.agents.registry import AGENTS
from aime_gym.testing import toy


def test_every_public_name_is_there_and_listed():
    assert set(aime_gym.__all__) <= set(dir(aime_gym))
    for name in aime_gym.__all__:
        assert callable(getattr(aime_gym, name))


def test_the_version_has_one_home():
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[1] / "setup.cfg")
    assert config["metadata"]["version"] == "attr: aime_gym.__version__"


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_shows_its_hyper_parameters(name):
    agent_class = AGENTS[name]
    config = agent_class.presets["default"]
    assert type(config).__name__ in agents.__all__
    parameters = inspect.signature(agent_class).parameters
    assert list(parameters)[:2] == ["env", "preset"]
    assert {"seed", "device", "demonstrations", "play", "checkpoint_dir"} <= set(parameters)
    assert all(parameters[field.name].default == getattr(config, field.name) for field in fields(config))
    assert not [parameter for parameter in parameters.values() if parameter.kind is parameter.VAR_KEYWORD]


def test_an_agent_is_made_from_a_task_s_name():
    agent = agents.BCAgent("reach-v3")
    assert agent.observation_space == aime_gym.make_env("reach-v3").observation_space
    assert agents.BCAgent("CartPole-v1").observation_space.shape == (4,)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("walker-runn", "'walker-run'"),
        ("aime_gym/reach-v3-poistion-v0", "'aime_gym/reach-v3-position-v0'"),
        ("CartPol-v1", "'CartPole-v1'"),
    ],
)
def test_an_unknown_task_names_the_nearest(wrong, nearest):
    with pytest.raises(
        ValueError, match=f"^env: expected 'walker-walk' .* got '{wrong}'; the nearest names .*{nearest}"
    ):
        agents.BCAgent(wrong)
    agent = agents.BCAgent(toy.PointMass())
    with pytest.raises(ValueError, match=f"^env: expected .*{nearest}"):
        agent.set_env(wrong)
