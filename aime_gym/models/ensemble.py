"""Predictions of many, whose disagreement tells what nobody has seen (Plan2Explore, Sekar et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aime_gym.models.networks import mlp

#: Variance that heads in full agreement are taken to have: the logarithm needs one.
_MIN_VARIANCE = 1e-8
#: Of AIME-v2's code.
_SCALE = 0.1


class Ensemble(nn.Module):
    """Heads that each predict the next observation's embedding e_{t+1} from [h, s]_t and a_t.

    They differ in their first weights only, and learn from the same batches.

    :param features: size of the latent feature.
    :param actions: size of an encoded action.
    :param embedding: size E.
    :param heads: K.
    """

    def __init__(
        self,
        features: int,
        actions: int,
        embedding: int,
        heads: int,
        hidden: int = 256,
        layers: int = 2,
        *,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            mlp(features + actions, embedding, hidden, layers, layer_norm=layer_norm) for _ in range(heads)
        )

    def forward(self, features: Tensor, actions: Tensor) -> Tensor:
        """(..., F) and (..., A) -> (K, ..., E)."""
        inputs = torch.cat([features, actions], dim=-1)
        return torch.stack([head(inputs) for head in self.heads])

    def loss(self, features: Tensor, actions: Tensor, embeddings: Tensor) -> Tensor:
        """Scalar: half the squared error, summed over the embedding (..., E), of the mean head."""
        return 0.5 * (self(features, actions) - embeddings).square().sum(-1).mean()


def novelty(predictions: Tensor) -> Tensor:
    """How far the heads (K, ..., E) disagree: 0.1 mean_i log std_k, (...), with the unbiased std over the heads.

    This is the form of AIME-v2's code. That of AIME's, mean_i log var_k, is 20 times as much, and has the same optimum
    but for the entropy's weight beside it. The paper's own is the mean variance, which would leave the reward to those
    entries of the embedding that are largest.
    """
    return _SCALE * 0.5 * (predictions.var(0) + _MIN_VARIANCE).log().mean(-1)
