"""Standardisation: observations in units of the data's own spread."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Std that is no more than rounding, relative to the mean and to the largest std; and the one that stands for none.
_NOISE, _PRECISION, _LEAST = 1e-6, 1e-7, 1e-6


class Standardizer(nn.Module):
    """Shift and scale of one sensor, fitted to play data.

    :param size: features of the sensor.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, values: Tensor, floor: float = 0.1) -> None:
        """Take mean and std of ``values`` (N, D).

        Dimensions that hardly move in the play data would explode under their own std as soon as a demonstration moves
        them, so no std falls below ``floor`` times the root mean square of all. A few large dimensions must not hide
        the others, though: where even the median of those that move lies below that, no std falls below ``floor`` times
        the median instead.
        """
        mean, std = _mean_and_std(values)
        least = floor * std.square().mean().sqrt()
        if not (least.isfinite() and mean.isfinite().all()):  # the square of a large float32 is none
            mean, std = _mean_and_std(values.double())
            least = floor * std.square().mean().sqrt()
        moving = std[(std > _NOISE * mean.abs()) & (std > _PRECISION * std.max())]
        if not len(moving):
            least = least.clamp_min(_LEAST)
        elif moving.median() < least:
            least = floor * moving.median()
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(least))

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std


def _mean_and_std(values: Tensor) -> tuple[Tensor, Tensor]:
    # A single row has no spread.
    return values.mean(dim=0), values.std(dim=0, correction=min(1, len(values) - 1))


class RunningStandardizer(nn.Module):
    """Shift and scale by the mean and variance of all rows so far.

    :param size: number of features.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        # Sums of millions of rows: float32 would stop counting.
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        # What rows are shifted and divided by, ready for use: networks standardise far more often than they update.
        self.register_buffer("shift", torch.zeros(size), persistent=False)
        self.register_buffer("scale", torch.ones(size), persistent=False)
        self.register_load_state_dict_post_hook(lambda module, _: module._prepare())

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Add rows (N, D) to the statistics (Chan, Golub and LeVeque 1979)."""
        if not rows.shape[-1]:
            return  # no numbers have no variance, and PyTorch warns of it
        rows = rows.to(self.mean.dtype)
        total = self.count + len(rows)
        shift = rows.mean(0) - self.mean
        squares = self.variance * self.count + rows.var(0, correction=0) * len(rows)
        self.variance.copy_((squares + shift.square() * self.count * len(rows) / total) / total)
        self.mean.add_(shift * len(rows) / total)
        self.count.copy_(total)
        self._prepare()

    @torch.no_grad()
    def _prepare(self) -> None:
        self.shift.copy_(self.mean)
        self.scale.copy_(self.variance.sqrt().clamp_min(1e-6))

    def forward(self, rows: Tensor) -> Tensor:
        """Return rows (..., D) in units of their spread, no further out than 10: what never moved may start to."""
        return ((rows - self.shift) / self.scale).clamp(-10, 10)
