"""Inverse dynamics in the latent space: which action led from a latent state to the next observation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aime_gym.models.networks import mlp
from aime_gym.models.standardizer import Standardizer


class LatentInverseModel(nn.Module):
    """a_{t-1} from [h, s]_{t-1} and the change o_t - o_{t-1}, in [-1, 1].

    The state says where the body is and how it moves, which one observation may not; the change, in units of its own
    spread, is what an action did. Given the embedding e_t instead, the same network is three times as wrong on play
    data, and more so on demonstrations that lie outside of it.

    :param features: size of the latent feature [h, s].
    :param observation: features of all sensors together.
    :param actions: size of an action.
    """

    #: Mean squared error of each action on play data, (A,); zeros until the model has been fitted.
    variance: Tensor

    def __init__(self, features: int, observation: int, actions: int, hidden: int = 256, layers: int = 2) -> None:
        super().__init__()
        self.register_buffer("variance", torch.zeros(actions))
        self.standardizer = Standardizer(observation)
        self.net = mlp(features + observation, actions, hidden, layers, layer_norm=True)

    @property
    def fitted(self) -> bool:
        """Whether anything has been learnt."""
        return bool(self.variance.all())

    def forward(self, features: Tensor, changes: Tensor) -> Tensor:
        out: Tensor = self.net(torch.cat([features, self.standardizer(changes)], dim=-1)).tanh()
        return out
