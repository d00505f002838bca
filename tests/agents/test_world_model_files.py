"""A world model's file serves every agent that has a world model."""

import pytest
import small
import torch

from aime_gym.agents import AIMEAgent, BCAgent, MBBCAgent
from aime_gym.agents.explorer import Explorer
from aime_gym.testing import toy

TINY = small.TINY["aime"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An agent that has pretrained, and the file of its world model."""
    agent = AIMEAgent(toy.PointMass(), seed=0, **TINY).pretrain(toy.task().play[:10], progress_bar=False)
    path = tmp_path_factory.mktemp("models") / "body.safetensors"
    agent.save_world_model(path)
    return agent, path


def has_the_model_of(agent, exporter):
    weights = exporter.world_model.state_dict()
    assert agent.config.world_model == exporter.config.world_model
    return all(torch.equal(tensor, weights[name]) for name, tensor in agent.world_model.state_dict().items())


def test_mbbc_goes_straight_to_imitate(exported, tmp_path):
    exporter, path = exported
    agent = MBBCAgent(toy.PointMass(), seed=1, **small.TINY["mbbc"] | {"world_model": path})
    assert agent.pretrained
    assert has_the_model_of(agent, exporter)
    agent.imitate(toy.task().demos, progress_bar=False)
    assert has_the_model_of(agent, exporter)
    assert agent.num_timesteps == 0  # no play was collected
    agent.save(tmp_path / "agent")
    other = MBBCAgent(toy.PointMass(), seed=1, **small.TINY["mbbc"])
    other.save(tmp_path / "other")
    loaded = MBBCAgent.load(tmp_path / "other", world_model=path)
    assert has_the_model_of(loaded, exporter)
    assert loaded.pretrained
    assert not loaded.imitated


def test_an_explorer_keeps_the_units_of_the_file(exported):
    exporter, path = exported
    explorer = Explorer(
        toy.PointMass(), seed=0, world_model=path, random_episodes=1, first_updates=0, updates_per_step=0
    )
    assert has_the_model_of(explorer, exporter)
    explorer.explore(1, progress_bar=False)
    assert explorer.begun
    assert has_the_model_of(explorer, exporter)


@pytest.mark.parametrize("agent_class", [MBBCAgent, Explorer])
def test_a_file_for_another_body_is_refused(agent_class, exported):
    with pytest.raises(ValueError, match="^world_model: expected the environment's sensors"):
        agent_class(toy.SensorsPointMass(), world_model=exported[1])


def test_an_agent_without_a_world_model_takes_no_file(exported):
    with pytest.raises(ValueError, match="^world_model: unknown hyper-parameter of BCAgent"):
        BCAgent(toy.PointMass(), world_model=exported[1])
