"""AIME online: what it is told of, what it refuses before hours of work, and that it learns."""

import signal
import warnings

import gymnasium as gym
import numpy as np
import pytest
import small
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym.agents import AIMEAgent
from aime_gym.data import HeldRandomPolicy, collect
from aime_gym.model_based.surrogate_rewards import ViperReward
from aime_gym.testing import toy
from aime_gym.testing.base import assert_identical, parameters

SURROGATES = ("viper", "ail", "none")


def nearer(obs, next_obs):
    """A reward of one's own: paid for coming closer to the origin."""
    return np.abs(obs).sum(-1) - np.abs(next_obs).sum(-1)


def tiny(env=None, *, task=toy.PointMass, **changes):
    """An agent that has all it may want."""
    _, play, demos = toy.task(task)
    given = small.TINY["aime"] | {"play": play, "demonstrations": demos, "seed": 0} | changes
    return AIMEAgent(env if env is not None else task(), **given)


def moved(agent, before):
    return {name.split("/")[0] for name, tensor in parameters(agent).items() if not torch.equal(tensor, before[name])}


class Poisoned(gym.Wrapper):
    """Whose reward is nobody's business."""

    def step(self, action):
        observation, _, terminated, truncated, info = self.env.step(action)
        return observation, float("nan"), terminated, truncated, info


@pytest.mark.parametrize("reward", [*SURROGATES, nearer], ids=[*SURROGATES, "own"])
def test_the_reward_of_the_environment_changes_nothing(reward):
    agents = [tiny(env, reward=reward).learn(2 * toy.STEPS) for env in (toy.PointMass(), Poisoned(toy.PointMass()))]
    assert_identical(*map(parameters, agents))
    one, other = ([e.rewards for e in agent.online.replay.trajectories] for agent in agents)
    for rewards, others in zip(one, other, strict=True):
        np.testing.assert_array_equal(rewards, others)
        assert rewards is None or np.isfinite(rewards).all()
    assert (one[0] is None) == (reward in ("ail", "none"))


@pytest.mark.parametrize("task", [toy.PointMass, toy.DiscretePointMass, toy.SensorsPointMass, toy.ColumnPointMass])
def test_learn_moves_the_model_and_the_policy(task):
    agent = tiny(task=task, reward="ail").learn(0)
    before = parameters(agent)
    agent.learn(toy.STEPS)
    assert moved(agent, before) == {"world_model", "inverse_model", "policy"}
    assert all(torch.isfinite(tensor).all() for tensor in parameters(agent).values())
    assert agent.num_timesteps == agent.online.experienced_steps == toy.STEPS


def test_copies_play_side_by_side():
    agent = tiny(DummyVecEnv([toy.PointMass] * 3)).learn(1)
    assert agent.num_timesteps == agent.online.experienced_steps == 3 * toy.STEPS
    first, second, _ = agent.online.replay.trajectories
    assert not np.array_equal(first.observations, second.observations)


class Short(toy.PointMass):
    """Over after two steps."""

    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, self.steps == 2, truncated, info


@pytest.mark.parametrize("ratio", [0.2, 0.3, 1.0])
def test_updates_follow_the_steps_however_short_an_episode_is(ratio):
    agent = tiny(Short(), updates_per_step=ratio, reward="none").learn(0)
    before = agent.num_updates
    agent.learn(10)
    agent.learn(10)
    assert agent.num_updates - before == round(20 * ratio)
    assert all(episode.terminated for episode in agent.online.replay.trajectories)


def test_without_play_the_share_of_play_falls_to_zero(tmp_path):
    agent = tiny().learn(0)
    agent.save(tmp_path / "agent")
    loaded = AIMEAgent.load(tmp_path / "agent", env=toy.PointMass(), demonstrations=toy.task().demos)
    with pytest.warns(UserWarning, match=r"^learn: no play at hand.*play_ratio falls to 0"):
        loaded.learn(1)
    assert loaded.online._joint.experienced == loaded.config.batch_size
    for changes in ({"play": toy.task().play}, {"play_ratio": 0.0}):
        silent = AIMEAgent.load(tmp_path / "agent", env=toy.PointMass(), demonstrations=toy.task().demos, **changes)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            silent.learn(1)
    assert_identical(parameters(loaded), parameters(silent))  # as without play by choice


