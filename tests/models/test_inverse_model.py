"""Likelihood of the inverse model: a Gaussian, or a categorical."""

import pytest
import torch
from torch.distributions import Categorical, Independent, Normal

from aime_gym.models.inverse_model import LatentInverseModel

ROWS, FEATURES, OBSERVATION, ACTIONS = 9, 5, 3, 4


pytestmark = pytest.mark.usefixtures("double")


def make(*, discrete, variance):
    model = LatentInverseModel(FEATURES, OBSERVATION, ACTIONS, discrete=discrete)
    model.variance.fill_(variance)
    seen = torch.randn(ROWS, FEATURES), torch.randn(ROWS, OBSERVATION)
    return model, seen, model(*seen).detach()


def one_hot(count=ROWS):
    return torch.eye(ACTIONS)[torch.randint(ACTIONS, (count,))]


def test_gaussian_likelihood():
    model, _, means = make(discrete=False, variance=0.3)
    assert (means.abs() < 1).all()
    one, other = 2 * torch.rand(2, ROWS, ACTIONS) - 1
    belief = Independent(Normal(means, 0.3**0.5), 1)
    plain = belief.log_prob(other) - belief.log_prob(one)
    torch.testing.assert_close(model.negative_log_prob(one, means) - model.negative_log_prob(other, means), plain)


def test_categorical_likelihood():
    model, _, means = make(discrete=True, variance=1e-4)
    torch.testing.assert_close(means.sum(-1), torch.ones(ROWS))
    actions = one_hot()
    plain = -Categorical(probs=means).log_prob(actions.argmax(-1))
    torch.testing.assert_close(model.negative_log_prob(actions, means), plain)


def test_the_probability_of_an_action_is_at_least_its_error_on_play():
    model, _, _ = make(discrete=True, variance=0.05)
    certain = torch.eye(ACTIONS)
    wrong = model.negative_log_prob(certain.roll(1, 0), certain)
    torch.testing.assert_close(wrong, -torch.tensor(0.05).log().expand(ACTIONS))
    assert torch.equal(model.negative_log_prob(certain, certain), torch.zeros(ACTIONS))


@pytest.mark.parametrize("discrete", [True, False])
def test_loss(discrete):
    model, seen, means = make(discrete=discrete, variance=0.1)
    actions = one_hot()
    plain = -(actions * means.log()).sum(-1).mean() if discrete else ((means - actions) ** 2).mean()
    torch.testing.assert_close(model.loss(*seen, actions), plain)
