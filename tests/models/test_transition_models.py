"""Models of the expert's transitions: what they are at their best, and where their rewards lead."""

import math

import pytest
import torch

from aime_gym.models.next_state import NextStateModel
from aime_gym.models.two_tower import TwoTowerModel
from aime_gym.training.optimizer import Optimizer

MODELS = [NextStateModel, TwoTowerModel]


def make(kind, size=2, **options):
    torch.manual_seed(0)
    towers = {"embedding": 16, "temperature": 0.1, "negatives": 64} if kind is TwoTowerModel else {}
    return kind(size, hidden=64, layers=2, **(towers | options))


def fitted(model, obs, next_obs, updates=300):
    generator = torch.Generator().manual_seed(0)
    model.fit_standardizer(obs, next_obs, generator)
    optimizer = Optimizer([model], 3e-3, decay_updates=updates)
    for _ in range(updates):
        rows = torch.randint(len(obs), (256,), generator=generator)
        optimizer.step(model.loss(obs[rows], next_obs[rows], generator))
    return model


def circle(count=2000):
    """An expert that turns to the left; s' - s depends on s, and the speed on chance."""
    angle = 2 * math.pi * torch.rand(count, generator=torch.Generator().manual_seed(1))
    step = 0.1 * (1 + 0.1 * torch.randn(count, generator=torch.Generator().manual_seed(2)))
    obs, next_obs = (torch.stack([a.cos(), a.sin()], dim=-1) for a in (angle, angle + step))
    return obs, next_obs


@pytest.mark.parametrize("kind", MODELS)
def test_what_the_expert_does_is_worth_more(kind):
    obs, next_obs = circle()
    model = fitted(make(kind), obs, next_obs)
    with torch.no_grad():
        right = model.reward(obs, next_obs)
        for other in (2 * obs - next_obs, obs, obs + (next_obs - obs).roll(7, 0)):  # back, stay, what fits elsewhere
            assert right.mean() > model.reward(obs, other).mean() + 0.1
        assert (right > model.reward(obs, 2 * obs - next_obs)).float().mean() > 0.95


def test_the_reward_of_the_internal_model_is_greatest_at_its_prediction():
    model = make(NextStateModel).double()
    obs = torch.randn(5, 2, dtype=torch.float64)
    with torch.no_grad():
        predicted = obs + model(obs).mean  # the units are ones until it is fitted
        best = model.reward(obs, predicted)
        direction = torch.randn(5, 2, dtype=torch.float64)
        rewards = torch.stack([model.reward(obs, predicted + d * direction) for d in (0, 0.1, 0.5, 1.0)])
    assert (rewards.diff(dim=0) < 0).all()
    torch.testing.assert_close(rewards[0], best)


def test_the_internal_model_maximises_the_likelihood():
    obs, next_obs = circle()
    model = fitted(make(NextStateModel), obs, next_obs)
    with torch.no_grad():
        expected, change = model(obs), model.changes(next_obs - obs)
        error = change - expected.mean
        assert error.square().mean() < 0.05  # most of a spread of one is explained
        assert 0.7 < (error / expected.std).square().mean() < 1.4  # sigma is as wide as what is left
        torch.testing.assert_close(model.loss(obs, next_obs, torch.Generator()), -expected.log_prob(change).mean())


def test_info_nce_is_that_of_a_plain_reference():
    model = make(TwoTowerModel, negatives=5).double()
    obs, next_obs = torch.randn(2, 7, 2, dtype=torch.float64)
    model.fit_standardizer(obs, next_obs, torch.Generator().manual_seed(0))
    with torch.no_grad():

        def log_f(s, change):
            state = model.state_tower(model.states(s[None]))[0]
            follower = model.change_tower(model.changes(change[None]))[0]
            return float(state @ follower / (state.norm() * follower.norm())) / 0.1

        changes, loss = next_obs - obs, 0.0
        noisy = model.add_noise(changes[:1], torch.Generator().manual_seed(1))
        for i in range(7):
            scores = [log_f(obs[i], change) for change in [*changes, *noisy]]
            loss -= math.log(math.exp(scores[i]) / sum(map(math.exp, scores))) / 7
        assert float(model.loss(obs, next_obs, torch.Generator().manual_seed(1))) == pytest.approx(loss)
        for i, reward in enumerate(model.reward(obs, next_obs)):
            scores = [log_f(obs[i], change) for change in [changes[i], *model.negatives]]
            assert float(reward) == pytest.approx(scores[0] - math.log(sum(map(math.exp, scores))))


def test_the_towers_learn_the_pointwise_mutual_information():
    """Two kinds of states, two changes: p(change | state) / p(change) is known."""
    generator = torch.Generator().manual_seed(3)
    kind, likely = torch.rand(2, 8000, generator=generator)
    obs = torch.stack([(kind < 0.5).float(), torch.zeros(8000)], -1)
    change = torch.where(likely < 0.8, obs[:, 0], 1 - obs[:, 0]) * 2 - 1
    next_obs = obs + torch.stack([change, torch.zeros(8000)], -1)
    model = fitted(make(TwoTowerModel), obs, next_obs, updates=1000)
    with torch.no_grad():
        scores = model.log_f(torch.tensor([[0.0, 0], [1, 0]]), torch.tensor([[-1.0, 0], [1, 0]]))
    # The noise hardly ever hits a change of the expert: up to a constant of the state, the mutual information of each
    # pair is left, log 0.8 / 0.5 against log 0.2 / 0.5.
    gaps = torch.stack([scores[0, 0] - scores[0, 1], scores[1, 1] - scores[1, 0]])
    torch.testing.assert_close(gaps, torch.full((2,), math.log(4)), atol=0.2, rtol=0)


def test_a_model_that_knows_nothing_rewards_by_a_logarithm():
    obs, next_obs = circle(300)
    model = make(TwoTowerModel, temperature=1e6)
    model.fit_standardizer(obs, next_obs, torch.Generator())
    with torch.no_grad():
        assert float(model.loss(obs, next_obs, torch.Generator())) == pytest.approx(math.log(300 + 37), abs=1e-3)
        assert float(model.reward(obs, next_obs).mean()) == pytest.approx(-math.log(65), abs=1e-3)


def test_an_expert_that_always_does_the_same_is_known_by_it():
    """Its changes have no mutual information with its states, and no spread."""
    obs = torch.randn(500, 2, generator=torch.Generator().manual_seed(4))
    change = torch.tensor([0.1, 0.0])
    for kind in MODELS:
        model = fitted(make(kind), obs, obs + change, updates=200)
        with torch.no_grad():
            right = model.reward(obs, obs + change)
            assert all((right > model.reward(obs, obs + wrong * change) + 0.1).all() for wrong in (-1, 0, 2))
