"""Ensemble of latent dynamics, whose disagreement is the novelty of a state (Plan2Explore, Sekar et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aime_gym.models.networks import mlp

#: Least variance, which keeps the logarithm finite for heads that agree.
_MIN_VARIANCE = 1e-8
#: Factor of the log std, as in AIME-v2's code.
_SCALE = 0.1


class Ensemble(nn.Module):
    """Heads that each predict the next observation's embedding e_{t+1} from [h, s]_t and a_t.

    They differ in their initial weights only, and learn from the same batches.

    :param features: size F of the latent feature.
    :param actions: size A of an encoded action.
    :param embedding: size E of the embedding.
    :param heads: number K of heads.
    :param hidden: width of each head.
    :param layers: hidden layers of each head.
    :param layer_norm: activation, see [`mlp`][].
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
        """Predict embeddings: (..., F) and (..., A) -> (K, ..., E)."""
        inputs = torch.cat([features, actions], dim=-1)
        return torch.stack([head(inputs) for head in self.heads])

    def loss(self, features: Tensor, actions: Tensor, embeddings: Tensor) -> Tensor:
        """Scalar loss: half the squared error, summed over the embedding (..., E), averaged over heads."""
        return 0.5 * (self(features, actions) - embeddings).square().sum(-1).mean()


def novelty(predictions: Tensor) -> Tensor:
    """Disagreement (...) of the heads (K, ..., E): 0.1 mean_i log std_k, with the unbiased std over the heads.

    This is the form of AIME-v2's code. That of AIME's, mean_i log var_k, is 20 times as large, and has the same optimum
    except for the relative weight of the entropy. The paper's mean variance would be dominated by the largest entries
    of the embedding.
    """
    return _SCALE * 0.5 * (predictions.var(0) + _MIN_VARIANCE).log().mean(-1)
