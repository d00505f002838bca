"""Numbers read off a latent state: value, reward, and whether an episode ends there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aime_gym.models.networks import mlp


class ScalarHead(nn.Module):
    """One number from each latent feature (..., F): (...).

    :param features: size of the latent feature.
    :param layer_norm: as in :func:`~aime_gym.models.networks.mlp`.
    """

    def __init__(self, features: int, hidden: int = 128, layers: int = 2, *, layer_norm: bool = False) -> None:
        super().__init__()
        self.net = mlp(features, 1, hidden, layers, layer_norm=layer_norm)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.net(features)
        return out.squeeze(-1)


class TargetNetwork(nn.Module):
    """A target network: another network's weights, averaged over its past.

    :param decay: share of itself that the copy keeps at each :meth:`polyak_update`.
    """

    def __init__(self, network: nn.Module, copy: nn.Module, decay: float) -> None:
        super().__init__()
        self.copy, self.decay = copy.requires_grad_(False), decay
        copy.load_state_dict(network.state_dict())

    @torch.no_grad()
    def polyak_update(self, network: nn.Module) -> None:
        """Move towards the network."""
        for slow, fast in zip(self.copy.parameters(), network.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.decay)

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = self.copy(*inputs)
        return out
