"""The model of PMI-IL: pointwise mutual information of a state and what follows it, by contrast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.networks import mlp
from aime_gym.models.standardizer import RunningStandardizer

#: Changes as they were for each one under noise.
_CLEAN_PER_NOISY = 8


class TwoTowerModel(nn.Module):
    """f(s, s') = exp(phi_1(s' - s) . phi_2(s) / tau), with both towers' outputs of length one.

    Trained to tell the change c = s' - s that followed s from others,

        L = -E log f(s, s + c) / sum_j f(s, s + c_j)          (InfoNCE, Eq. 14 of the slides)

    where the c_j are changes of other times, and one under noise of the size of a change for every eight of them. f is
    at its best proportional to p(c | s) / q(c), q being where the c_j come from; without the noise, log f is the
    pointwise mutual information of c and s, which is zero for an expert that always does the same. The
    slides have other states s_j in the place of s + c_j; most of those are told apart by where they are, which says
    little of what one action does.

    The reward is

        r = log f(s, s') / sum_j f(s, s + c_j)                over a fixed sample of c_j

    which is Eq. 18 with the sign of its meaning; as written, it rewards what the expert avoids.

    :param size: features D of a state.
    :param embedding: size of the towers' outputs.
    :param temperature: tau.
    :param negatives: number of changes c_j in the reward; those of the loss are its minibatch's.
    """

    negatives: Tensor

    def __init__(
        self,
        size: int,
        *,
        hidden: int,
        layers: int,
        embedding: int,
        temperature: float,
        negatives: int,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.states = RunningStandardizer(size)
        self.changes = RunningStandardizer(size)
        self.state_tower = mlp(size, embedding, hidden, layers, layer_norm=False)
        self.change_tower = mlp(size, embedding, hidden, layers, layer_norm=False)
        self.register_buffer("negatives", torch.zeros(negatives, size))

    def fit_standardizer(self, obs: Tensor, next_obs: Tensor, generator: torch.Generator) -> None:
        """Take units and negatives from the demonstrations' transitions (N, D)."""
        changes = next_obs - obs
        self.states.update(obs)
        self.changes.update(torch.cat([changes, -changes]))  # root mean square: a steady change has no spread
        rows = torch.randint(len(obs), (len(self.negatives),), generator=generator).to(obs.device)
        noisy = len(rows) // (_CLEAN_PER_NOISY + 1)
        self.negatives.copy_(torch.cat([changes[rows[noisy:]], self.add_noise(changes[rows[:noisy]], generator)]))

    def add_noise(self, changes: Tensor, generator: torch.Generator) -> Tensor:
        """Return changes (N, D) under noise of their own size."""
        noise = torch.randn(changes.shape, generator=generator).to(changes)
        return changes + noise * self.changes.variance.sqrt().to(changes)

    def log_f(self, obs: Tensor, changes: Tensor) -> Tensor:
        """Return log f of each state (N, D) with each change (M, D): (N, M)."""
        return self.embed_states(obs) @ self.embed_changes(changes).t() / self.temperature

    def embed_states(self, obs: Tensor) -> Tensor:
        """phi_2 of states (N, D): (N, E), of length one."""
        return F.normalize(self.state_tower(self.states(obs)), dim=-1)

    def embed_changes(self, changes: Tensor) -> Tensor:
        """phi_1 of changes (N, D): (N, E), of length one."""
        return F.normalize(self.change_tower(self.changes(changes)), dim=-1)

    def loss(self, obs: Tensor, next_obs: Tensor, generator: torch.Generator) -> Tensor:
        """Return InfoNCE of the expert's transitions (N, D), scalar: log N (1 + 1 / 8) for an untrained model."""
        changes = next_obs - obs
        noisy = self.add_noise(changes[: max(1, len(changes) // _CLEAN_PER_NOISY)], generator)
        scores = self.log_f(obs, torch.cat([changes, noisy]))  # (N, N + N / 8)
        return F.cross_entropy(scores, torch.arange(len(obs), device=obs.device))

    def reward(self, obs: Tensor, next_obs: Tensor) -> Tensor:
        """Return rewards (N,) of transitions (N, D)."""
        states = self.embed_states(obs)
        own = (states * self.embed_changes(next_obs - obs)).sum(-1) / self.temperature
        others = states @ self.embed_changes(self.negatives).t() / self.temperature  # (N, M)
        return own - torch.cat([own[:, None], others], dim=-1).logsumexp(-1)
