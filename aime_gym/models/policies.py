"""Policies on latent features."""

from __future__ import annotations

from typing import TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.distributions import OneHotCategorical, TanhNormal
from aime_gym.models.networks import mlp

_MIN_STD = 1e-6


class TanhGaussianPolicy(nn.Module):
    """Policy pi(a | h, s) of actions in [-1, 1]: a tanh-Gaussian with a network each for mean and std, as in AIME.

    :param features: size F of the latent feature.
    :param actions: size A of an action.
    :param hidden: width of the networks.
    :param layers: hidden layers of the networks.
    """

    def __init__(self, features: int, actions: int, hidden: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.mean_net = mlp(features, actions, hidden, layers, layer_norm=False)
        self.std_net = mlp(features, actions, hidden, layers, layer_norm=False)

    def forward(self, features: Tensor) -> TanhNormal:
        return TanhNormal(self.mean_net(features), F.softplus(self.std_net(features)) + _MIN_STD)

    @torch.no_grad()
    def set_std(self, std: Tensor) -> None:
        """Make the std before tanh (A,) the same for all features; training may change it from there."""
        head = cast(nn.Linear, self.std_net[-1])
        head.weight.zero_()
        head.bias.copy_(std.expm1().log())  # the inverse of softplus


class CategoricalPolicy(nn.Module):
    """Policy pi(a | h, s) of one-hot actions: a categorical with a network for its logits.

    :param features: size F of the latent feature.
    :param actions: number A of actions.
    :param hidden: width of the network.
    :param layers: hidden layers of the network.
    """

    def __init__(self, features: int, actions: int, hidden: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.logits_net = mlp(features, actions, hidden, layers, layer_norm=False)

    def forward(self, features: Tensor) -> OneHotCategorical:
        return OneHotCategorical(F.log_softmax(self.logits_net(features), dim=-1))


#: Policy that maps features (..., F) to an ``ActionDistribution``.
LatentPolicy: TypeAlias = TanhGaussianPolicy | CategoricalPolicy


def make_latent_policy(features: int, actions: int, *, discrete: bool, **sizes: int) -> LatentPolicy:
    """Make the policy of encoded actions: one-hot if ``discrete``, otherwise in [-1, 1].

    :param sizes: ``hidden`` and ``layers`` of the policy's networks.
    """
    return (CategoricalPolicy if discrete else TanhGaussianPolicy)(features, actions, **sizes)
