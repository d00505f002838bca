"""Regressions on latent features: what the inverse model's error is measured on, and the std of a cloned policy."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import Logger

from aime_gym.data import ActionEncoding, TrajectoryDataset
from aime_gym.model_based import latent_regression
from aime_gym.model_based.filtering import FilteredLatents, filter_trajectories
from aime_gym.model_based.latent_regression import clone_actions, fit_inverse_model
from aime_gym.models.config import WorldModelConfig
from aime_gym.models.images import ImageEncoder
from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.policies import TanhGaussianPolicy, make_latent_policy
from aime_gym.models.rssm import RecordedActions
from aime_gym.models.world_model import WorldModel
from aime_gym.testing import toy
from aime_gym.training.loop import TrainingLoop
from aime_gym.types import Trajectory

TINY = WorldModelConfig(deter=8, stoch=4, hidden=8, decoder_hidden=8)
ENCODING = ActionEncoding(spaces.Box(-1, 1, (2,), np.float32))


def loop(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return TrainingLoop(SimpleNamespace(num_updates=0, num_timesteps=0), Logger(None, []), generator, False)


def models(shape, discrete=False):
    torch.manual_seed(0)
    world_model = WorldModel(TINY, {"observation": shape}, 2)
    inputs = world_model.inverse_model_input_size
    return world_model, LatentInverseModel(world_model.feature_size, inputs, 2, discrete=discrete)


def noise(episodes, steps):
    """Trajectories whose actions follow from nothing, so that they can be learnt by heart only."""
    rng = np.random.default_rng(0)
    return [
        Trajectory(
            rng.normal(size=(steps + 1, 3)).astype(np.float32), rng.uniform(-1, 1, (steps, 2)).astype(np.float32)
        )
        for _ in range(episodes)
    ]


@pytest.mark.parametrize(("episodes", "steps"), [(10, 8), (1, 80)])
def test_the_error_of_the_inverse_model_is_that_on_episodes_it_was_not_fitted_to(episodes, steps):
    world_model, inverse_model = models((3,))
    play = TrajectoryDataset(noise(episodes, steps), ENCODING)
    fit_inverse_model(inverse_model, world_model, play, loop(), updates=300)
    filtered = filter_trajectories(world_model, play, lambda rows, _: RecordedActions(play.prev_actions[rows]))
    rows = (~play.first_rows()).nonzero().squeeze(-1)
    changes = play.differences(play.observations["observation"])[rows]
    with torch.no_grad():
        errors = (inverse_model(filtered.features[rows - 1], changes) - play.prev_actions[rows]).square().mean(-1)
    assert errors.median() < 0.02  # of most rows it knows the actions by heart
    assert inverse_model.variance.mean() > 0.2  # of new ones it knows as much as anybody: uniform actions have 1/3
    held_out = errors[-8:] if episodes == 1 else errors.view(episodes, steps).mean(-1).max()
    torch.testing.assert_close(inverse_model.variance.mean(), held_out.mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [toy.PointMass, toy.PixelPointMass])
def test_transitions_are_those_of_the_filter_and_frames_are_embedded_once(make, monkeypatch):
    env, recorded, _ = toy.task(make)
    play = TrajectoryDataset(recorded, ActionEncoding(env.action_space))
    world_model, _ = models(env.observation_space.shape)
    monkeypatch.setattr("aime_gym.model_based.filtering._IMAGE_EPISODES_AT_ONCE", 5)
    rows = torch.tensor([7, 1, 5, 80, 300, 371])
    with torch.no_grad():
        everything = play.observed(torch.arange(len(play)))
        embeddings = world_model.embed(world_model.standardize(everything))
        changes = play.differences(world_model.inverse_model_inputs(everything, embeddings))
    filtered = filter_trajectories(world_model, play, lambda rows, _: RecordedActions(play.prev_actions[rows]))
    embedded = []
    forward = ImageEncoder.forward
    monkeypatch.setattr(ImageEncoder, "forward", lambda self, x: embedded.append(x.shape[0]) or forward(self, x))
    first, second = latent_regression._transitions(world_model, play, [rows[:4], rows[4:]])
    torch.testing.assert_close(torch.cat([first.features, second.features]), filtered.features[rows - 1])
    torch.testing.assert_close(torch.cat([first.changes, second.changes]), changes[rows])
    assert torch.equal(torch.cat([first.actions, second.actions]), play.prev_actions[rows])
    assert sum(embedded) == (len(play) if make is toy.PixelPointMass else 0)


def test_a_random_part_of_large_data_is_learnt_from(monkeypatch):
    world_model, inverse_model = models((3,))
    play = TrajectoryDataset(noise(20, 10), ENCODING)
    kept = []
    transitions = latent_regression._transitions

    def watched(*arguments):
        parts = transitions(*arguments)
        kept.extend(parts)
        return parts

    monkeypatch.setattr(latent_regression, "_transitions", watched)
    monkeypatch.setattr(latent_regression, "_MAX_BYTES", 50 * 4 * (world_model.feature_size + 3 + 2))
    fit_inverse_model(inverse_model, world_model, play, loop(), updates=3)
    assert len(kept[0].features) == 50
    assert len(kept[0].features.unique(dim=0)) == 50
    assert inverse_model.fitted


def cloned(spread):
    """Return a policy that was cloned from actions around a function of features, with its features."""
    generator = torch.Generator().manual_seed(1)
    demos = TrajectoryDataset(noise(10, 50), None)
    features = torch.randn(len(demos), 4, generator=generator)
    exact = torch.stack([0.5 * features[:, 0].tanh(), 0.3 * features[:, 1].sin()], dim=-1)
    actions = (exact + spread * torch.randn(exact.shape, generator=generator)).clamp(-1, 1)
    torch.manual_seed(0)
    policy = make_latent_policy(4, 2, discrete=False, hidden=32)
    clone_actions(
        policy,
        demos,
        FilteredLatents(features, actions.roll(1, 0)),
        loop(),
        updates=300,
        start_fraction=0.25,
        start_steps=5,
    )
    return policy, features


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_a_cloned_policy_is_as_wide_as_the_error_that_is_left(spread):
    policy, features = cloned(spread)
    with torch.no_grad():
        actions = policy(features)
        sampled = actions.rsample(torch.randn(actions.mean.shape, generator=torch.Generator().manual_seed(2)))
        distance = (sampled - actions.mode).square().mean().sqrt()
    if spread:
        assert 0.8 * spread < distance < 1.1 * spread
    else:  # but its samples never come down to a single action
        torch.testing.assert_close(actions.std, torch.full_like(actions.std, 0.1))


def test_the_mean_of_a_cloned_policy_does_not_depend_on_its_std(monkeypatch):
    with_std, _ = cloned(0.3)
    monkeypatch.setattr(TanhGaussianPolicy, "set_std", lambda policy, std: None)
    without, _ = cloned(0.3)
    for one, other in zip(with_std.mean_net.parameters(), without.mean_net.parameters(), strict=True):
        assert torch.equal(one, other)
