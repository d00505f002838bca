"""The recurrent state-space model: a latent state with a deterministic memory and a stochastic part.

Symbols: ``h`` (deter) remembers everything before now, ``s`` (stoch) is what the current observation adds, ``e`` is the
observation's embedding, ``a`` the action that led to it. One step (PlaNet, Hafner et al. 2019):

    h_t = f(h_{t-1}, s_{t-1}, a_{t-1})     prior p(s_t | h_t)     posterior q(s_t | h_t, e_t)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.config import WorldModelConfig
from aime_gym.models.distributions import Normal
from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.networks import TwoPartMLP, mlp
from aime_gym.models.policies import LatentPolicy


class State(NamedTuple):
    """Latent state; ``deter`` (..., H) and ``stoch`` (..., S)."""

    deter: Tensor
    stoch: Tensor

    @property
    def feature(self) -> Tensor:
        """What decoders and policies see: ``[h, s]``, (..., H + S)."""
        return torch.cat([self.deter, self.stoch], dim=-1)


class ActionSource(Protocol):
    """Where the actions of a pass over time come from: a record, a policy, an inverse model."""

    def __call__(self, t: int, state: State) -> Tensor:
        """The action (B, A) that leads from ``state`` at ``t - 1`` to observation ``t``."""
        ...


@dataclass(frozen=True)
class RecordedActions:
    """Phase 1: the actions of the record, (T, B, A)."""

    prev_actions: Tensor

    def __call__(self, t: int, state: State) -> Tensor:
        return self.prev_actions[t]


@dataclass(frozen=True)
class PolicyActions:
    """Phase 2: a_{t-1} ~ pi(a | [h, s]_{t-1}).

    :param noise: (T, B, A) standard normal; zeros act with the mode.
    :param first: (B, A), what led to the first observation. ``None`` asks the policy there too, on the zero state that
        comes before it, as the authors do.
    """

    policy: LatentPolicy
    noise: Tensor
    first: Tensor | None = None

    def __call__(self, t: int, state: State) -> Tensor:
        if t == 0 and self.first is not None:
            return self.first
        return self.policy(state.feature).rsample(self.noise[t])


@dataclass(frozen=True)
class InverseActions:
    """Warm start: what an inverse model believes led to each observation, the mean of its belief.

    :param changes: (T, B, D), of the observations that are filtered, against the one before.
    """

    model: LatentInverseModel
    changes: Tensor

    def __call__(self, t: int, state: State) -> Tensor:
        actions: Tensor = self.model(state.feature, self.changes[t])
        # Nothing led to an episode's first observation.
        return actions if t else actions.new_zeros(actions.shape)


class Latents(NamedTuple):
    """What one pass over time leaves behind."""

    states: State  # (T, B, H), (T, B, S)
    prior: Normal  # (T, B, S)
    posterior: Normal  # (T, B, S)
    prev_actions: Tensor  # (T, B, A)


class LayerNormGRUCell(nn.Module):
    """A GRU whose gates share one LayerNorm (DreamerV2; without its update bias, as in AIME-v2)."""

    def __init__(self, inputs: int, deter: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs + deter, 3 * deter)
        self.norm = nn.LayerNorm(3 * deter)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        update, reset, candidate = self.norm(self.linear(torch.cat([x, h], dim=-1))).chunk(3, dim=-1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        return torch.lerp(candidate, h, torch.sigmoid(update))


class RSSM(nn.Module):
    """Transition, prior and posterior.

    :param embedding: size of an observation's embedding ``e``.
    :param actions: size of an action.
    """

    def __init__(self, config: WorldModelConfig, embedding: int, actions: int) -> None:
        super().__init__()
        self.config, self.action_size = config, actions
        deter, stoch, hidden = config.deter, config.stoch, config.hidden
        layer_norm, layers = config.layer_norm, config.latent_layers
        inputs = stoch + actions
        self.input_layer: nn.Module = (
            mlp(inputs, None, hidden, 1, layer_norm=layer_norm) if config.input_layer else nn.Identity()
        )
        cell = LayerNormGRUCell if config.layer_norm_gru else nn.GRUCell
        self.cell: nn.Module = cell(hidden if config.input_layer else inputs, deter)
        # Joint heads give mean and std from one network; separate heads keep one network for each (AIME's v1 model).
        self.heads, size = (2, stoch) if config.separate_latent_heads else (1, 2 * stoch)
        self.prior_nets = nn.ModuleList(
            mlp(deter, size, hidden, layers, layer_norm=layer_norm) for _ in range(self.heads)
        )
        self.posterior_nets = nn.ModuleList(
            TwoPartMLP(deter, embedding, size, hidden, layers, layer_norm=layer_norm) for _ in range(self.heads)
        )

    def initial_state(self, batch: int) -> State:
        """The zero state before the first observation, for ``batch`` sequences."""
        reference = next(self.parameters())
        return State(reference.new_zeros(batch, self.config.deter), reference.new_zeros(batch, self.config.stoch))

    def transition(self, state: State, pre_action: Tensor) -> Tensor:
        """``h_t`` from the previous state and the action taken in it."""
        h: Tensor = self.cell(self.input_layer(torch.cat([state.stoch, pre_action], dim=-1)), state.deter)
        return h

    def prior(self, h: Tensor) -> Normal:
        """p(s_t | h_t)."""
        return self._normal([net(h) for net in self.prior_nets])

    def prepare(self, embeddings: Tensor) -> list[Tensor]:
        """The embeddings' share of the posterior networks, one (..., hidden) for each."""
        return [cast(TwoPartMLP, net).prepare(embeddings) for net in self.posterior_nets]

    def posterior(self, h: Tensor, prepared: list[Tensor]) -> Normal:
        """q(s_t | h_t, e_t), the embedding given as :meth:`prepare` returned it."""
        return self._normal([net(h, part) for net, part in zip(self.posterior_nets, prepared, strict=True)])

    def _normal(self, outputs: list[Tensor]) -> Normal:
        mean, raw = outputs if self.heads == 2 else outputs[0].chunk(2, dim=-1)
        std = F.softplus(raw) if self.config.softplus_std else 2 * torch.sigmoid(raw / 2)
        return Normal(mean, std + self.config.min_std)

    def forward(self, embeddings: Tensor, source: ActionSource, noise: Tensor, initial: State | None = None) -> Latents:
        """Filter a sequence: the one pass over time of every phase.

        :param embeddings: (T, B, E).
        :param source: where each action comes from; it may use the state it is given.
        :param noise: (T, B, S) standard normal; zeros filter with the posterior's mean.
        :param initial: state before the first observation; zeros unless given.
        """
        state = self.initial_state(embeddings.shape[1]) if initial is None else initial
        prepared = [part.unbind() for part in self.prepare(embeddings)]
        h_seq, s_seq, means, stds, actions = [], [], [], [], []
        for t, noise_t in enumerate(noise.unbind()):
            pre_action = source(t, state)
            h = self.transition(state, pre_action)
            posterior = self.posterior(h, [part[t] for part in prepared])
            state = State(h, posterior.rsample(noise_t))
            h_seq.append(h)
            s_seq.append(state.stoch)
            means.append(posterior.mean)
            stds.append(posterior.std)
            actions.append(pre_action)
        h_all = torch.stack(h_seq)
        # Filtering never looks at the prior, so it is evaluated for all steps at once.
        return Latents(
            State(h_all, torch.stack(s_seq)),
            self.prior(h_all),
            Normal(torch.stack(means), torch.stack(stds)),
            torch.stack(actions),
        )
