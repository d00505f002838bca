"""World model: encoders and decoders around an RSSM, and the evidence lower bound (ELBO) that both phases maximise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.config import WorldModelConfig
from aime_gym.models.distributions import HALF_LOG_2PI, Normal
from aime_gym.models.images import ImageDecoder, ImageEncoder, as_floats
from aime_gym.models.networks import SensorModules, mlp
from aime_gym.models.rssm import RSSM, ActionSource, Latents, State
from aime_gym.models.standardizer import Standardizer
from aime_gym.types import Metrics, SensorShape, is_image

#: The learned std of a decoder is softplus(x) plus this, as in the authors' code.
_MIN_DECODER_STD = 1e-6


class Evidence(NamedTuple):
    """The ELBO of a batch of sequences and what it was computed from."""

    loss: Tensor  # scalar to minimise: the negative ELBO, under the model's weights and free nats
    elbo: Tensor  # scalar in nats per sequence, unweighted
    metrics: Metrics
    latents: Latents


class LikelihoodTerms(NamedTuple):
    """How well a sensor is predicted, (...) each: summed over all of its numbers."""

    kernel: Tensor  # log-likelihood in nats, but for a constant, which dwarfs what is said of thousands of pixels
    constant: float
    weighted: Tensor  # log-likelihood, each number times its weight in the loss
    weight: Tensor  # the sum of these weights
    error: Tensor  # mean squared error, without gradient

    @property
    def log_likelihood(self) -> Tensor:
        """In nats."""
        return self.kernel + self.constant


class Decoder(nn.Module):
    """p(o | h, s) of a vector: a Gaussian with learned or fixed std."""

    def __init__(self, features: int, shape: SensorShape, config: WorldModelConfig) -> None:
        super().__init__()
        self.sigma, self.beta_nll = config.sigma, config.beta_nll
        nets = 1 if config.sigma is not None else 2
        self.nets = nn.ModuleList(
            mlp(features, shape[0], config.decoder_hidden, config.decoder_layers, layer_norm=config.layer_norm)
            for _ in range(nets)
        )

    def forward(self, features: Tensor) -> Normal:
        mean = self.nets[0](features)
        if self.sigma is not None:
            return Normal(mean, mean.new_tensor(self.sigma))
        return Normal(mean, F.softplus(self.nets[1](features)) + _MIN_DECODER_STD)

    def score(self, features: Tensor, values: Tensor) -> LikelihoodTerms:
        """LikelihoodTerms standardised vectors (..., D)."""
        decoded = self(features)
        distance = ((values - decoded.mean) / decoded.std).square()
        kernels = -0.5 * distance if self.sigma is not None else -0.5 * distance - decoded.std.log()
        constant = -HALF_LOG_2PI - (math.log(self.sigma) if self.sigma is not None else 0.0)
        std = decoded.std.detach().expand_as(decoded.mean)
        kernel, constants = kernels.sum(-1), constant * values.shape[-1]
        return LikelihoodTerms(
            kernel,
            constants,
            (std * (kernels + constant)).sum(-1) if self.beta_nll else kernel + constants,
            std.sum(-1),
            (decoded.mean - values).detach().square().mean(-1),
        )


class FrameDecoder(nn.Module):
    """p(o | h, s) of an image: a Gaussian of one fixed std for all pixels, which are numbers in [0, 1]."""

    def __init__(self, features: int, shape: SensorShape, config: WorldModelConfig) -> None:
        super().__init__()
        self.shape, self.sigma, self.beta_nll = shape, config.image_sigma, config.beta_nll
        self.net = ImageDecoder(features, shape, config.image_encoder, config.image_depth, sigmoid=config.image_sigmoid)

    def forward(self, features: Tensor) -> Normal:
        mean: Tensor = self.net(features)
        return Normal(mean, mean.new_tensor(self.sigma))

    def score(self, features: Tensor, frames: Tensor) -> LikelihoodTerms:
        """LikelihoodTerms frames (..., *shape), of bytes or of numbers in [0, 1]."""
        distance = (self.net(features) - as_floats(frames, self.shape)).flatten(-3).square().sum(-1)
        pixels = math.prod(self.shape)
        kernel, constant = -0.5 * distance / self.sigma**2, -pixels * (HALF_LOG_2PI + math.log(self.sigma))
        return LikelihoodTerms(
            kernel,
            constant,
            (self.sigma if self.beta_nll else 1.0) * (kernel + constant),
            torch.full_like(kernel, self.sigma * pixels),
            distance.detach() / pixels,
        )


class WorldModel(nn.Module):
    """RSSM with its encoders and decoders.

    :param config: sizes and choices.
    :param sensors: shape of each sensor, by name, in a fixed order: vectors (D,) and images.
    :param actions: size of an action.
    """

    def __init__(self, config: WorldModelConfig, sensors: Mapping[str, SensorShape], actions: int) -> None:
        super().__init__()
        self.config = config
        self.sensors = {name: tuple(shape) for name, shape in sensors.items()}
        self.vectors = {name: shape[0] for name, shape in self.sensors.items() if not is_image(shape)}
        images = {name: shape for name, shape in self.sensors.items() if is_image(shape)}
        self.standardizers = SensorModules({name: Standardizer(size) for name, size in self.vectors.items()})
        observed = sum(self.vectors.values())
        encodes = bool(config.encoder_layers and observed)
        self.encoder: nn.Module = (
            mlp(observed, None, config.hidden, config.encoder_layers, layer_norm=config.layer_norm)
            if encodes
            else nn.Identity()
        )
        self.frame_encoders = SensorModules(
            {name: ImageEncoder(shape, config.image_encoder, config.image_depth) for name, shape in images.items()}
        )
        #: Numbers in the embeddings of all images of an observation.
        self.frame_size = sum(cast(ImageEncoder, encoder).size for encoder in self.frame_encoders.values())
        self.embedding_size = (config.hidden if encodes else observed) + self.frame_size
        self.feature_size, self.action_size = config.deter + config.stoch, actions
        self.rssm = RSSM(config, self.embedding_size, actions)
        self.decoders = SensorModules(
            {
                name: (FrameDecoder if is_image(shape) else Decoder)(self.feature_size, shape, config)
                for name, shape in self.sensors.items()
            }
        )

    def fit_standardizers(self, observations: Mapping[str, Tensor]) -> None:
        """Set each vector's shift and scale from play data (N, D); nothing to do for models on raw observations."""
        if self.config.standardize:
            for name, standardizer in self.standardizers.items():
                cast(Standardizer, standardizer).fit(observations[name])

    def standardize(self, observations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every sensor in the units that the model sees; images as they are."""
        return {
            name: self.standardizers[name](observations[name]) if name in self.vectors else observations[name]
            for name in self.sensors
        }

    def embed(self, standardized: Mapping[str, Tensor]) -> Tensor:
        """The embedding e (..., E) of standardised sensors (..., *shape)."""
        vectors = [standardized[name] for name in self.vectors]
        parts = [self.encoder(torch.cat(vectors, dim=-1))] if vectors else []
        return torch.cat(parts + self._embed_frames(standardized), dim=-1)

    def _embed_frames(self, observations: Mapping[str, Tensor]) -> list[Tensor]:
        """The images' parts of the embedding, (..., E') each."""
        return [encoder(observations[name]) for name, encoder in self.frame_encoders.items()]

    def inverse_model_inputs(self, observations: Mapping[str, Tensor]) -> Tensor:
        """What an action is read off by its change: vectors side by side, and the images' embeddings, (..., D).

        The difference of two frames says little of how far anything moved.
        """
        return torch.cat([observations[name] for name in self.vectors] + self._embed_frames(observations), dim=-1)

    @property
    def inverse_model_input_size(self) -> int:
        """Numbers in it."""
        return sum(self.vectors.values()) + self.frame_size

    def decode(self, features: Tensor) -> dict[str, Normal]:
        """p(o | h, s) of every sensor: of vectors in standardised units, of images (..., H, W, C) in [0, 1]."""
        return {name: self.decoders[name](features) for name in self.sensors}

    def score(self, features: Tensor, standardized: Mapping[str, Tensor]) -> dict[str, LikelihoodTerms]:
        """How well every sensor (..., *shape) is predicted from latent features (..., F)."""
        return {name: cast(Decoder, self.decoders[name]).score(features, standardized[name]) for name in self.sensors}

    def observe(
        self, observation: Mapping[str, Tensor], state: State, pre_action: Tensor, noise: Tensor | None = None
    ) -> State:
        """One step of the filter: the state at an observation to which ``pre_action`` (B, A) led from ``state``.

        :param observation: (B, *shape) for each sensor, raw.
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

        :param observations: (T, B, *shape) for each sensor, raw.
        :param source: recorded actions (phase 1) or a policy (phase 2).
        :param noise: (T, B, S) standard normal, for the posterior's samples.
        :param initial: state before the first observation.
        :param valid: (T, B), which records count; all unless given.
        :param regularize: use the model's free nats and KL balance; phase 2 has neither.
        """
        targets = self.standardize(observations)
        latents = self.rssm(self.embed(targets), source, noise, initial)
        scores = self.score(latents.states.feature, targets)
        kl = latents.posterior.kl(latents.prior).sum(-1)  # (T, B)

        kl_for_loss = kl
        if regularize:
            kl_for_loss = balanced_kl(latents.posterior, latents.prior, self.config.kl_balance)
            kl_for_loss = with_free_nats(kl_for_loss, self.config.free_nats)
        if self.config.beta_nll:
            numbers = sum(math.prod(shape) for shape in self.sensors.values())
            kl_for_loss = kl_for_loss * over_sensors(scores, "weight") / numbers

        loss = per_sequence(kl_for_loss - over_sensors(scores, "weighted"), valid)
        reconstruction = per_sequence(over_sensors(scores, "log_likelihood"), valid)
        elbo = reconstruction - per_sequence(kl, valid)
        metrics: Metrics = {
            "loss": loss.detach(),
            "elbo": elbo.detach(),
            "reconstruction": reconstruction.detach(),
            "kl": (reconstruction - elbo).detach(),
        }
        for name, score in scores.items():
            metrics[f"mse/{name}"] = score.error.mean() if valid is None else score.error[valid].mean()
        return Evidence(loss, elbo, metrics, latents)


def per_sequence(values: Tensor, valid: Tensor | None) -> Tensor:
    """Sum over (valid) time, mean over the batch: (T, B) -> scalar, in nats per sequence."""
    return (values if valid is None else values * valid).sum(0).mean()


def over_sensors(scores: Mapping[str, LikelihoodTerms], field: str) -> Tensor:
    """One field of all scores, summed (T, B): the sensors are independent given the state."""
    return torch.stack([getattr(score, field) for score in scores.values()]).sum(0)


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
