"""Inverse dynamics in the latent space: which action led from a latent state to the next observation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.networks import mlp
from aime_gym.models.standardizer import Standardizer


class LatentInverseModel(nn.Module):
    """Inverse model p(a_{t-1} | [h, s]_{t-1}, o_t - o_{t-1}).

    For actions in [-1, 1] a regression; for one-hot actions a categorical.

    The latent state contains position and velocity, which a single observation may not; the change, standardised, is
    the effect of the action. With the embedding e_t in place of the change, the same network has three times the error
    on play data, and more on demonstrations that lie outside of it.

    :param features: size F of the latent feature [h, s].
    :param observation: size D of all sensors together.
    :param actions: size A of an action.
    :param discrete: whether actions are one-hot.
    :param hidden: width of the network.
    :param layers: hidden layers of the network.
    """

    #: Mean squared error (A,) of each action on held-out play; zeros until the model is fitted.
    variance: Tensor

    def __init__(
        self,
        features: int,
        observation: int,
        actions: int,
        *,
        discrete: bool = False,
        hidden: int = 256,
        layers: int = 2,
    ) -> None:
        super().__init__()
        self.discrete = discrete
        self.register_buffer("variance", torch.zeros(actions))
        self.standardizer = Standardizer(observation)
        self.net = mlp(features + observation, actions, hidden, layers, layer_norm=True)

    @property
    def fitted(self) -> bool:
        """Whether the model has been fitted."""
        return bool(self.variance.all())

    def forward(self, features: Tensor, changes: Tensor) -> Tensor:
        """Predict the mean (..., A): an action, or the probability of each discrete action."""
        out = self._out(features, changes)
        return out.softmax(-1) if self.discrete else out.tanh()

    def loss(self, features: Tensor, changes: Tensor, actions: Tensor) -> Tensor:
        """Scalar loss: the mean squared error, or the cross-entropy of one-hot actions."""
        if self.discrete:
            return F.cross_entropy(self._out(features, changes), actions)
        return (self(features, changes) - actions).square().mean()

    def _out(self, features: Tensor, changes: Tensor) -> Tensor:
        out: Tensor = self.net(torch.cat([features, self.standardizer(changes)], dim=-1))
        return out