def test_an_agent_that_went_through_its_phases_needs_no_data_again():
    _, play, demos = toy.task()
    agent = AIMEAgent(toy.PointMass(), seed=0, **small.TINY["aime"])
    with pytest.raises(ValueError, match="^demonstrations: expected trajectories, got None"):
        agent.learn(1)
    agent.pretrain(play, progress_bar=False).imitate(demos, progress_bar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.learn(1)
    assert_identical(parameters(agent), parameters(tiny().learn(1)))


# ---- a function for a reward ----


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda obs, next_obs: obs, r"expected rewards of shape \(30,\), got \(30, 2\)"),
        (lambda obs, next_obs: obs[:, 0] / np.float32(0), "expected finite rewards"),
        (lambda obs, next_obs: None, "expected"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in divide:RuntimeWarning")
def test_a_function_that_gives_no_rewards_is_found_before_any_training(reward, message):
    agent = tiny(reward=reward)
    with pytest.raises(ValueError, match=f"^reward: {message}"):
        agent.learn(1)
    assert (agent.pretrained, agent.imitated, agent.num_updates, agent.num_timesteps) == (False, False, 0, 0)
    agent.learn(0)  # which needs none
    assert agent.imitated


def test_no_file_holds_a_function(tmp_path):
    data = {"demonstrations": toy.task().demos, "play": toy.task().play}
    agent = tiny(reward=nearer).learn(1)
    agent.save(tmp_path / "agent")
    observation = np.zeros(2, np.float32)
    acting = AIMEAgent.load(tmp_path / "agent", env=toy.PointMass(), **data)
    np.testing.assert_array_equal(
        acting.predict(observation, deterministic=True)[0], agent.predict(observation, deterministic=True)[0]
    )
    with pytest.raises(ValueError, match="^reward: expected the function that this agent learns from.*to load$"):
        acting.learn(1)
    loaded = AIMEAgent.load(tmp_path / "agent", env=toy.PointMass(), reward=nearer, **data)
    for one in (agent, loaded):
        one.learn(toy.STEPS)
    assert_identical(parameters(agent), parameters(loaded))
    # By its name in the configuration, nobody can tell which one it was.
    with pytest.raises(ValueError, match="^reward: expected the function"):
        tiny(reward="own").learn(1)


# ---- cut short ----


def test_a_viper_model_that_was_cut_short_is_no_reward(monkeypatch):
    agent, whole = tiny(reward="viper").learn(0), tiny(reward="viper").learn(0)
    fit, fitted = ViperReward.fit, []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it

    def interrupted(self, demos, fit_, config):
        signal.raise_signal(signal.SIGINT)  # Ctrl-C, held back until the first update is complete
        fitted.append(fit(self, demos, fit_, config))
        return fitted[-1]

    monkeypatch.setattr(ViperReward, "fit", interrupted)
    with pytest.warns(UserWarning, match="^viper: interrupted after 1 of 3"):
        agent.learn(1)
    assert agent.interrupted
    assert fitted == [False]
    assert agent.online is None
    assert agent.num_timesteps == 0
    monkeypatch.undo()
    signal.signal(signal.SIGINT, before)
    updates = agent.num_updates
    agent.learn(1)
    assert agent.num_updates - updates == whole.config.reward_updates + round(0.2 * toy.STEPS)


def test_a_second_imitate_begins_anew():
    agent = tiny().learn(1)
    assert agent.online is not None
    agent.imitate(toy.task().demos, progress_bar=False)
    assert agent.online is None
    agent.learn(1)
    assert agent.online.experienced_steps == toy.STEPS
    assert agent.online.policy is agent.policy


# ---- learning ----


@pytest.mark.slow
def test_experience_makes_up_for_poor_play():
    """Three episodes of faint pushes say little of what the expert does; what the agent tries then shows the rest."""
    env, (_, _, demos) = toy.PointMass(), toy.task(play=60, demos=10)
    faint = HeldRandomPolicy(env.action_space, magnitudes=(0.1,))
    play = collect(env, faint, 3, seed=1, progress=False)
    budget = {"model_updates": 150, "inverse_updates": 300, "clone_updates": 300, "policy_updates": 50}
    online = {"updates_per_step": 1.0, "reward": "none"}
    agent = AIMEAgent(env, seed=0, world_model=small.MODEL, sequence_length=16, batch_size=16, **budget, **online)
    agent.pretrain(play, progress_bar=False).imitate(demos, progress_bar=False)
    before = toy.score(env, agent)
    agent.learn(8 * toy.STEPS)
    assert toy.score(env, agent) > before + 0.1
