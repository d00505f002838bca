"""Distributions of the models.

Log-densities and divergences of Gaussians are per dimension, unreduced. Policies return an
[`ActionDistribution`][], of actions in [-1, 1] or of one-hot ones; the stochastic state of a world model has a
[`LatentDistribution`][], Gaussian or one-hot too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

#: Constant of a Gaussian's log-density, for each dimension.
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
#: Std of the Gaussian whose tanh is close to uniform on [-1, 1], as in the authors' code of AIME-v2.
_BROAD_STD = 0.8742
#: Steps of a bisection: more would be below the rounding of float32.
_BISECTIONS = 24


class ActionDistribution(Protocol):
    """Distribution of encoded actions (..., A) that a policy returns for states (...)."""

    @property
    def mode(self) -> Tensor:
        """Deterministic action (..., A)."""

    def rsample(self, noise: Tensor) -> Tensor:
        """Sample (..., A) from standard normal ``noise`` (..., A), with a gradient; noise of zeros gives the mode."""

    def regression_loss(self, actions: Tensor) -> Tensor:
        """Scalar loss of behavioural cloning of ``actions`` (..., A)."""

    def prior_kl(self) -> Tensor:
        """KL (...) to a broad prior, in nats, summed over the action: the negative entropy up to a constant."""


class LatentDistribution(Protocol):
    """Distribution of a stochastic state (..., S) of K independent parts, as a named tuple of its parameters."""

    @property
    def mode(self) -> Tensor:
        """Most likely state (..., S)."""

    def rsample(self, noise: Tensor) -> Tensor:
        """Sample (..., S) from standard normal ``noise`` (..., S), with a gradient; noise of zeros gives the mode."""

    def kl(self, other: Any) -> Tensor:
        """KL(self || other) in nats of each part, (..., K), where ``other`` is of the same class."""

    def detach(self) -> Self:
        """Return the distribution without gradients."""


def stack(distributions: Sequence[Any]) -> Any:
    """Stack distributions of states (..., S), T of one class, to one of (T, ..., S)."""
    return type(distributions[0])(*map(torch.stack, zip(*distributions, strict=True)))


class Normal(NamedTuple):
    """Independent Gaussians with ``mean`` and ``std`` of equal (or broadcastable) shapes."""

    mean: Tensor
    std: Tensor

    @property
    def mode(self) -> Tensor:
        """The mean."""
        return self.mean

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of ``value``, including the constant."""
        return -0.5 * ((value - self.mean) / self.std).square() - self.std.log() - HALF_LOG_2PI

    def kl(self, other: Normal) -> Tensor:
        """KL(self || other), per dimension."""
        ratio = (self.std / other.std).square()
        distance = ((self.mean - other.mean) / other.std).square()
        return 0.5 * (ratio + distance - 1 - ratio.log())

    def rsample(self, noise: Tensor) -> Tensor:
        """Reparameterised sample from standard normal ``noise``."""
        return torch.addcmul(self.mean, self.std, noise)

    def detach(self) -> Normal:
        return Normal(self.mean.detach(), self.std.detach())


class TanhNormal(NamedTuple):
    """``tanh`` of a Gaussian, for actions in [-1, 1]. ``mean`` and ``std`` are those before tanh."""

    mean: Tensor
    std: Tensor

    @property
    def mode(self) -> Tensor:
        """``tanh(mean)``: strictly the median, which the papers act with and call the mode."""
        return self.mean.tanh()

    def rsample(self, noise: Tensor) -> Tensor:
        return torch.addcmul(self.mean, self.std, noise).tanh()

    def regression_loss(self, actions: Tensor) -> Tensor:
        """Squared error of the mode, since in a likelihood saturated actions would outweigh all others."""
        return (self.mode - actions).square().mean()

    def std_of_residual(self, actions: Tensor) -> Tensor:
        """Return the std before tanh (A,) whose samples are as far from the mode as ``actions`` (N, A) are.

        By bisection, up to the std that is close to uniform. The squared distance of samples is that of the two points
        one std from the mean, which stays bounded where tanh saturates.
        """
        wanted = (self.mode - actions).square().mean(0)
        low = torch.zeros_like(wanted)
        high = torch.full_like(wanted, _BROAD_STD)
        for _ in range(_BISECTIONS):
            std = (low + high) / 2
            distance = ((self.mean + std).tanh() - (self.mean - std).tanh()) / 2
            too_narrow = distance.square().mean(0) < wanted
            low = torch.where(too_narrow, std, low)
            high = torch.where(too_narrow, high, std)
        return high

    def prior_kl(self) -> Tensor:
        """KL of the Gaussian before tanh to N(0, 0.8742^2): the negative of what AIME-v2 calls entropy."""
        broad = Normal(torch.zeros_like(self.mean), torch.full_like(self.std, _BROAD_STD))
        return Normal(self.mean, self.std).kl(broad).sum(-1)


class OneHotCategorical(NamedTuple):
    """Categorical of A actions as one-hot vectors. ``log_probs`` (..., A) are normalised.

    Samples carry the straight-through gradient (Bengio et al. 2013, arXiv 1308.3432): forward the one-hot vector x,
    backward that of the probabilities p, dL/dp := dL/dx. For a loss that is linear in x it is the exact gradient of the
    expected loss, from any single sample. The straight-through Gumbel-softmax (Jang et al. 2017, arXiv 1611.01144),
    whose backward pass goes through softmax((log p + g) / temperature), is biased there at any temperature above zero,
    its variance grows without bound as the temperature falls, and the temperature is one more hyper-parameter.
    """

    log_probs: Tensor

    @property
    def mode(self) -> Tensor:
        return _one_hot_of_largest(self.log_probs)

    def rsample(self, noise: Tensor) -> Tensor:
        """One-hot sample with the straight-through gradient.

        The argmax of log p + g is a sample for Gumbel noise g = -log(-log u), u uniform; here u is the normal
        distribution function of ``noise``.
        """
        gumbel = -(-torch.special.log_ndtr(noise)).log()
        probs = self.log_probs.exp()
        return _one_hot_of_largest(self.log_probs + gumbel) + (probs - probs.detach())  # the bracket is exactly zero

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-probability (...) of one-hot actions (..., A)."""
        return (actions * self.log_probs).sum(-1)

    def regression_loss(self, actions: Tensor) -> Tensor:
        """Cross-entropy with one-hot actions or with probabilities of actions."""
        return -self.log_prob(actions).mean()

    def prior_kl(self) -> Tensor:
        """KL to the uniform distribution."""
        return (self.log_probs.exp() * self.log_probs).sum(-1) + math.log(self.log_probs.shape[-1])


class OneHotLatents(NamedTuple):
    """State of K categoricals of C classes each, as K one-hot vectors one behind the other (DreamerV2).

    ``log_probs`` (..., K, C) are normalised. Samples (..., K C) carry the straight-through gradient of
    [`OneHotCategorical`][].
    """

    log_probs: Tensor

    @property
    def mode(self) -> Tensor:
        return OneHotCategorical(self.log_probs).mode.flatten(-2)

    def rsample(self, noise: Tensor) -> Tensor:
        return OneHotCategorical(self.log_probs).rsample(noise.unflatten(-1, self.log_probs.shape[-2:])).flatten(-2)

    def kl(self, other: OneHotLatents) -> Tensor:
        """KL(self || other) of each categorical, (..., K)."""
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(-1)

    def detach(self) -> OneHotLatents:
        return OneHotLatents(self.log_probs.detach())


def _one_hot_of_largest(scores: Tensor) -> Tensor:
    return F.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores.dtype)
