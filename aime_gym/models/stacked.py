"""Memoryless networks on the last few observations: what BC and BCO use in place of a latent state."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.networks import mlp
from aime_gym.models.standardizer import Standardizer


class StackedNetwork(nn.Module):
    """An action from ``frames`` consecutive observations.

    :param observation: features of one observation, all sensors together.
    :param actions: size of an encoded action.
    :param discrete: whether the output is logits, instead of an action in [-1, 1].
    """

    def __init__(
        self, observation: int, frames: int, actions: int, *, discrete: bool, hidden: int = 128, layers: int = 2
    ) -> None:
        super().__init__()
        self.frames, self.discrete = frames, discrete
        self.standardizer = Standardizer(observation)
        self.net = mlp(frames * observation, actions, hidden, layers, layer_norm=False)

    def forward(self, stack: Tensor) -> Tensor:
        """(N, frames, D), oldest first -> encoded actions (N, A)."""
        out: Tensor = self.net(self.standardizer(stack).flatten(1))
        return out if self.discrete else out.tanh()

    def error(self, stack: Tensor, actions: Tensor) -> Tensor:
        """Mean squared error, or cross-entropy of discrete actions; scalar."""
        out = self(stack)
        return F.cross_entropy(out, actions) if self.discrete else F.mse_loss(out, actions)

    def start(self, observation: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The state before an episode's first step: its first observation, over and over, (N, frames, D)."""
        return (joined(observation)[:, None].repeat(1, self.frames, 1),)

    def step(
        self, observation: Mapping[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Act on a new observation: encoded actions (N, A) and the next state.

        :param generator: samples discrete actions from the logits; ``None`` takes the most likely one.
        """
        stack = torch.cat([state[0][:, 1:], joined(observation)[:, None]], dim=1)
        out: Tensor = self(stack)
        if self.discrete and generator is not None:
            uniform = torch.rand(out.shape, generator=generator).to(out.device)
            out = out - (-uniform.log()).log()  # the argmax of logits plus Gumbel noise is a sample
        return out, (stack,)


def joined(observation: Mapping[str, Tensor]) -> Tensor:
    """All sensors (..., D_i) side by side, (..., D)."""
    return torch.cat(list(observation.values()), dim=-1)
