"""World model: encoders and decoders around an RSSM, and the evidence lower bound (ELBO) that both phases maximise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.config import WorldModelConfig
from aime_gym.models.distributions import Normal
from aime_gym.models.networks import mlp
from aime_gym.models.rssm import RSSM, ActionSource, Latents, State
from aime_gym.models.standardizer import Standardizer
from aime_gym.types import Metrics

#: The learned std of a decoder is softplus(x) plus this, as in the authors' code.
_MIN_DECODER_STD = 1e-6


class Evidence(NamedTuple):
    """The ELBO of a batch of sequences and what it was computed from."""

    loss: Tensor  # scalar to minimise: the negative ELBO, under the model's weights and free nats
    elbo: Tensor  # scalar in nats per sequence, unweighted
    metrics: Metrics
    latents: Latents


class Decoder(nn.Module):
    """p(o | h, s) of one sensor: a Gaussian with learned or fixed std."""

    def __init__(self, features: int, size: int, config: WorldModelConfig) -> None:
        super().__init__()
        self.sigma = config.sigma
        nets = 1 if config.sigma is not None else 2
        self.nets = nn.ModuleList(
            mlp(features, size, config.decoder_hidden, config.decoder_layers, layer_norm=config.layer_norm)
            for _ in range(nets)
        )

    def forward(self, features: Tensor) -> Normal:
        mean = self.nets[0](features)
        if self.sigma is not None:
            return Normal(mean, torch.full_like(mean, self.sigma))
        return Normal(mean, F.softplus(self.nets[1](features)) + _MIN_DECODER_STD)


class WorldModel(nn.Module):
    """RSSM with its encoders and decoders.

    :param config: sizes and choices.
    :param sensors: features of each sensor, by name, in a fixed order.
    :param actions: size of an action.
    """

    def __init__(self, config: WorldModelConfig, sensors: Mapping[str, int], actions: int) -> None:
        super().__init__()
        self.config = config
        self.sensors = dict(sensors)
        self.standardizers = nn.ModuleDict({name: Standardizer(size) for name, size in self.sensors.items()})
        observed = sum(self.sensors.values())
        self.encoder: nn.Module = (
            mlp(observed, None, config.hidden, config.encoder_layers, layer_norm=config.layer_norm)
            if config.encoder_layers
            else nn.Identity()
        )
        self.embedding_size = config.hidden if config.encoder_layers else observed
        self.feature_size, self.action_size = config.deter + config.stoch, actions
        self.rssm = RSSM(config, self.embedding_size, actions)
        self.decoders = nn.ModuleDict(
            {name: Decoder(self.feature_size, size, config) for name, size in self.sensors.items()}
        )

    def fit_standardizers(self, observations: Mapping[str, Tensor]) -> None:
        """Set each sensor's shift and scale from play data (N, D); nothing to do for models on raw observations."""
        if self.config.standardize:
            for name, standardizer in self.standardizers.items():
                cast(Standardizer, standardizer).fit(observations[name])

    def standardize(self, observations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every sensor in the units that the model sees."""
        return {name: self.standardizers[name](observations[name]) for name in self.sensors}

    def embed(self, standardized: Mapping[str, Tensor]) -> Tensor:
        """The embedding e (..., E) of standardised sensors (..., D)."""
        e: Tensor = self.encoder(torch.cat([standardized[name] for name in self.sensors], dim=-1))
        return e

    def decode(self, features: Tensor) -> dict[str, Normal]:
        """p(o | h, s) of every sensor, in standardised units."""
        return {name: self.decoders[name](features) for name in self.sensors}

    def observe(
        self, observation: Mapping[str, Tensor], state: State, pre_action: Tensor, noise: Tensor | None = None
    ) -> State:
        """One step of the filter: the state at an observation to which ``pre_action`` (B, A) led from ``state``.

        :param observation: (B, D) for each sensor, raw.
        :param noise: (B, S) standard normal, for a sample of the posterior; ``None`` takes its mean.
        """
        embedding = self.embed(self.standardize(observation))
        h = self.rssm.transition(state, pre_action)
        posterior = self.rssm.posterior(h, self.rssm.prepare(embedding))
        return State(h, posterior.mean if noise is None else posterior.rsample(noise))

    def evidence(
        self,
        observations: Mapping[str, Tensor],
        source: ActionSource,
        noise: Tensor,
        *,
        initial: State | None = None,
        valid: Tensor | None = None,
        regularize: bool = True,
    ) -> Evidence:
        """The ELBO of observations under the actions of ``source``: Eq. 1 of AIME, for either phase.

        :param observations: (T, B, D) for each sensor, raw.
        :param source: recorded actions (phase 1) or a policy (phase 2).
        :param noise: (T, B, S) standard normal, for the posterior's samples.
        :param initial: state before the first observation.
        :param valid: (T, B), which records count; all unless given.
        :param regularize: use the model's free nats and KL balance; phase 2 has neither.
        """
        targets = self.standardize(observations)
        latents = self.rssm(self.embed(targets), source, noise, initial)
        decoded = self.decode(latents.states.feature)
        log_likelihoods = {name: decoded[name].log_prob(targets[name]) for name in self.sensors}  # (T, B, D)
        kl = latents.posterior.kl(latents.prior).sum(-1)  # (T, B)

        kl_for_loss = kl
        if regularize:
            kl_for_loss = balanced_kl(latents.posterior, latents.prior, self.config.kl_balance)
            kl_for_loss = with_free_nats(kl_for_loss, self.config.free_nats)
        weighted = log_likelihoods
        if self.config.beta_nll:
            stds = {name: decoded[name].std.detach() for name in self.sensors}
            weighted = {name: stds[name] * log_likelihoods[name] for name in self.sensors}
            kl_for_loss = kl_for_loss * torch.cat(list(stds.values()), dim=-1).mean(-1)

        loss = per_sequence(kl_for_loss - sum_over_sensors(weighted), valid)
        reconstruction = per_sequence(sum_over_sensors(log_likelihoods), valid)
        elbo = reconstruction - per_sequence(kl, valid)
        metrics: Metrics = {
            "loss": loss.detach(),
            "elbo": elbo.detach(),
            "reconstruction": reconstruction.detach(),
            "kl": (reconstruction - elbo).detach(),
        }
        for name in self.sensors:
            error = (decoded[name].mean - targets[name]).detach().square().mean(-1)
            metrics[f"mse/{name}"] = error.mean() if valid is None else error[valid].mean()
        return Evidence(loss, elbo, metrics, latents)


def per_sequence(values: Tensor, valid: Tensor | None) -> Tensor:
    """Sum over (valid) time, mean over the batch: (T, B) -> scalar, in nats per sequence."""
    return (values if valid is None else values * valid).sum(0).mean()


def sum_over_sensors(log_likelihoods: Mapping[str, Tensor]) -> Tensor:
    """(T, B, D) for each sensor -> (T, B): the sensors are independent given the state."""
    return torch.stack([values.sum(-1) for values in log_likelihoods.values()]).sum(0)


def balanced_kl(posterior: Normal, prior: Normal, balance: float | None) -> Tensor:
    """KL(q || p) per step (T, B); ``balance`` of its gradient trains the prior (DreamerV2, Eq. 7)."""
    if balance is None:
        return posterior.kl(prior).sum(-1)
    to_prior, to_posterior = posterior.detach().kl(prior).sum(-1), posterior.kl(prior.detach()).sum(-1)
    return balance * to_prior + (1 - balance) * to_posterior


def with_free_nats(kl: Tensor, free_nats: float) -> Tensor:
    """The same values, with no gradient where a step's KL (T, B) is below ``free_nats``."""
    if free_nats <= 0:
        return kl
    clamped = kl.clamp_min(free_nats)
    return clamped + (kl - clamped).detach()
