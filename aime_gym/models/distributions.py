"""The two distributions of the models. Log-densities and divergences come per dimension, unreduced."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Normal(NamedTuple):
    """Independent Gaussians with ``mean`` and ``std`` of one shape (or broadcastable)."""

    mean: Tensor
    std: Tensor

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of ``value``, constant included."""
        return -0.5 * ((value - self.mean) / self.std).square() - self.std.log() - _HALF_LOG_2PI

    def kl(self, other: Normal) -> Tensor:
        """KL(self || other)."""
        ratio = (self.std / other.std).square()
        distance = ((self.mean - other.mean) / other.std).square()
        return 0.5 * (ratio + distance - 1 - ratio.log())

    def rsample(self, noise: Tensor) -> Tensor:
        """Reparameterised sample from standard normal ``noise``."""
        return torch.addcmul(self.mean, self.std, noise)

    def detach(self) -> Normal:
        return Normal(self.mean.detach(), self.std.detach())


class TanhNormal(NamedTuple):
    """``tanh`` of a Gaussian: the distribution of actions in [-1, 1]. ``mean`` and ``std`` are pre-tanh."""

    mean: Tensor
    std: Tensor

    @property
    def mode(self) -> Tensor:
        """``tanh(mean)``: the median, which the papers act with and call the mode."""
        return self.mean.tanh()

    def rsample(self, noise: Tensor) -> Tensor:
        return torch.addcmul(self.mean, self.std, noise).tanh()
