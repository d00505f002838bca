"""Offline agents on images; the contract tests them on vectors."""

import numpy as np
import pytest
import small
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecTransposeImage

from aime_gym.agents import AIMEAgent, BCOAgent, load_agent, make_agent
from aime_gym.data import TrajectoryDataset
from aime_gym.testing import toy
from aime_gym.types import Trajectory

AGENTS = ("aime", "bco", "bc", "iidm", "mbbc", "ditto")


class CameraAndTouch(toy.PixelPointMass):
    """Point mass as an image, with its distance from the origin as a vector."""

    observation_space = spaces.Dict(
        {"camera": toy.PixelPointMass.observation_space, "touch": spaces.Box(0, np.inf, (1,), np.float32)}
    )

    def observe(self):
        return {"camera": super().observe(), "touch": np.float32([np.abs(self.position).sum()])}


def learnt(name, make=toy.PixelPointMass, **changes):
    env, play, demos = toy.task(make)
    agent = make_agent(name, env, seed=0, **small.TINY[name] | changes)
    return env, agent.pretrain(play, progress_bar=False).imitate(demos, progress_bar=False)


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("make", [toy.PixelPointMass, CameraAndTouch])
def test_an_agent_learns_acts_and_comes_back_from_its_file(name, make, tmp_path):
    env, agent = learnt(name, make)
    agent.save(tmp_path / "agent.zip")
    loaded = load_agent(tmp_path / "agent.zip", env)
    observation, _ = env.reset(seed=0)
    state, again = None, None
    for _ in range(3):
        action, state = agent.predict(observation, state, deterministic=True)
        other, again = loaded.predict(observation, again, deterministic=True)
        np.testing.assert_array_equal(action, other)
        observation, *_ = env.step(action)
    inferred = agent.infer_actions(toy.task(make).demos[:2])
    assert [len(trajectory) for trajectory in inferred] == [toy.STEPS] * 2
    assert np.isfinite(evaluate_policy(agent, agent.get_env(), n_eval_episodes=1, warn=False)[0])


@pytest.mark.parametrize("name", ["aime", "bco"])
def test_it_goes_on_in_its_environment(name):
    _, agent = learnt(name)
    before = [parameter.clone() for parameter in agent.policy.parameters()]
    agent.learn(2 * toy.STEPS)
    assert agent.num_timesteps == 2 * toy.STEPS
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.policy.parameters(), strict=True))


def test_bco_starts_from_the_encoder_of_its_inverse_model(monkeypatch):
    """Check that the policy has it before its first update, and moves it from there."""
    env, play, demos = toy.task(toy.PixelPointMass)
    agent = make_agent("bco", env, seed=0, **small.TINY["bco"]).pretrain(play, progress_bar=False)
    fit, encoders = BCOAgent._fit_policy, {}

    def watched(agent, *arguments):
        encoders.update({name: value.clone() for name, value in agent.policy.encoders.state_dict().items()})
        return fit(agent, *arguments)

    monkeypatch.setattr(BCOAgent, "_fit_policy", watched)
    agent.imitate(demos, progress_bar=False)
    for name, value in agent.inverse_model.encoders.state_dict().items():
        assert torch.equal(value, encoders[name])
    assert any(not torch.equal(value, encoders[name]) for name, value in agent.policy.encoders.state_dict().items())


@pytest.mark.parametrize("name", AGENTS)
def test_channels_may_come_as_sb3_transposes_them(name):
    env, agent = learnt(name)
    assert agent.observation_space == env.observation_space
    observation, _ = env.reset(seed=1)
    action, _ = agent.predict(observation, deterministic=True)
    transposed, _ = agent.predict(np.moveaxis(observation, -1, 0), deterministic=True)
    np.testing.assert_array_equal(action, transposed)
    wrapped = VecTransposeImage(DummyVecEnv([toy.PixelPointMass] * 2))
    assert np.isfinite(evaluate_policy(agent, wrapped, n_eval_episodes=2, warn=False)[0])
    agent.set_env(wrapped)
    assert agent.n_envs == 2


def test_frames_stay_bytes_until_a_network_takes_them():
    _, play, _ = toy.task(toy.PixelPointMass)
    dataset = TrajectoryDataset(play, None)
    assert dataset.observed(torch.tensor([[0, 1]]))["observation"].dtype == torch.uint8


def test_the_world_model_stays_as_it_is_and_actions_of_demonstrations_are_not_seen():
    env, play, demos = toy.task(toy.PixelPointMass)
    agent = AIMEAgent(env, seed=0, **small.TINY["aime"]).pretrain(play, progress_bar=False)
    before = {name: tensor.clone() for name, tensor in agent.world_model.state_dict().items()}
    agent.imitate(demos, progress_bar=False)
    for name, tensor in agent.world_model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    poisoned = [demo.with_actions(np.full_like(demo.actions, np.nan)) for demo in demos]
    other = AIMEAgent(env, seed=0, **small.TINY["aime"]).pretrain(play, progress_bar=False)
    other.imitate(poisoned, progress_bar=False)
    for ours, theirs in zip(agent.policy.parameters(), other.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("frame", [(15, 16, 3), (16, 16, 1)])
def test_frames_of_another_shape_are_refused_before_any_training(frame):
    env, play, _ = toy.task(toy.PixelPointMass)
    wrong = [Trajectory(np.zeros((5, *frame), np.uint8), np.zeros((4, 2), np.float32))]
    agent = AIMEAgent(env, seed=0, **small.TINY["aime"])
    with pytest.raises(ValueError, match=r"^play\[0\].observations: expected shape \(T\+1, 16, 16, 3\)"):
        agent.pretrain(wrong, progress_bar=False)
    with pytest.raises(ValueError, match=r"^play\[0\].observations: expected dtype uint8, got float32"):
        agent.pretrain([Trajectory(play[0].observations / np.float32(255), play[0].actions)], progress_bar=False)
    assert agent.num_updates == 0
    with pytest.raises(ValueError, match=r"^observation: expected an image of bytes"):
        agent.predict(np.zeros((16, 16, 3), np.float32))


@pytest.mark.slow
def test_aime_learns_from_pixels():
    env, play, demos = toy.task(toy.PixelPointMass, play=60, demos=10)
    agent = AIMEAgent(env, seed=0, **small.PRETRAINING | small.LEARNING["aime"])
    agent.pretrain(play, progress_bar=False).imitate(demos, progress_bar=False)
    assert toy.score(env, agent) > 0.5
