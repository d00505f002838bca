"""Pointwise mutual information of a state and what follows it, by contrast: the model of PMI-IL, and its rewards."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.networks import mlp
from aime_gym.models.standardizer import RunningStandardizer

#: Forms of the reward; see :class:`TwoTowerModel`.
REWARDS = ("softmax", "cosine")
#: Changes as they were for each one under noise.
_PURE = 8


class TwoTowerModel(nn.Module):
    """f(s, s') = exp(phi_1(s' - s) . phi_2(s) / tau), with both towers' outputs of length one.

    Trained to tell the change c = s' - s that followed s from others,

        L = -E log f(s, s + c) / sum_j f(s, s + c_j)          (InfoNCE, Eq. 14 of the slides)

    where the c_j are changes of other times, and one under noise of the size of a change for every eight of them. f is
    at its best proportional to p(c | s) / q(c), q being where the c_j come from; without the noise, log f is the
    pointwise mutual information of c and s, which is zero for an expert that always does the same. The
    slides have other states s_j in the place of s + c_j; most of those are told apart by where they are, which says
    little of what one action does.

    The reward grows with f:

        softmax    log f(s, s') / sum_j f(s, s + c_j)         over a fixed sample of c_j: Eq. 18 with the sign of its
                                                              meaning; as written, it pays for what the expert avoids
        cosine     phi_1(s' - s) . phi_2(s) = tau log f(s, s')                                         (Eq. 19)

    :param observation: features D of a state.
    :param embedding: size of the towers' outputs.
    :param temperature: tau.
    :param negatives: changes c_j in the denominator of the reward; that of the loss has those of its minibatch.
    :param reward: form of the reward: ``softmax`` or ``cosine``.
    """

    negatives: Tensor

    def __init__(
        self,
        observation: int,
        *,
        hidden: int,
        layers: int,
        embedding: int,
        temperature: float,
        negatives: int,
        reward: str,
    ) -> None:
        super().__init__()
        self.form, self.temperature = reward, temperature
        self.states, self.changes = RunningStandardizer(observation), RunningStandardizer(observation)
        self.of_state = mlp(observation, embedding, hidden, layers, layer_norm=False)
        self.of_change = mlp(observation, embedding, hidden, layers, layer_norm=False)
        self.register_buffer("negatives", torch.zeros(negatives, observation))

    def fit_standardizer(self, obs: Tensor, next_obs: Tensor, generator: torch.Generator) -> None:
        """Take units and negatives from the demonstrations' transitions (N, D)."""
        changes = next_obs - obs
        self.states.update(obs)
        self.changes.update(torch.cat([changes, -changes]))  # root mean square: a steady change has no spread
        rows = torch.randint(len(obs), (len(self.negatives),), generator=generator).to(obs.device)
        noisy = len(rows) // (_PURE + 1)
        self.negatives.copy_(torch.cat([changes[rows[noisy:]], self.disturbed(changes[rows[:noisy]], generator)]))

    def disturbed(self, changes: Tensor, generator: torch.Generator) -> Tensor:
        """Changes (N, D) under noise of their own size."""
        noise = torch.randn(changes.shape, generator=generator).to(changes)
        return changes + noise * self.changes.variance.sqrt().to(changes)

    def log_f(self, obs: Tensor, changes: Tensor) -> Tensor:
        """Log f of each state (N, D) with each change (M, D): (N, M)."""
        states = F.normalize(self.of_state(self.states(obs)), dim=-1)
        followers = F.normalize(self.of_change(self.changes(changes)), dim=-1)
        return states @ followers.t() / self.temperature

    def loss(self, obs: Tensor, next_obs: Tensor, generator: torch.Generator) -> Tensor:
        """InfoNCE of the expert's transitions (N, D), scalar: log N (1 + 1 / 8) for a model that knows nothing."""
        changes = next_obs - obs
        disturbed = self.disturbed(changes[: max(1, len(changes) // _PURE)], generator)
        scores = self.log_f(obs, torch.cat([changes, disturbed]))  # (N, N + N / 8)
        return F.cross_entropy(scores, torch.arange(len(obs), device=obs.device))

    def reward(self, obs: Tensor, next_obs: Tensor) -> Tensor:
        """Rewards (N,) of transitions (N, D)."""
        states = F.normalize(self.of_state(self.states(obs)), dim=-1)
        own = F.normalize(self.of_change(self.changes(next_obs - obs)), dim=-1)
        cosine = (states * own).sum(-1)
        if self.form == "cosine":
            return cosine
        others = self.log_f(obs, self.negatives)  # (N, M)
        own_score = cosine / self.temperature
        return own_score - torch.cat([own_score[:, None], others], dim=-1).logsumexp(-1)
