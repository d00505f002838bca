"""Observations in units of the data's own spread."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardizer(nn.Module):
    """Shift and scale of one sensor, fitted once to play data.

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
        them, so no std falls below ``floor`` times the root mean square of all.
        """
        std = values.std(dim=0)
        self.mean.copy_(values.mean(dim=0))
        self.std.copy_(std.clamp_min(floor * std.square().mean().sqrt()).clamp_min(1e-6))

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std
