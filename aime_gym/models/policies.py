"""Policies on latent features."""

from __future__ import annotations

from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.distributions import OneHotCategorical, TanhNormal
from aime_gym.models.networks import mlp

_MIN_STD = 1e-6


class TanhGaussianPolicy(nn.Module):
    """pi(a | h, s): a tanh-Gaussian whose mean and std have a network each, as in AIME.

    :param features: size of the latent feature.
    :param actions: size of an action, in [-1, 1].
    """

    def __init__(self, features: int, actions: int, hidden: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.mean_net = mlp(features, actions, hidden, layers, layer_norm=False)
        self.std_net = mlp(features, actions, hidden, layers, layer_norm=False)

    def forward(self, features: Tensor) -> TanhNormal:
        return TanhNormal(self.mean_net(features), F.softplus(self.std_net(features)) + _MIN_STD)


class CategoricalPolicy(nn.Module):
    """pi(a | h, s): a categorical of one-hot actions, whose logits have a network.

    :param features: size of the latent feature.
    :param actions: their number.
    """

    def __init__(self, features: int, actions: int, hidden: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.logits_net = mlp(features, actions, hidden, layers, layer_norm=False)

    def forward(self, features: Tensor) -> OneHotCategorical:
        return OneHotCategorical(F.log_softmax(self.logits_net(features), dim=-1))


#: Given features (..., F), either returns an :class:`~aime_gym.models.distributions.ActionDistribution`.
LatentPolicy: TypeAlias = TanhGaussianPolicy | CategoricalPolicy


def make_latent_policy(features: int, actions: int, *, discrete: bool, **sizes: int) -> LatentPolicy:
    """The policy for encoded actions: one-hot or in [-1, 1].

    :param sizes: ``hidden`` and ``layers`` of its networks.
    """
    return (CategoricalPolicy if discrete else TanhGaussianPolicy)(features, actions, **sizes)
