"""Scalar heads on latent states, for value, reward and termination, and target networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aime_gym.models.networks import mlp


class ScalarHead(nn.Module):
    """MLP with one output for each latent feature: (..., F) -> (...).

    :param features: size F of the latent feature.
    :param layer_norm: activation, see [`mlp`][].
    """

    def __init__(self, features: int, hidden: int = 128, layers: int = 2, *, layer_norm: bool = False) -> None:
        super().__init__()
        self.net = mlp(features, 1, hidden, layers, layer_norm=layer_norm)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.net(features)
        return out.squeeze(-1)


class TargetNetwork(nn.Module):
    """Target network: an exponential moving average of another network's weights.

    :param network: network to average.
    :param copy: network of the same architecture, which is overwritten.
    :param decay: share of the old weights that remains in each [`polyak_update`][]; 1 - tau in SB3.
    """

    def __init__(self, network: nn.Module, copy: nn.Module, decay: float) -> None:
        super().__init__()
        self.copy = copy.requires_grad_(False)
        self.decay = decay
        copy.load_state_dict(network.state_dict())

    @torch.no_grad()
    def polyak_update(self, network: nn.Module) -> None:
        """Move the weights towards those of ``network``."""
        for target, online in zip(self.copy.parameters(), network.parameters(), strict=True):
            target.lerp_(online, 1 - self.decay)

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = self.copy(*inputs)
        return out
