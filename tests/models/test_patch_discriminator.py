"""Discriminators of images: the penalty of their slopes, and PatchAIL's patches, against plain versions."""

import numpy as np
import pytest
import torch
from torch import nn

from aime_gym.models.discriminator import Discriminator, ImageLogit, gradient_penalty
from aime_gym.models.patch_discriminator import PatchLogits, PatchSimilarity

#: Two stacks of frames.
PAIR = (6, 16, 16)
#: Size of the vectors beside them.
VECTORS = 3


def pairs(count, seed=0):
    return torch.randint(256, (count, *PAIR), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def vectors(count, seed=0):
    return torch.randn(count, VECTORS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("net", ["image", "patch"])
def test_the_penalty_is_that_of_plain_differences(net):
    torch.manual_seed(0)
    network = ImageLogit(VECTORS, [PAIR], "patch", 8, 1) if net == "image" else PatchLogits([PAIR], 4, 2)
    for parameter in network.parameters():  # steep enough to be penalised
        parameter.data.mul_(4)
    discriminator = Discriminator(VECTORS if net == "image" else 0, network, reward="logit")
    inputs = ([vectors(2, seed), pairs(2, seed)][net == "patch" :] for seed in (1, 2))
    expert, agent = (discriminator.standardize(*side) for side in inputs)
    weight = torch.tensor([[0.3], [0.8]])
    shapes = [part.shape for part in expert]
    sizes = [part[0].numel() for part in expert]
    flat_expert, flat_agent = (torch.cat([part.flatten(1) for part in side], dim=-1) for side in (expert, agent))
    between = weight * flat_expert + (1 - weight) * flat_agent

    def total(points):
        parts = [part.view(shape) for part, shape in zip(points.split(sizes, dim=-1), shapes, strict=True)]
        logits = discriminator.from_standardized(*parts)
        return logits if logits.ndim == 1 else logits.sum(-1)

    slopes = torch.zeros_like(between)
    step = 1e-6
    with torch.no_grad():
        for number in range(between.shape[-1]):
            move = torch.zeros(between.shape[-1])
            move[number] = step
            slopes[:, number] = (total(between + move) - total(between - move)) / (2 * step)
    expected = (slopes.norm(dim=-1) - 1).clamp_min(0).square().mean()
    assert expected > 0.01
    penalty = gradient_penalty(discriminator.from_standardized, expert, agent, weight)
    torch.testing.assert_close(penalty, expected, rtol=1e-4, atol=1e-7)


def test_pixels_are_numbers_up_to_one_and_vectors_in_units_of_their_spread():
    discriminator = Discriminator(VECTORS, nn.Identity(), reward="logit")
    numbers, images = vectors(500).float() + 5, pairs(500)
    discriminator.standardizer.update(numbers)
    standardized, pixels = discriminator.standardize(numbers, images)
    torch.testing.assert_close(standardized.mean(0), torch.zeros(VECTORS), atol=1e-4, rtol=0)
    torch.testing.assert_close(pixels * 255, images.float())
    (alone,) = Discriminator(0, nn.Identity(), reward="logit").standardize(images)
    assert torch.equal(alone, pixels)


@pytest.mark.parametrize(("side", "patches"), [(84, 39 * 39), (64, 29 * 29), (16, 25)])
def test_the_paper_s_patches(side, patches):
    net = PatchLogits([(6, side, side)], 4, 3)
    assert net.patches == patches
    assert net(torch.rand(2, 6, side, side)).shape == (2, patches)
    assert not net(torch.rand(2, 6, side, side)).isnan().any()


def test_a_logit_is_of_its_patch_alone():
    torch.manual_seed(0)
    net, image = PatchLogits([(2, 64, 64)], 4, 3), torch.rand(1, 2, 64, 64)
    other = image.clone()
    other[..., :10, :10] = 0  # the upper left corner
    changed = (net(image) != net(other)).view(29, 29)
    assert changed[0, 0]
    assert not changed[:, 12:].any()
    assert not changed[12:].any()


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match=r"^discriminator_layers: expected images of at least 16 x 16 for 7 layers"):
        PatchLogits([(6, 15, 15)], 4, 7)


def test_the_reward_of_patches_is_their_mean():
    net = PatchLogits([PAIR], 4, 2)
    discriminator, given = Discriminator(0, net, reward="logit"), pairs(5)
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


@pytest.mark.usefixtures("double")
def test_the_similarity_is_the_paper_s():
    generator = np.random.default_rng(0)
    expert, first, later = (
        generator.normal(size=(30, 25)),
        generator.normal(size=(20, 25)),
        generator.normal(size=(9, 25)),
    )
    rewards, module = torch.from_numpy(generator.normal(size=9)), PatchSimilarity(25)
    given = torch.from_numpy(later)
    assert torch.equal(module(rewards, given), rewards)  # nothing is known yet
    module.update(torch.from_numpy(expert), torch.from_numpy(first))
    scale = 1.3 / plain_similarity(first, expert).mean()
    for _ in range(2):
        expected = rewards * torch.from_numpy(scale * plain_similarity(later, expert))
        torch.testing.assert_close(module(rewards, given), expected)
        expert = generator.normal(size=(30, 25)) + 1  # another expert's distribution, the same lambda
        module.update(torch.from_numpy(expert), torch.from_numpy(expert))


def test_a_sure_discriminator_makes_finite_rewards():
    module = PatchSimilarity(4)
    module.update(torch.full((3, 4), 500.0), torch.full((3, 4), -500.0))
    logits = torch.tensor([[-900.0, 0.0, 900.0, -900.0]])
    assert module(torch.ones(1), logits).isfinite().all()
