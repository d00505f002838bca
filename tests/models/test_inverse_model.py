"""Loss of the inverse model: a squared error, or a cross-entropy."""

import pytest
import torch

from aime_gym.models.inverse_model import LatentInverseModel

ROWS, FEATURES, OBSERVATION, ACTIONS = 9, 5, 3, 4


pytestmark = pytest.mark.usefixtures("double")


def make(*, discrete):
    model = LatentInverseModel(FEATURES, OBSERVATION, ACTIONS, discrete=discrete)
    seen = torch.randn(ROWS, FEATURES), torch.randn(ROWS, OBSERVATION)
    return model, seen, model(*seen).detach()


def one_hot(count=ROWS):
    return torch.eye(ACTIONS)[torch.randint(ACTIONS, (count,))]


@pytest.mark.parametrize("discrete", [True, False])
def test_loss(discrete):
    model, seen, means = make(discrete=discrete)
    actions = one_hot()
    plain = -(actions * means.log()).sum(-1).mean() if discrete else ((means - actions) ** 2).mean()
    torch.testing.assert_close(model.loss(*seen, actions), plain)
