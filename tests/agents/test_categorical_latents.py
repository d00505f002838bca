"""Categorical latents serve every agent that has a world model, as Gaussian ones do."""

from dataclasses import replace

import pytest
import small

from aime_gym.agents import AIMEAgent, DITTOAgent, make_agent
from aime_gym.agents.explorer import Explorer
from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.filtering import filter_trajectories, recorded_source
from aime_gym.models.config import WorldModelConfig
from aime_gym.testing import toy
from aime_gym.testing.base import assert_identical, parameters

MODEL = replace(small.IMAGINED["world_model"], stoch=8, classes=4)


@pytest.mark.parametrize("name", small.WORLD_MODEL_AGENTS)
def test_agents_pretrain_imitate_act_and_are_saved(name, tmp_path):
    env, play, demos = toy.task(toy.DiscretePointMass)
    agent = make_agent(name, env, seed=0, **small.TINY[name] | {"world_model": MODEL})
    agent.pretrain(play, progress_bar=False).imitate(demos, progress_bar=False)
    agent.save(tmp_path / "agent")
    loaded = type(agent).load(tmp_path / "agent", env=env)
    assert loaded.config.world_model == MODEL
    assert_identical(parameters(agent), parameters(loaded))
    dataset = TrajectoryDataset(demos, agent.action_encoding)
    features = filter_trajectories(loaded.world_model, dataset, recorded_source(dataset)).features
    latents = features[:, MODEL.deter :].unflatten(-1, (-1, MODEL.classes))
    assert latents.unique().tolist() == [0, 1]
    assert (latents.sum(-1) == 1).all()
    _, state = agent.predict(demos[0].observations[0])
    assert state[1].reshape(2, 4).sum(-1).tolist() == [1, 1]


def test_aime_learns_online_and_shows_its_beliefs(tmp_path):
    env, play, demos = toy.task(toy.PixelPointMass)
    agent = AIMEAgent(env, seed=0, **small.TINY["aime"] | {"world_model": MODEL, "reward": "viper"})
    agent.pretrain(play, progress_bar=False).imitate(demos, progress_bar=False)
    assert agent.render_beliefs(demos, tmp_path / "beliefs.mp4", episodes=1).is_file()
    assert "play" in str(agent.diagnose(demos, play))
    agent.learn(20)
    assert agent.num_timesteps >= 20


def test_an_explorer_imagines():
    explorer = Explorer(toy.PointMass(), seed=0, world_model=MODEL, random_episodes=1, first_updates=2)
    explorer.explore(2, progress_bar=False)
    assert explorer.num_timesteps


def test_the_file_of_a_world_model_keeps_them(tmp_path):
    env, play, _ = toy.task()
    agent = AIMEAgent(env, seed=0, **small.TINY["aime"] | {"world_model": MODEL})
    agent.pretrain(play, progress_bar=False).save_world_model(tmp_path / "body")
    other = DITTOAgent(env, preset="ditto", world_model=tmp_path / "body.safetensors")
    assert other.config.world_model == MODEL
    assert_identical(agent.world_model.state_dict(), other.world_model.state_dict())


def test_the_preset_of_the_paper_needs_them(tmp_path):
    env, play, _ = toy.task()
    gaussian = AIMEAgent(env, seed=0, **small.TINY["aime"]).pretrain(play, progress_bar=False)
    gaussian.save_world_model(tmp_path / "gaussian")
    assert DITTOAgent.presets["ditto"].world_model.classes == 32
    for model in ("small", tmp_path / "gaussian.safetensors"):
        with pytest.raises(ValueError, match=r"^world_model: expected one with categorical latents"):
            DITTOAgent(env, preset="ditto", world_model=model)


def test_a_state_is_whole_categoricals():
    with pytest.raises(ValueError, match="^stoch: expected a multiple of classes=32, got 30"):
        WorldModelConfig(classes=32)


def test_aime_imitates_in_them():
    env, play, demos = toy.task(play=60, demos=10)
    model = replace(small.MODEL, stoch=32, classes=8)
    updates = {"model_updates": 80, "inverse_updates": 150}
    options = small.PRETRAINING | small.LEARNING["aime"] | updates | {"world_model": model}
    agent = AIMEAgent(env, seed=0, **options)
    agent.pretrain(play, progress_bar=False).imitate(demos, progress_bar=False)
    assert toy.score(env, agent) > 0.6
