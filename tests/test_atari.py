"""Atari: what is observed, the scripted experts, and agents that see one grey channel."""

import sys

import gymnasium as gym
import numpy as np
import pytest
import small

import aime_gym
from aime_gym.agents import BCAgent, DITTOAgent
from aime_gym.data import PaddleExpert, collect
from aime_gym.data.collecting import registered_here
from aime_gym.tasks import TaskConfig, known_task

STEPS = 160


def require_atari():
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")


def pong(**options):
    require_atari()
    return aime_gym.make_env("ALE/Pong-v5", **{"modality": "pixels"} | options)


def test_frames_are_grey_and_follow_the_seed():
    env = pong()
    assert env.observation_space.shape == (64, 64, 1)
    assert env.metadata["render_fps"] == 15
    ale = env.unwrapped.ale
    begun = []
    for seed in (0, 0, 1, 2, 3):
        env.reset(seed=seed)
        begun.append(ale.getEpisodeFrameNumber())
    assert begun[0] == begun[1]
    assert len(set(begun)) > 1
    assert ale.getFloat("repeat_action_probability") == 0
    env.step(0)
    assert ale.getEpisodeFrameNumber() == begun[-1] + 4


def test_the_state_is_the_memory_of_the_same_episode():
    pixels, state = pong(), pong(modality="state", render_mode=None)
    pixels.reset(seed=0)
    np.testing.assert_array_equal(state.reset(seed=0)[0], pixels.unwrapped.ale.getRAM())
    assert pong(modality="position", position_indices=[49, 54]).observation_space.shape == (2,)


def test_options_are_those_of_make_env():
    env = pong(action_repeat=2, max_episode_steps=200, image_size=32, env_kwargs={"repeat_action_probability": 0.25})
    assert known_task(env).config == TaskConfig(
        "ALE/Pong-v5", "pixels", 2, 200, image_size=32, env_kwargs={"repeat_action_probability": 0.25}
    )
    (episode,) = collect(env, "random", 1, seed=0, progress=False)
    assert len(episode) <= 100  # frames of the no-ops at first count
    with pytest.raises(ValueError, match="^env_kwargs: expected action_repeat as an option of make_env, got frameskip"):
        pong(env_kwargs={"frameskip": 4})


def test_without_the_emulator_the_error_has_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    for make in (aime_gym.make_env, BCAgent):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'aime-gym\[atari\]'"):
            make("ALE/Pong-v5")


@pytest.mark.parametrize(("game", "least"), [("Pong", 1), ("Breakout", 10)])
def test_the_expert_scores_and_changes_nothing(game, least):
    require_atari()
    env = aime_gym.make_env(f"ALE/{game}-v5", modality="pixels", max_episode_steps=1400)
    (episode,) = collect(env, "expert", 1, seed=0, progress=False)
    assert episode.episode_return >= least
    again = aime_gym.make_env(f"ALE/{game}-v5", modality="pixels", max_episode_steps=1400)
    observation, _ = again.reset(seed=aime_gym.data.episode_seeds(0, 1)[0])
    for action, expected in zip(episode.actions, episode.observations, strict=False):
        np.testing.assert_array_equal(observation, expected)
        observation, *_ = again.step(action)


def test_other_games_have_no_expert():
    require_atari()
    with pytest.raises(ValueError, match=r"^env: expected Atari's pong or breakout, got qbert"):
        PaddleExpert(aime_gym.make_env("ALE/Qbert-v5"))


@pytest.mark.parametrize("name", ["bc", "ditto"])
def test_agents_learn_from_grey_frames(name, tmp_path):
    env = pong(max_episode_steps=STEPS)
    play = collect(env, "play", 3, seed=0, progress=False)
    agent = aime_gym.make_agent(name, env, seed=0, **small.TINY[name])
    if name == "ditto":
        agent.pretrain(play, progress_bar=False)
    agent.imitate(play, progress_bar=False)
    agent.save(tmp_path / "agent")
    loaded = (DITTOAgent if name == "ditto" else BCAgent).load(tmp_path / "agent")
    observation = env.reset(seed=0)[0]
    assert loaded.predict(observation, deterministic=True)[0] == agent.predict(observation, deterministic=True)[0]
    assert loaded.known_task.config.env_id == "ALE/Pong-v5"


def test_other_processes_register_the_games_themselves():
    """What ale_py finds registered when it is imported, it warns of, game by game."""
    pong()
    assert any(name.startswith("ALE/") for name in gym.registry)
    sent = registered_here()
    assert "CartPole-v1" in sent
    assert not any(name.startswith("ALE/") for name in sent)
