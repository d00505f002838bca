"""Muon's arithmetic, and checkpoints of an optimizer of both kinds."""

import pytest
import torch
from torch import nn

from aime_gym.models.networks import StackedLinear
from aime_gym.training.muon import Muon, orthogonalize
from aime_gym.training.optimizer import Optimizer


def random_gradients(network, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_muon_is_that_of_pytorch():
    shapes = [(24, 16), (16, 24), (16, 24), (8, 8)]
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(weights.detach().clone()) for weights in ours]
    muon = Muon([(weights, 1) for weights in ours], lr=0.1)
    reference = torch.optim.Muon(theirs, lr=0.1, weight_decay=0, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for weights, other in zip(ours, theirs, strict=True):
            weights.grad = torch.randn_like(weights)
            other.grad = weights.grad.clone()
        muon.step()
        reference.step()
    for weights, other in zip(ours, theirs, strict=True):
        # Products of bfloat16 are rounded in another order where they are stacked.
        torch.testing.assert_close(weights, other, rtol=0, atol=1e-2)


def test_singular_values_come_near_one():
    torch.manual_seed(0)
    matrices = torch.randn(3, 10, 40) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_each_map_of_a_stacked_layer_counts_as_a_matrix():
    torch.manual_seed(0)
    stacked = StackedLinear(6, 4, maps=3)
    parts = [nn.Parameter(part.clone()) for part in stacked.weight.detach().chunk(3)]
    optimizer = Optimizer([stacked], 1e-3, matrix_learning_rate=0.1)
    alone = Muon([(part, 1) for part in parts], lr=0.1)
    loss = (stacked(torch.randn(5, 6)) ** 2).sum()
    loss.backward()
    for part, gradient in zip(parts, stacked.weight.grad.chunk(3), strict=True):
        part.grad = gradient.clone()
    optimizer._apply()
    alone.step()
    torch.testing.assert_close(stacked.weight.detach(), torch.cat([part.detach() for part in parts]))


@pytest.mark.parametrize("matrix_learning_rate", [None, 0.05])
def test_a_restored_optimizer_goes_on_to_the_last_bit(matrix_learning_rate):
    def make():
        torch.manual_seed(1)
        network = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))
        return network, Optimizer([network], 1e-2, matrix_learning_rate=matrix_learning_rate, decay_updates=10)

    def train(network, optimizer, updates):
        for seed in updates:
            inputs = torch.randn(7, 3, generator=torch.Generator().manual_seed(seed))
            optimizer.step(network(inputs).square().mean())

    network, optimizer = make()
    train(network, optimizer, range(4))
    state = optimizer.state_dict()
    other, restored = make()
    restored.load_state_dict(state)
    train(network, optimizer, range(4, 8))
    train(other, restored, range(4, 8))
    for weights, expected in zip(other.parameters(), network.parameters(), strict=True):
        assert torch.equal(weights, expected)
