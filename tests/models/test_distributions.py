"""Distributions of policies, compared with PyTorch's and with explicit gradients."""

import pytest
import torch
from torch.distributions import Categorical, Uniform, kl_divergence
from torch.distributions import Normal as PlainNormal

from aime_gym.models.distributions import OneHotCategorical, TanhNormal

ROWS, ACTIONS = 7, 4


pytestmark = pytest.mark.usefixtures("double")


def categorical(logits):
    return OneHotCategorical(logits.log_softmax(-1))


def gaussian():
    return TanhNormal(2 * torch.randn(ROWS, ACTIONS), torch.rand(ROWS, ACTIONS) + 0.1)


def jacobian(logits):
    """Return the explicit Jacobian dp / dlogits (N, A, A) of the softmax."""
    p = logits.detach().softmax(-1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_are_one_hot_and_follow_the_probabilities(dtype):
    count, logits = 200_000, torch.tensor([0.0, 1.0, -1.0, -4.0], dtype=dtype)
    samples = categorical(logits.expand(count, -1)).rsample(torch.randn(count, ACTIONS, dtype=dtype))
    assert samples.dtype == dtype
    assert samples.unique().tolist() == [0, 1]
    assert (samples.sum(-1) == 1).all()
    p = logits.softmax(-1)
    deviation = (samples.mean(0) - p) / (p * (1 - p) / count).sqrt()
    assert deviation.abs().max() < 4


@pytest.mark.parametrize("make", [gaussian, lambda: categorical(torch.randn(ROWS, ACTIONS))])
def test_without_noise_a_sample_is_the_mode(make):
    distribution = make()
    assert torch.equal(distribution.rsample(torch.zeros(ROWS, ACTIONS)), distribution.mode)


def test_the_rarest_noise_is_finite():
    noise = torch.tensor([-9.0, 9.0, 0.0, 6.0], dtype=torch.float32)
    assert categorical(torch.zeros_like(noise)).rsample(noise).tolist() == [0, 1, 0, 0]


def test_the_gradient_is_that_of_the_probabilities_at_the_sample():
    logits, weight = torch.randn(ROWS, ACTIONS, requires_grad=True), torch.randn(ACTIONS, ACTIONS)

    def loss(actions):
        return (actions @ weight).sin().exp().sum()

    sample = categorical(logits).rsample(torch.randn(ROWS, ACTIONS))
    gradient = torch.autograd.grad(loss(sample), logits)[0]
    at_sample = torch.func.grad(loss)(sample.detach())
    torch.testing.assert_close(gradient, torch.einsum("nij,nj->ni", jacobian(logits), at_sample))


def test_the_gradient_of_a_linear_loss_is_that_of_its_expectation():
    """Check single samples: the estimate has neither variance nor bias."""
    logits, costs = torch.randn(ROWS, ACTIONS, requires_grad=True), torch.randn(ACTIONS)
    exact = torch.autograd.grad((logits.softmax(-1) @ costs).sum(), logits)[0]
    for _ in range(3):
        sample = categorical(logits).rsample(torch.randn(ROWS, ACTIONS))
        torch.testing.assert_close(torch.autograd.grad((sample @ costs).sum(), logits)[0], exact)


@pytest.mark.parametrize("scale", [1, 300])
def test_kl_to_the_uniform_distribution(scale):
    logits = scale * torch.randn(ROWS, ACTIONS)
    plain = kl_divergence(Categorical(logits=logits), Categorical(logits=torch.zeros(ACTIONS)))
    torch.testing.assert_close(categorical(logits).prior_kl(), plain)
    torch.testing.assert_close(categorical(torch.zeros(ROWS, ACTIONS)).prior_kl(), torch.zeros(ROWS))


def test_kl_to_the_broad_gaussian():
    actions = gaussian()
    plain = kl_divergence(PlainNormal(*actions), PlainNormal(torch.zeros(ACTIONS), 0.8742)).sum(-1)
    torch.testing.assert_close(actions.prior_kl(), plain)


@pytest.mark.parametrize("scale", [0.3, 3, 30])
@pytest.mark.parametrize("spread", [0.01, 0.2, 0.6])
def test_the_std_of_a_residual_has_samples_as_far_from_the_mode(scale, spread):
    mean = scale * torch.randn(5000, ACTIONS)
    actions = TanhNormal(mean, torch.full_like(mean, spread)).rsample(torch.randn_like(mean))
    std = TanhNormal(mean, torch.ones_like(mean)).std_of_residual(actions)
    torch.testing.assert_close(std, torch.full_like(std, spread), rtol=0.15, atol=0)


@pytest.mark.parametrize("mean", [0.0, 40.0])
def test_the_std_of_a_residual_is_bounded(mean):
    actions = TanhNormal(torch.full((ROWS, ACTIONS), mean), torch.ones(()))
    assert (actions.std_of_residual(-torch.ones(ROWS, ACTIONS)) == 0.8742).all()
    assert (actions.std_of_residual(actions.mode) < 1e-6).all()


def test_the_broad_gaussian_is_close_to_uniform():
    """Check that the KL of its tanh to the uniform distribution is below 0.03 nats, and larger for other stds."""

    def distance(std):
        x = torch.linspace(-7, 7, 20_001)
        density = PlainNormal(0.0, std).log_prob(x)
        in_the_box = density - (1 - x.tanh().square()).clamp_min(1e-12).log()
        return torch.trapezoid(density.exp() * (in_the_box - Uniform(-1.0, 1.0).log_prob(torch.zeros(()))), x)

    assert distance(0.8742) < 0.03
    assert distance(0.8742) < min(distance(0.6), distance(1.2))


def test_regression_on_probabilities_is_cross_entropy():
    logits, wanted = torch.randn(ROWS, ACTIONS), torch.rand(ROWS, ACTIONS).softmax(-1)
    plain = -(wanted * Categorical(logits=logits).probs.log()).sum(-1).mean()
    torch.testing.assert_close(categorical(logits).regression_loss(wanted), plain)


def test_regression_on_actions_is_their_squared_distance_to_the_mode():
    actions, wanted = gaussian(), torch.rand(ROWS, ACTIONS)
    torch.testing.assert_close(actions.regression_loss(wanted), ((actions.mean.tanh() - wanted) ** 2).mean())
