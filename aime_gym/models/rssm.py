"""Recurrent state-space model (RSSM): a latent state with a deterministic and a stochastic part.

Symbols: ``h`` (deter) summarises all that precedes the current observation, ``s`` (stoch) is what the observation adds,
``e`` is its embedding, ``a`` the action that led to it. One step (PlaNet, Hafner et al. 2019):

    h_t = f(h_{t-1}, s_{t-1}, a_{t-1})     prior p(s_t | h_t)     posterior q(s_t | h_t, e_t)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.config import WorldModelConfig
from aime_gym.models.distributions import LatentDistribution, Normal, OneHotLatents, stack
from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.networks import StackedLinear, TwoPartMLP, mlp
from aime_gym.models.policies import LatentPolicy


class State(NamedTuple):
    """Latent state: ``deter`` (..., H) and ``stoch`` (..., S)."""

    deter: Tensor
    stoch: Tensor

    @property
    def feature(self) -> Tensor:
        """Input ``[h, s]`` (..., H + S) of decoders and policies."""
        return torch.cat([self.deter, self.stoch], dim=-1)


class ActionSource(Protocol):
    """Source of the actions of a pass over time: a record, a policy, an inverse model."""

    def __call__(self, t: int, state: State) -> Tensor:
        """Return the action (B, A) that leads from ``state`` at ``t - 1`` to observation ``t``."""
        ...


@dataclass(frozen=True)
class RecordedActions:
    """Recorded actions (T, B, A): phase 1."""

    prev_actions: Tensor

    def __call__(self, t: int, state: State) -> Tensor:
        return self.prev_actions[t]


@dataclass(frozen=True)
class PolicyActions:
    """Actions of a policy, a_{t-1} ~ pi(a | [h, s]_{t-1}): phase 2.

    :param noise: standard normal noise (T, B, A); zeros give the policy's mode.
    :param first_action: action (B, A) that led to the first observation; ``None`` takes it from the policy too, in the
        zero state before that observation, as the authors do.
    """

    policy: LatentPolicy
    noise: Tensor
    first_action: Tensor | None = None

    def __call__(self, t: int, state: State) -> Tensor:
        if t == 0 and self.first_action is not None:
            return self.first_action
        return self.policy(state.feature).rsample(self.noise[t])


@dataclass(frozen=True)
class InverseActions:
    """Mean actions of an inverse model: the warm start.

    :param changes: changes o_t - o_{t-1} (T, B, D) of the observations that are filtered.
    """

    model: LatentInverseModel
    changes: Tensor

    def __call__(self, t: int, state: State) -> Tensor:
        actions: Tensor = self.model(state.feature, self.changes[t])
        # No action leads to an episode's first observation.
        return actions if t else actions.new_zeros(actions.shape)


@dataclass(frozen=True)
class LikeliestActions:
    """One-hot actions under which the observations surprise least, chosen one after the other.

    :param rssm: RSSM that filters with them.
    :param embeddings: embeddings (T, B, E) of the observations that are filtered.
    """

    rssm: RSSM
    embeddings: Tensor

    def __call__(self, t: int, state: State) -> Tensor:
        surprise = self.rssm.surprise_of_each_action(state, self.embeddings[t])
        return F.one_hot(surprise.argmin(-1), surprise.shape[-1]).to(state.deter.dtype)


class Latents(NamedTuple):
    """States, distributions and actions of one pass over time."""

    states: State  # (T, B, H), (T, B, S)
    prior: LatentDistribution  # (T, B, S)
    posterior: LatentDistribution  # (T, B, S)
    prev_actions: Tensor  # (T, B, A)


class LayerNormGRUCell(nn.Module):
    """GRU cell whose gates share one LayerNorm (DreamerV2; without its update bias, as in AIME-v2)."""

    def __init__(self, inputs: int, deter: int) -> None:
        super().__init__()
        self.linear = StackedLinear(inputs + deter, deter, maps=3)
        self.norm = nn.LayerNorm(3 * deter)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        gates = self.linear(torch.cat([x, h], dim=-1)).to(h.dtype)
        update, reset, candidate = self.norm(gates).chunk(3, dim=-1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        return torch.lerp(candidate, h, torch.sigmoid(update))


class RSSM(nn.Module):
    """Transition, prior and posterior.

    :param config: sizes and choices of the networks.
    :param embedding: size E of an observation's embedding ``e``.
    :param actions: size A of an action.
    """

    def __init__(self, config: WorldModelConfig, embedding: int, actions: int) -> None:
        super().__init__()
        self.config = config
        self.action_size = actions
        deter, stoch, hidden = config.deter, config.stoch, config.hidden
        layer_norm, layers = config.layer_norm, config.latent_layers
        inputs = stoch + actions
        self.input_layer: nn.Module = (
            mlp(inputs, None, hidden, 1, layer_norm=layer_norm) if config.input_layer else nn.Identity()
        )
        cell = LayerNormGRUCell if config.layer_norm_gru else nn.GRUCell
        self.cell: nn.Module = cell(hidden if config.input_layer else inputs, deter)
        # Mean and std come from one network, or from one each (the world model of the first AIME); logits from one.
        heads, size = (2, stoch) if config.separate_latent_heads else (1, 2 * stoch)
        if config.classes is not None:
            heads, size = 1, stoch
        self.prior_nets = nn.ModuleList(mlp(deter, size, hidden, layers, layer_norm=layer_norm) for _ in range(heads))
        self.posterior_nets = nn.ModuleList(
            TwoPartMLP(deter, embedding, size, hidden, layers, layer_norm=layer_norm) for _ in range(heads)
        )

    def initial_state(self, batch: int) -> State:
        """Return the zero state before the first observation, for ``batch`` sequences."""
        reference = next(self.parameters())
        return State(reference.new_zeros(batch, self.config.deter), reference.new_zeros(batch, self.config.stoch))

    def transition(self, state: State, prev_action: Tensor) -> Tensor:
        """Compute ``h_t`` (B, H) from the previous state and the action (B, A) taken in it."""
        h: Tensor = self.cell(self.input_layer(torch.cat([state.stoch, prev_action], dim=-1)), state.deter)
        return h.to(state.deter.dtype)  # the state is not rounded in mixed precision

    def prior(self, h: Tensor) -> LatentDistribution:
        """p(s_t | h_t)."""
        return self._distribution([net(h) for net in self.prior_nets])

    def prepare(self, embeddings: Tensor) -> list[Tensor]:
        """Compute the embeddings' part of the posterior networks' first layers, one (..., hidden) for each network."""
        return [cast(TwoPartMLP, net).prepare(embeddings) for net in self.posterior_nets]

    def posterior(self, h: Tensor, prepared: list[Tensor]) -> LatentDistribution:
        """q(s_t | h_t, e_t), with the embedding as [`prepare`][] returned it."""
        return self._distribution([net(h, part) for net, part in zip(self.posterior_nets, prepared, strict=True)])

    def _distribution(self, outputs: list[Tensor]) -> LatentDistribution:
        if self.config.classes is not None:
            return OneHotLatents(F.log_softmax(outputs[0].unflatten(-1, (-1, self.config.classes)), dim=-1))
        mean, raw = outputs if len(outputs) == 2 else outputs[0].chunk(2, dim=-1)
        std = F.softplus(raw) if self.config.softplus_std else 2 * torch.sigmoid(raw / 2)
        return Normal(mean, std + self.config.min_std)

    def surprise_of_each_action(self, state: State, embeddings: Tensor) -> Tensor:
        """Compute KL(q(s_t | h_t, e_t) || p(s_t | h_t)) in nats for each one-hot action in a state, (B, A).

        The decoder's part of the evidence is left out: it is much the same for all actions, as the posterior knows the
        observation, and where the model is far from its play, its errors outweigh what the action does.

        :param state: states (B, ...) that the actions are taken in.
        :param embeddings: embeddings (B, E) of the observations that followed.
        """
        count = self.action_size
        before = State(*(part.repeat_interleave(count, 0) for part in state))
        h = self.transition(before, torch.eye(count, device=embeddings.device).repeat(len(embeddings), 1))
        prepared = [part.repeat_interleave(count, 0) for part in self.prepare(embeddings)]
        return self.posterior(h, prepared).kl(self.prior(h)).sum(-1).view(-1, count)

    def forward(self, embeddings: Tensor, source: ActionSource, noise: Tensor, initial: State | None = None) -> Latents:
        """Filter a sequence; every phase uses this pass over time.

        :param embeddings: embeddings (T, B, E) of the observations.
        :param source: source of the actions, which may depend on the filtered state.
        :param noise: standard normal noise (T, B, S) of the posterior's samples; zeros give its mode.
        :param initial: state before the first observation; ``None`` is the zero state.
        """
        state = self.initial_state(embeddings.shape[1]) if initial is None else initial
        prepared = [part.unbind() for part in self.prepare(embeddings)]
        h_seq, s_seq, posteriors, actions = [], [], [], []
        for t, noise_t in enumerate(noise.unbind()):
            prev_action = source(t, state)
            h = self.transition(state, prev_action)
            posterior = self.posterior(h, [part[t] for part in prepared])
            state = State(h, posterior.rsample(noise_t))
            h_seq.append(h)
            s_seq.append(state.stoch)
            posteriors.append(posterior)
            actions.append(prev_action)
        h_all = torch.stack(h_seq)
        # Filtering does not use the prior, so it is evaluated for all steps at once.
        return Latents(
            State(h_all, torch.stack(s_seq)),
            self.prior(h_all),
            stack(posteriors),
            torch.stack(actions),
        )
