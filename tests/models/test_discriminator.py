"""The discriminator, its penalty, and the reward's sign."""

import functools
import math

import pytest
import torch

from aime_gym.models.discriminator import (
    REWARDS,
    Discriminator,
    discrimination_loss,
    gradient_penalty,
)
from aime_gym.models.standardizer import RunningStandardizer
from aime_gym.training.optimizer import Optimizer


def trained(expert, agent, *, updates=200, reward="logit", penalty=10.0):
    """Logistic regression of rows (N, D), as an agent does it."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    discriminator = Discriminator(expert.shape[1], hidden=64, reward=reward)
    discriminator.standardizer.update(torch.cat([expert, agent]))
    optimizer = Optimizer([discriminator], 1e-3, max_grad_norm=None)
    for _ in range(updates):
        one, other = (rows[torch.randint(len(rows), (256,), generator=generator)] for rows in (expert, agent))
        loss = discrimination_loss(discriminator(one), discriminator(other))
        one, other = discriminator.standardize(one), discriminator.standardize(other)
        weight = torch.rand(256, 1, generator=generator)
        loss = loss + penalty * gradient_penalty(discriminator.from_standardized, one, other, weight)
        optimizer.step(loss)
    return discriminator


def test_the_forms_are_functions_of_the_probability_of_the_expert():
    f = torch.linspace(-5, 5, 41, dtype=torch.float64)
    D = f.sigmoid()
    torch.testing.assert_close(REWARDS["logit"](f), D.log() - (1 - D).log())
    torch.testing.assert_close(REWARDS["positive"](f), -(1 - D).log())
    torch.testing.assert_close(REWARDS["negative"](f), D.log())
    assert (REWARDS["positive"](f) > 0).all()
    assert (REWARDS["negative"](f) < 0).all()
    assert all((form(f).diff() > 0).all() for form in REWARDS.values())


def shifted_data():
    """Expert and agent (N, 3), which differ in the mean of the first number."""
    generator = torch.Generator().manual_seed(1)
    expert = torch.randn(2000, 3, generator=generator) + torch.tensor([1.0, 0.0, 0.0])
    return expert, torch.randn(2000, 3, generator=generator)


@functools.cache
def weights_on_shifted_data():
    """Weights after training, which is the same for all forms of the reward."""
    return trained(*shifted_data()).state_dict()


@pytest.mark.parametrize("reward", REWARDS)
def test_what_the_expert_does_is_worth_more(reward):
    expert, agent = shifted_data()
    discriminator = Discriminator(3, hidden=64, reward=reward)
    discriminator.load_state_dict(weights_on_shifted_data())
    assert discriminator.reward(expert).mean() > discriminator.reward(agent).mean() + 0.1
    assert (discriminator(expert) > 0).float().mean() > 0.6 > 0.4 > (discriminator(agent) > 0).float().mean()


def test_equal_distributions_are_not_preferred():
    generator = torch.Generator().manual_seed(1)
    expert, agent = torch.randn(2, 4000, 3, generator=generator)
    discriminator = trained(expert, agent)
    fresh = torch.randn(4000, 3, generator=generator)
    assert discriminator(fresh).abs().mean() < 0.2
    assert abs(float(discriminator.reward(expert).mean() - discriminator.reward(agent).mean())) < 0.05


def test_a_slope_is_penalised_where_it_exceeds_one():
    slope = torch.tensor([3.0, 4.0], dtype=torch.float64)
    expert, agent = torch.randn(2, 7, 2, dtype=torch.float64)
    weight = torch.rand(7, 1, dtype=torch.float64)
    for scale, expected in ((1.0, 16.0), (0.1, 0.0)):
        found = gradient_penalty(lambda x, s=scale: (x * slope * s).sum(-1), [expert], [agent], weight)
        assert float(found) == pytest.approx(expected, abs=1e-9)


def test_the_penalty_is_that_of_finite_differences():
    torch.manual_seed(0)
    discriminator = Discriminator(3, hidden=8, reward="logit").double()
    with torch.no_grad():
        for parameter in discriminator.net.parameters():
            parameter.mul_(4)  # slopes above one
    expert, agent = torch.randn(2, 5, 3, dtype=torch.float64)
    weight = torch.rand(5, 1, dtype=torch.float64)

    def penalty():
        return gradient_penalty(discriminator.from_standardized, [expert], [agent], weight)

    between, step = weight * expert + (1 - weight) * agent, 1e-6
    with torch.no_grad():
        slopes = torch.stack(
            [
                (
                    discriminator.from_standardized(between + step * axis)
                    - discriminator.from_standardized(between - step * axis)
                )
                / (2 * step)
                for axis in torch.eye(3, dtype=torch.float64)
            ],
            dim=-1,
        )
    expected = (slopes.norm(dim=-1) - 1).clamp_min(0).square().mean()
    assert float(expected) > 0
    torch.testing.assert_close(penalty().detach(), expected, atol=1e-7, rtol=1e-6)
    # Its own gradient too, which is what trains.
    weights = discriminator.net[0].weight
    (slope,) = torch.autograd.grad(penalty(), weights)
    for index in ((0, 0), (3, 2)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weights[index] += sign * step
            values.append(float(penalty().detach()))
            with torch.no_grad():
                weights[index] -= sign * step
        assert float(slope[index]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


def test_running_statistics_are_those_of_all_rows():
    rows = 3 + torch.randn(1000, 2) * torch.tensor([1.0, 100.0])
    standardizer = RunningStandardizer(2)
    for part in rows.split([1, 10, 500, 489]):
        standardizer.update(part)
    torch.testing.assert_close(standardizer.mean.float(), rows.mean(0))
    torch.testing.assert_close(standardizer.variance.float(), rows.var(0, correction=0), rtol=1e-4, atol=0)
    assert float(standardizer.count) == 1000
    assert standardizer(torch.full((1, 2), 1e9)).tolist() == [[10, 10]]


@pytest.mark.parametrize("reward", REWARDS)
def test_a_termination_is_worth_what_the_expert_makes_of_it(reward):
    def ended(expert_ends, agent_ends, absorbing=True):
        discriminator = Discriminator(2, reward=reward)
        discriminator.set_expert(steps=1000, terminations=expert_ends, effective_horizon=100.0, absorbing=absorbing)
        discriminator.count_agent(steps=1000, terminations=agent_ends)
        return discriminator

    worth = {ends: ended(*ends).terminal_value() for ends in ((10, 0), (10, 10), (0, 0), (0, 10))}
    assert worth[10, 0] > worth[10, 10] == pytest.approx(worth[0, 0]) == pytest.approx(worth[0, 0])
    assert worth[0, 0] > worth[0, 10]
    if reward == "logit":
        assert worth[10, 0] > 0 > worth[0, 10]
        assert worth[0, 0] == 0
    # To stay is worth less where an expert ends, more where it never does: the log ratio of the other states' shares.
    rows = torch.zeros(3, 2)
    same = ended(10, 10).reward_form(torch.zeros(()))
    for ends, sign in (((10, 0), -1), ((0, 10), 1)):
        one = ended(*ends)
        with torch.no_grad():
            one.net[-1].weight.zero_()
            one.net[-1].bias.zero_()
        assert math.copysign(1, float(one.reward(rows)[0] - same)) == sign
    textbook = ended(0, 10, absorbing=False)
    assert textbook.terminal_value() == 0
    torch.testing.assert_close(textbook.reward(rows), textbook.reward_form(textbook(rows)).detach())
