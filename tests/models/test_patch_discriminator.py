"""Discriminators of images: the penalty of their slopes, and PatchAIL's patches, against plain versions."""

import numpy as np
import pytest
import torch
from torch import nn

from aime_gym.models.discriminator import Discriminator, ImageLogit, gradient_penalty
from aime_gym.models.flat_layout import FlatLayout
from aime_gym.models.patch_discriminator import PatchLogits, PatchSimilarity

PAIRS = FlatLayout(0, [(16, 16, 6)])
MIXED = FlatLayout(3, [(16, 16, 6)])


@pytest.fixture
def _in_double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def rows(layout, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, layout.size - layout.vectors), generator=generator).double()
    return torch.cat([torch.randn(count, layout.vectors, generator=generator).double(), pixels], dim=-1)


@pytest.mark.usefixtures("_in_double_precision")
@pytest.mark.parametrize("net", ["image", "patch"])
def test_the_penalty_is_that_of_plain_differences(net):
    torch.manual_seed(0)
    layout = MIXED if net == "image" else PAIRS
    network = ImageLogit(layout, "patch", 8, 1) if net == "image" else PatchLogits(layout, 4, 2)
    for parameter in network.parameters():  # steep enough to be penalised
        parameter.data.mul_(4)
    discriminator = Discriminator(layout, network, reward="logit")
    expert, agent = (discriminator.standardize(rows(layout, 2, seed)) for seed in (1, 2))
    weight = torch.tensor([[0.3], [0.8]])
    between = weight * expert + (1 - weight) * agent

    def total(points):
        logits = discriminator.from_standardized(points)
        return logits if logits.ndim == 1 else logits.sum(-1)

    slopes = torch.zeros_like(between)
    step = 1e-6
    with torch.no_grad():
        for number in range(layout.size):
            move = torch.zeros(layout.size)
            move[number] = step
            slopes[:, number] = (total(between + move) - total(between - move)) / (2 * step)
    expected = (slopes.norm(dim=-1) - 1).clamp_min(0).square().mean()
    assert expected > 0.01
    penalty = gradient_penalty(discriminator.from_standardized, expert, agent, weight)
    torch.testing.assert_close(penalty, expected, rtol=1e-4, atol=1e-7)


def test_pixels_are_numbers_up_to_one_and_vectors_in_units_of_their_spread():
    discriminator = Discriminator(MIXED, nn.Identity(), reward="logit")
    given = rows(MIXED, 500).float() + torch.tensor([5.0] * 3 + [0.0] * (MIXED.size - 3))
    discriminator.standardizer.update(given[:, :3])
    seen = discriminator.standardize(given)
    torch.testing.assert_close(seen[:, :3].mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[:, 3:] * 255, given[:, 3:])
    as_bytes = given[:, 3:].byte()
    torch.testing.assert_close(Discriminator(PAIRS, nn.Identity(), reward="logit").standardize(as_bytes), seen[:, 3:])


@pytest.mark.parametrize(("side", "patches"), [(84, 39 * 39), (64, 29 * 29), (16, 25)])
def test_the_paper_s_patches(side, patches):
    net = PatchLogits(FlatLayout(0, [(side, side, 6)]), 4, 3)
    assert net.patches == patches
    assert net(torch.rand(2, side * side * 6)).shape == (2, patches)
    assert not net(torch.rand(2, side * side * 6)).isnan().any()


def test_a_logit_is_of_its_patch_alone():
    torch.manual_seed(0)
    net, image = PatchLogits(FlatLayout(0, [(64, 64, 2)]), 4, 3), torch.rand(1, 64, 64, 2)
    other = image.clone()
    other[:, :10, :10] = 0  # the upper left corner
    changed = (net(image.flatten(1)) != net(other.flatten(1))).view(29, 29)
    assert changed[0, 0]
    assert not changed[:, 12:].any()
    assert not changed[12:].any()


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match=r"^discriminator_layers: expected images of at least 16 x 16 for 7 layers"):
        PatchLogits(FlatLayout(0, [(15, 15, 6)]), 4, 7)


def test_the_reward_of_patches_is_their_mean():
    net = PatchLogits(PAIRS, 4, 2)
    discriminator, given = Discriminator(PAIRS, net, reward="logit"), rows(PAIRS, 5).byte()
    logits = net(given.float() / 255)
    assert logits.shape == (5, net.patches)
    torch.testing.assert_close(discriminator.reward(given), logits.mean(-1).detach())


def plain_similarity(agent, expert):
    """exp(-KL) in words of numpy."""

    def shares(logits):
        probabilities = 1 / (1 + np.exp(-logits))
        return probabilities / probabilities.sum(-1, keepdims=True)

    mean = (1 / (1 + np.exp(-expert))).mean(0)
    q, q_expert = shares(agent), mean / mean.sum()
    return np.exp(-(q * np.log(q / q_expert)).sum(-1))


@pytest.mark.usefixtures("_in_double_precision")
@pytest.mark.parametrize("kind", ["weight", "bonus"])
def test_the_similarity_is_the_paper_s(kind):
    generator = np.random.default_rng(0)
    expert, first, later = (
        generator.normal(size=(30, 25)),
        generator.normal(size=(20, 25)),
        generator.normal(size=(9, 25)),
    )
    rewards, module = torch.from_numpy(generator.normal(size=9)), PatchSimilarity(25, kind)
    given = torch.from_numpy(later)
    assert torch.equal(module(rewards, given), rewards)  # nothing is known yet
    module.fit_standardizer(torch.from_numpy(expert), torch.from_numpy(first))
    scale = {"weight": 1.3, "bonus": 0.5}[kind] / plain_similarity(first, expert).mean()
    for _ in range(2):
        term = torch.from_numpy(scale * plain_similarity(later, expert))
        expected = rewards * term if kind == "weight" else 0.5 * rewards + term
        torch.testing.assert_close(module(rewards, given), expected)
        expert = generator.normal(size=(30, 25)) + 1  # another expert's distribution, the same lambda
        module.fit_standardizer(torch.from_numpy(expert), torch.from_numpy(expert))


def test_a_sure_discriminator_makes_finite_rewards():
    module = PatchSimilarity(4, "weight")
    module.fit_standardizer(torch.full((3, 4), 500.0), torch.full((3, 4), -500.0))
    logits = torch.tensor([[-900.0, 0.0, 900.0, -900.0]])
    assert module(torch.ones(1), logits).isfinite().all()
