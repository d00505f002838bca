"""BCO(alpha): what the policy does in the environment improves the inverse model, and so the labels and the policy."""

import numpy as np
import pytest
import torch
from small import LEARNING, TINY
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym.agents import BCOAgent
from aime_gym.data import HeldRandomPolicy, collect
from aime_gym.serialization import read_archive, write_archive
from aime_gym.testing import toy
from aime_gym.testing.base import assert_identical, parameters
from aime_gym.training.optimizer import Optimizer


def make(task=toy.PointMass, *, copies=1, **changes):
    """A tiny agent that has learnt BCO(0)."""
    _, play, demos = toy.task(task)
    return BCOAgent(
        DummyVecEnv([task] * copies), seed=0, play=play, demonstrations=demos, **{**TINY["bco"], **changes}
    ).learn(0)


def label_error(agent, demos):
    """Mean square of what the agent takes for the demonstrations' actions, less what they are."""
    inferred = agent.infer_actions(demos)
    return np.mean([np.square(one.actions - demo.actions).mean() for one, demo in zip(inferred, demos, strict=True)])


@pytest.mark.slow
def test_play_that_lacks_what_the_demonstrations_do():
    env = toy.PointMass()
    demos = toy.demonstrations(env, 10)
    feeble = collect(env, HeldRandomPolicy(env.action_space, magnitudes=(0.05,)), 20, seed=1, progress=False)
    agent = BCOAgent(env, seed=0, alpha=0.3, **LEARNING["bco"]).pretrain(feeble, progress_bar=False)
    agent.imitate(demos, progress_bar=False)
    before = label_error(agent, demos), toy.score(env, agent)
    agent.learn(1800)
    assert agent.num_timesteps == 1800
    assert label_error(agent, demos) < 0.85 * before[0]
    assert toy.score(env, agent) > before[1] + 0.1


@pytest.mark.parametrize(("alpha", "copies", "steps"), [(0, 1, 30), (0, 3, 90), (0.25, 1, 90), (0.25, 4, 120)])
def test_a_round_is_a_share_of_the_play_and_an_episode_at_least(alpha, copies, steps):
    agent = make(alpha=alpha, copies=copies)
    assert sum(map(len, agent.play)) == 360
    for rounds in (1, 2):
        agent.learn(1, reset_num_timesteps=False)
        assert agent.num_timesteps == rounds * steps
        assert sum(map(len, agent.collected.trajectories)) == rounds * steps


def test_a_round_logs_the_returns_of_its_episodes(tmp_path):
    env, play, demos = toy.task()
    agent = BCOAgent(env, seed=0, play=play, demonstrations=demos, **TINY["bco"]).learn(0)
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    agent.learn(30)
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "inverse/loss", "policy/loss"} <= set(header)


@pytest.mark.parametrize("task", [toy.DiscretePointMass, toy.SensorsPointMass, toy.ColumnPointMass])
def test_what_was_collected_is_in_the_file(task, tmp_path):
    _, play, demos = toy.task(task)
    agent = make(task, copies=2).learn(60)
    agent.save(tmp_path / "agent")
    loaded = BCOAgent.load(tmp_path / "agent", env=DummyVecEnv([task] * 2), play=play, demonstrations=demos)
    assert loaded.train_mask == agent.train_mask
    assert len(loaded.collected.trajectories) == len(agent.collected.trajectories) == 2
    for one, other in zip(loaded.collected.trajectories, agent.collected.trajectories, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)
        assert all(task().action_space.contains(action) for action in one.actions)
    for one in (agent, loaded):
        one.learn(60)
    assert_identical(parameters(loaded), parameters(agent))


def test_what_was_held_out_stays_so():
    agent = make()
    first = {name: list(train_mask) for name, train_mask in agent.train_mask.items()}
    assert [len(train_mask) for train_mask in first.values()] == [12, 0, 6]
    for rounds in range(1, 7):
        agent.learn(1)
        assert (agent.train_mask["play"], agent.train_mask["demos"]) == (first["play"], first["demos"])
        assert agent.train_mask["collected"][: len(first["collected"])] == first["collected"]
        assert len(agent.train_mask["collected"]) == rounds
        first = {name: list(train_mask) for name, train_mask in agent.train_mask.items()}
    assert 0 < sum(first["collected"]) < 6


def test_pretrain_starts_over():
    agent = make().learn(1)
    agent.set_random_seed(0)
    _, play, demos = toy.task()
    agent.pretrain(play, progress_bar=False)
    assert agent.collected.trajectories == []
    assert agent.train_mask["collected"] == []
    agent.imitate(demos, progress_bar=False)
    assert len(agent.train_mask["play"]) == 12


def test_without_the_play_of_before_what_is_collected_will_do(tmp_path):
    env, _, demos = toy.task()
    make(alpha=0.25).save(tmp_path / "agent")
    agent = BCOAgent.load(tmp_path / "agent", env=env, demonstrations=demos)
    before = parameters(agent)
    with pytest.warns(UserWarning, match=r"BCOAgent.learn: expected the play that pretrain learnt from, got None"):
        agent.learn(1)
    assert agent.num_timesteps == 90  # how much play there was is known
    assert any(not torch.equal(tensor, before[name]) for name, tensor in parameters(agent).items())


def test_a_file_of_before_there_was_an_online_phase(tmp_path):
    env, play, demos = toy.task()
    make().save(tmp_path / "agent")
    document = read_archive(tmp_path / "agent")
    document.pop("training")
    document["config"].pop("alpha")
    write_archive(tmp_path / "old", document)
    agent = BCOAgent.load(tmp_path / "old", env=env, play=play, demonstrations=demos).learn(1)
    assert agent.num_timesteps == toy.STEPS
    assert [len(train_mask) for train_mask in agent.train_mask.values()] == [12, 1, 6]


def test_ctrl_c_between_two_updates_keeps_a_policy(monkeypatch):
    agent = make()
    updates = agent.num_updates + 3

    def step(optimizer, loss):
        if agent.num_updates == updates:
            raise KeyboardInterrupt
        return take_step(optimizer, loss)

    take_step = Optimizer.step
    monkeypatch.setattr(Optimizer, "step", step)
    with pytest.warns(UserWarning, match="learn: interrupted"):
        agent.learn(90)
    assert agent.interrupted
    assert agent.imitated
    assert agent.num_updates == updates
    assert np.isfinite(toy.mean_return(toy.PointMass(), agent, 1))
    monkeypatch.setattr(Optimizer, "step", take_step)
    agent.learn(30)
    assert len(agent.collected.trajectories) == len(agent.train_mask["collected"]) == 2


def test_alpha_is_checked():
    with pytest.raises(ValueError, match="alpha: expected at least 0, got -1"):
        BCOAgent(toy.PointMass(), alpha=-1)
