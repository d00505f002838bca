"""Latent actions: a policy over them, the changes that they cause, and the real actions that cause the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.standardizer import Standardizer

#: Least spread of a feature, as a share of the root mean square of all: a torque shows in features that hardly change.
_FLOOR = 0.01


class LatentActionPolicy(nn.Module):
    """pi(z|s) and g(s, z), the change s' - s that latent action z causes, on one encoding of s.

    :param observation: features of one observation, all sensors together.
    :param latents: number |Z| of latent actions.
    :param hidden: width of the encoder's first layers; its last one is twice as wide.
    :param layers: of the encoder.
    """

    def __init__(self, observation: int, latents: int, *, hidden: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.latents = latents
        #: Of s, and of s' - s.
        self.standardizer, self.changes = Standardizer(observation), Standardizer(observation)
        width = 2 * hidden
        self.encoder = leaky_mlp([observation, *[hidden] * (layers - 1), width])
        self.head = nn.Linear(width, latents)
        self.embedding = nn.Embedding(latents, width)
        # One linear layer on [encoding, embedding], whose parts are computed once for each state and each z.
        self.from_state, self.from_latent = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.generator = leaky_mlp([width, hidden, observation])

    def fit(self, observations: Tensor, changes: Tensor) -> None:
        """Take the units of s and of s' - s from transitions, (N, D) each."""
        self.standardizer.fit(observations, _FLOOR)
        self.changes.fit(changes, _FLOOR)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) -> logits of pi(z|s), (N, Z), and g(s, z) in units of the changes' spread, (N, Z, D)."""
        encoding = F.leaky_relu(self.encode(observations), _SLOPE)
        latents = F.leaky_relu(self.embedding.weight, _SLOPE)
        hidden = self.from_state(encoding)[:, None] + self.from_latent(latents)
        return self.head(encoding), self.generator(F.leaky_relu(hidden, _SLOPE))

    def encode(self, observations: Tensor) -> Tensor:
        """(N, D) -> the encoding that both are made of, (N, E)."""
        encoding: Tensor = self.encoder(self.standardizer(observations))
        return encoding

    def closest(self, observations: Tensor, reached: Tensor) -> Tensor:
        """argmin_z ||s' - (s + g(s, z))||, in units of the changes' spread: (N, D) and (N, D) -> (N,) int."""
        return _squared(self.changes(reached - observations), self(observations)[1]).argmin(-1)


class ActionRemap(nn.Module):
    """pi(a|s, z): which real action does what a latent one means.

    :param observation: features of one observation, all sensors together.
    :param latents: number of latent actions.
    :param actions: number of real ones.
    :param hidden: width of the encoder; what follows is half and a quarter as wide.
    """

    def __init__(self, observation: int, latents: int, actions: int, *, hidden: int = 128) -> None:
        super().__init__()
        self.standardizer = Standardizer(observation)
        half = max(1, hidden // 2)
        self.encoder = leaky_mlp([observation, hidden, half])
        self.embedding = nn.Embedding(latents, half)
        self.head = leaky_mlp([2 * half, half, max(1, hidden // 4), actions])

    def forward(self, observations: Tensor, latents: Tensor) -> Tensor:
        """(N, D) and (N,) int -> logits (N, A)."""
        parts = [self.encoder(self.standardizer(observations)), self.embedding(latents)]
        logits: Tensor = self.head(F.leaky_relu(torch.cat(parts, dim=-1), _SLOPE))
        return logits


def latent_policy_losses(changes: Tensor, logits: Tensor, caused: Tensor) -> tuple[Tensor, Tensor]:
    """Both losses of latent policies, squared distances summed over features and averaged over the batch.

        min_z ||D - g(s, z)||^2        ||D - sum_z pi(z|s) g(s, z)||^2

    The gradient of the second goes through pi alone.

    :param changes: D = s' - s, (N, D).
    :param logits: of pi(z|s), (N, Z).
    :param caused: g(s, z), (N, Z, D).
    """
    nearest = _squared(changes, caused).amin(-1).mean()
    expected = (logits.softmax(-1)[..., None] * caused.detach()).sum(-2)
    return nearest, (changes - expected).square().sum(-1).mean()


def _squared(changes: Tensor, caused: Tensor) -> Tensor:
    """||D - g(s, z)||^2 for (N, D) and (N, Z, D): (N, Z)."""
    return (changes[:, None] - caused).square().sum(-1)


#: Of all leaky rectifiers, below zero.
_SLOPE = 0.2


def leaky_mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of these widths, the input's first, with leaky rectifiers between them."""
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        modules += [nn.Linear(inputs, outputs), nn.LeakyReLU(_SLOPE)]
    return nn.Sequential(*modules[:-1])
