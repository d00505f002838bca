"""Muon: momentum for weight matrices, whose update is orthogonalised (Jordan et al. 2024, Liu et al. 2025).

For a matrix W of shape (m, n) with gradient G, momentum mu and learning rate lr, one step is

    M <- mu M + (1 - mu) G
    U  = Orthogonalise((1 - mu) G + mu M)
    W <- W - lr 0.2 sqrt(max(m, n)) U

where Orthogonalise maps U S V^T to about U V^T, by Newton-Schulz iterations of matrix products. The factor gives the
update the root mean square of Adam's (arXiv 2502.16982, Eq. 4), so that learning rates compare with Adam's.

The arithmetic is that of ``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"``, without weight decay. Two things
make it cheaper: matrices of one shape are orthogonalised together, and a matrix that holds several maps, such as the
gates of a GRU, is orthogonalised map by map ([`aime_gym.models.networks.StackedLinear`][]).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from aime_gym.training.mixed_precision import multiplies_bfloat16

#: Coefficients of the iteration X <- a X + (b A + c A A) X with A = X X^T.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_EPSILON = 1e-7
#: Ratio of an update's root mean square to the learning rate, as Adam's is observed to have.
_RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Optimizer of weight matrices.

    :param matrices: weights (m, n), each with the number of maps whose outputs are its rows, one after another.
    :param lr: learning rate.
    :param momentum: decay of the moving average of gradients.
    """

    def __init__(self, matrices: Iterable[tuple[nn.Parameter, int]], lr: float, momentum: float = 0.95) -> None:
        pairs = list(matrices)
        super().__init__([matrix for matrix, _ in pairs], {"lr": lr, "momentum": momentum})
        self._maps = [maps for _, maps in pairs]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no loss is evaluated here
        """Take a step along the gradients; matrices without one stay as they are."""
        (group,) = self.param_groups
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for matrix, maps in zip(group["params"], self._maps, strict=True):
            if matrix.grad is None:
                continue
            state = self.state[matrix]
            if not state:
                state["momentum"] = torch.zeros_like(matrix)
            state["momentum"].lerp_(matrix.grad, 1 - group["momentum"])
            update = matrix.grad.lerp(state["momentum"], group["momentum"])
            for weights, direction in zip(matrix.chunk(maps), update.chunk(maps), strict=True):
                if len(weights) > weights.shape[1]:  # of the two products with its transpose, the smaller one
                    weights, direction = weights.T, direction.T
                by_shape[weights.shape[0], weights.shape[1]].append((weights, direction))
        for (_, longer), pairs in by_shape.items():
            directions = orthogonalize(torch.stack([direction for _, direction in pairs]))
            for (weights, _), direction in zip(pairs, directions, strict=True):
                weights.add_(direction, alpha=-group["lr"] * _RMS * longer**0.5)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Replace the singular values of matrices (K, m, n), m <= n, by values near 1, between 0.7 and 1.2.

    Values that are below a few thousandths of the matrix's norm stay smaller. In bfloat16 where the machine multiplies
    it faster than float32.
    """
    x = matrices.to(torch.bfloat16 if multiplies_bfloat16(matrices.device) else torch.float32)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(_EPSILON)
    for _ in range(_ITERATIONS):
        a = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(a, a, a, beta=_B, alpha=_C), x, beta=_A)
    return x.to(matrices.dtype)
