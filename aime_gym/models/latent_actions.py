"""Latent actions: a policy over them, the changes that they cause, and their remapping to real actions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.standardizer import Standardizer

#: Least std of a feature, as a share of the root mean square of all. It is small, because the effect of a torque may
#: show in features that hardly change.
_MIN_RELATIVE_STD = 0.01
#: Slope of all leaky rectifiers below zero.
_SLOPE = 0.2


class LatentActionPolicy(nn.Module):
    """Policy pi(z|s) and dynamics g(s, z), the change s' - s that latent action z causes, on a shared encoding of s.

    :param observation: size D of an observation, all sensors together.
    :param latents: number Z of latent actions.
    :param hidden: width of the encoder's first layers; its last one is twice as wide.
    :param layers: layers of the encoder.
    """

    def __init__(self, observation: int, latents: int, *, hidden: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.latents = latents
        self.standardizer = Standardizer(observation)  # of s
        self.changes = Standardizer(observation)  # of s' - s
        width = 2 * hidden
        self.encoder = leaky_mlp([observation, *[hidden] * (layers - 1), width])
        self.head = nn.Linear(width, latents)
        self.embedding = nn.Embedding(latents, width)
        # Together one linear layer on [encoding, embedding], whose parts are computed once for each state and each z.
        self.from_state = nn.Linear(width, width)
        self.from_latent = nn.Linear(width, width, bias=False)
        self.generator = leaky_mlp([width, hidden, observation])

    def fit_standardizers(self, observations: Tensor, changes: Tensor) -> None:
        """Set shift and scale of s and of s' - s from transitions, (N, D) each."""
        self.standardizer.fit(observations, _MIN_RELATIVE_STD)
        self.changes.fit(changes, _MIN_RELATIVE_STD)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Map observations (N, D) to the logits of pi(z|s), (N, Z), and standardised changes g(s, z), (N, Z, D)."""
        encoding = F.leaky_relu(self.encode(observations), _SLOPE)
        latents = F.leaky_relu(self.embedding.weight, _SLOPE)
        hidden = self.from_state(encoding)[:, None] + self.from_latent(latents)
        return self.head(encoding), self.generator(F.leaky_relu(hidden, _SLOPE))

    def encode(self, observations: Tensor) -> Tensor:
        """Encode observations for both heads: (N, D) -> (N, E)."""
        encoding: Tensor = self.encoder(self.standardizer(observations))
        return encoding

    def nearest_latent_action(self, observations: Tensor, next_observations: Tensor) -> Tensor:
        """argmin_z ||s' - (s + g(s, z))|| over standardised changes: (N, D) and (N, D) -> (N,) int."""
        return _squared_distances(self.changes(next_observations - observations), self(observations)[1]).argmin(-1)


class ActionRemap(nn.Module):
    """Classifier pi(a|s, z): the real action with the effect of a latent one.

    :param observation: size D of an observation, all sensors together.
    :param latents: number Z of latent actions.
    :param actions: number A of real actions.
    :param hidden: width of the encoder; the layers after it are half and a quarter as wide.
    """

    def __init__(self, observation: int, latents: int, actions: int, *, hidden: int = 128) -> None:
        super().__init__()
        self.standardizer = Standardizer(observation)
        half = max(1, hidden // 2)
        self.encoder = leaky_mlp([observation, hidden, half])
        self.embedding = nn.Embedding(latents, half)
        self.head = leaky_mlp([2 * half, half, max(1, hidden // 4), actions])

    def forward(self, observations: Tensor, latents: Tensor) -> Tensor:
        """Map observations (N, D) and latent actions (N,) int to logits (N, A)."""
        parts = [self.encoder(self.standardizer(observations)), self.embedding(latents)]
        logits: Tensor = self.head(F.leaky_relu(torch.cat(parts, dim=-1), _SLOPE))
        return logits


def latent_policy_losses(changes: Tensor, logits: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Losses of g and of pi: squared distances summed over features and averaged over the batch.

        min_z ||D - g(s, z)||^2        ||D - sum_z pi(z|s) g(s, z)||^2

    The gradient of the second one is that of pi only.

    :param changes: changes D = s' - s, (N, D).
    :param logits: logits (N, Z) of pi(z|s).
    :param predicted: changes g(s, z), (N, Z, D).
    """
    nearest = _squared_distances(changes, predicted).amin(-1).mean()
    expected = (logits.softmax(-1)[..., None] * predicted.detach()).sum(-2)
    return nearest, (changes - expected).square().sum(-1).mean()


def _squared_distances(changes: Tensor, predicted: Tensor) -> Tensor:
    """||D - g(s, z)||^2: (N, D) and (N, Z, D) -> (N, Z)."""
    return (changes[:, None] - predicted).square().sum(-1)


def leaky_mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with leaky rectifiers between them.

    :param widths: sizes of the input and of each layer's output.
    """
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        modules += [nn.Linear(inputs, outputs), nn.LeakyReLU(_SLOPE)]
    return nn.Sequential(*modules[:-1])
