"""Inverse dynamics in the latent space: which action led from a latent state to the next observation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.networks import mlp
from aime_gym.models.standardizer import Standardizer


class LatentInverseModel(nn.Module):
    """What to believe of a_{t-1}, given [h, s]_{t-1} and the change o_t - o_{t-1}.

    Of an action in [-1, 1] a Gaussian, as wide as the error on play; of a one-hot action a categorical.

    The state says where the body is and how it moves, which one observation may not; the change, in units of its own
    spread, is what an action did. Given the embedding e_t instead, the same network is three times as wrong on play
    data, and more so on demonstrations that lie outside of it.

    :param features: size of the latent feature [h, s].
    :param observation: features of all sensors together.
    :param actions: size of an action.
    :param discrete: whether actions are one-hot.
    """

    #: Mean squared error of each action on play data, (A,); zeros until the model has been fitted.
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
        """Whether anything has been learnt."""
        return bool(self.variance.all())

    def forward(self, features: Tensor, changes: Tensor) -> Tensor:
        """The belief's mean (..., A): an action, or the probability of each."""
        out = self._out(features, changes)
        return out.softmax(-1) if self.discrete else out.tanh()

    def loss(self, features: Tensor, changes: Tensor, actions: Tensor) -> Tensor:
        """Mean squared error, or cross-entropy of one-hot actions; scalar."""
        if self.discrete:
            return F.cross_entropy(self._out(features, changes), actions)
        return (self(features, changes) - actions).square().mean()

    def surprise(self, actions: Tensor, means: Tensor) -> Tensor:
        """-log of the belief in ``actions`` (..., A), up to a constant: (...).

        One-hot actions are never believed to be less likely than play has shown the model to be wrong about them.

        :param means: what :meth:`forward` returned.
        """
        if self.discrete:
            return -(actions * means.clamp_min(self.variance).log()).sum(-1)
        return 0.5 * ((actions - means).square() / self.variance).sum(-1)

    def _out(self, features: Tensor, changes: Tensor) -> Tensor:
        out: Tensor = self.net(torch.cat([features, self.standardizer(changes)], dim=-1))
        return out
