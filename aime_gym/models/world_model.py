"""World model: an RSSM with encoders and decoders, and the evidence lower bound (ELBO) that both phases maximise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.config import WorldModelConfig
from aime_gym.models.distributions import HALF_LOG_2PI, LatentDistribution, Normal
from aime_gym.models.images import ImageDecoder, ImageEncoder, as_floats
from aime_gym.models.networks import SensorModules, mlp
from aime_gym.models.rssm import RSSM, ActionSource, Latents, State
from aime_gym.models.standardizer import Standardizer
from aime_gym.types import Metrics, SensorShape, is_image

#: Least std of a decoder with learned std, softplus(x) + _MIN_DECODER_STD, as in the authors' code.
_MIN_DECODER_STD = 1e-6


class Evidence(NamedTuple):
    """ELBO of a batch of sequences, and the latents it was computed from."""

    loss: Tensor  # scalar to minimise: the negative ELBO with the configuration's weights, free nats and KL balance
    elbo: Tensor  # scalar in nats per sequence, unweighted
    metrics: Metrics
    latents: Latents
    surprise: Tensor  # (T, B) in nats, KL - log p(o) + max log p of each record; at least 0 for a fixed sigma


class LikelihoodTerms(NamedTuple):
    """Terms of a sensor's log-likelihood, (...) each: summed over the sensor's dimensions."""

    kernel: Tensor  # log-likelihood in nats without its constant, which for images exceeds it by far
    constant: float
    weighted: Tensor  # log-likelihood, each dimension times its weight in the loss
    weight: Tensor  # sum of these weights
    error: Tensor  # mean squared error, without gradient

    @property
    def log_likelihood(self) -> Tensor:
        """Log-likelihood in nats."""
        return self.kernel + self.constant


class GaussianVectorDecoder(nn.Module):
    """Decoder p(o | h, s) of a vector: a Gaussian with learned or fixed std."""

    def __init__(self, features: int, shape: SensorShape, config: WorldModelConfig) -> None:
        super().__init__()
        self.sigma = config.sigma
        self.beta_nll = config.beta_nll
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

    def likelihood_terms(self, features: Tensor, values: Tensor) -> LikelihoodTerms:
        """Evaluate the likelihood of standardised vectors (..., D)."""
        decoded = self(features)
        distance = ((values - decoded.mean) / decoded.std).square()
        kernels = -0.5 * distance if self.sigma is not None else -0.5 * distance - decoded.std.log()
        constant = -HALF_LOG_2PI - (math.log(self.sigma) if self.sigma is not None else 0.0)
        std = decoded.std.detach().expand_as(decoded.mean)
        kernel = kernels.sum(-1)
        total_constant = constant * values.shape[-1]
        return LikelihoodTerms(
            kernel,
            total_constant,
            (std * (kernels + constant)).sum(-1) if self.beta_nll else kernel + total_constant,
            std.sum(-1),
            (decoded.mean - values).detach().square().mean(-1),
        )


class GaussianImageDecoder(nn.Module):
    """Decoder p(o | h, s) of an image with pixels in [0, 1]: a Gaussian with one fixed std."""

    def __init__(self, features: int, shape: SensorShape, config: WorldModelConfig) -> None:
        super().__init__()
        self.shape = shape
        self.sigma = config.image_sigma
        self.beta_nll = config.beta_nll
        self.net = ImageDecoder(features, shape, config.image_encoder, config.image_depth, sigmoid=config.image_sigmoid)

    def forward(self, features: Tensor) -> Normal:
        mean: Tensor = self.net(features)
        return Normal(mean, mean.new_tensor(self.sigma))

    def likelihood_terms(self, features: Tensor, frames: Tensor) -> LikelihoodTerms:
        """Evaluate the likelihood of frames (..., *shape), ``uint8`` or floats in [0, 1]."""
        distance = (self.net(features) - as_floats(frames, self.shape)).flatten(-3).square().sum(-1)
        pixels = math.prod(self.shape)
        kernel = -0.5 * distance / self.sigma**2
        constant = -pixels * (HALF_LOG_2PI + math.log(self.sigma))
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
    :param sensors: shape of each sensor by name, vectors (D,) and images, in the order of the embedding.
    :param actions: size A of an action.
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
        #: Size of the embeddings of all images of an observation together.
        self.frame_size = sum(cast(ImageEncoder, encoder).size for encoder in self.frame_encoders.values())
        self.embedding_size = (config.hidden if encodes else observed) + self.frame_size
        self.feature_size = config.deter + config.stoch
        self.action_size = actions
        self.rssm = RSSM(config, self.embedding_size, actions)
        self.decoders = SensorModules(
            {
                name: (GaussianImageDecoder if is_image(shape) else GaussianVectorDecoder)(
                    self.feature_size, shape, config
                )
                for name, shape in self.sensors.items()
            }
        )

    def fit_standardizers(self, observations: Mapping[str, Tensor]) -> None:
        """Set each vector's shift and scale from play data (N, D), if the configuration standardises."""
        if self.config.standardize:
            for name, standardizer in self.standardizers.items():
                cast(Standardizer, standardizer).fit(observations[name])

    def standardize(self, observations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Standardise the vectors of an observation; images stay as they are."""
        return {
            name: self.standardizers[name](observations[name]) if name in self.vectors else observations[name]
            for name in self.sensors
        }

    def embed(self, standardized: Mapping[str, Tensor]) -> Tensor:
        """Embed standardised sensors (..., *shape): e, (..., E), that of images last."""
        vectors = [standardized[name] for name in self.vectors]
        parts = [self.encoder(torch.cat(vectors, dim=-1))] if vectors else []
        frames = [encoder(standardized[name]) for name, encoder in self.frame_encoders.items()]
        return torch.cat(parts + frames, dim=-1)

    def inverse_model_inputs(self, observations: Mapping[str, Tensor], embeddings: Tensor) -> Tensor:
        """Concatenate the vectors and the images' embeddings, (..., D): the inverse model takes the change of these.

        Embeddings, since the difference of two frames does not tell how far anything moved.

        :param observations: raw observations (..., D) of the vectors; others are left out.
        :param embeddings: embeddings (..., E) of the whole observations.
        """
        frames = embeddings[..., self.embedding_size - self.frame_size :]
        return torch.cat([*(observations[name] for name in self.vectors), frames], dim=-1)

    @property
    def inverse_model_input_size(self) -> int:
        """Size D of [`inverse_model_inputs`][]."""
        return sum(self.vectors.values()) + self.frame_size

    def decode(self, features: Tensor) -> dict[str, Normal]:
        """p(o | h, s) of every sensor: vectors in standardised units, images (..., H, W, C) in [0, 1]."""
        return {name: self.decoders[name](features) for name in self.sensors}

    def likelihood_terms(self, features: Tensor, standardized: Mapping[str, Tensor]) -> dict[str, LikelihoodTerms]:
        """Evaluate the likelihood of every sensor (..., *shape) given latent features (..., F)."""
        return {
            name: cast(GaussianVectorDecoder, self.decoders[name]).likelihood_terms(features, standardized[name])
            for name in self.sensors
        }

    def observe(
        self, observation: Mapping[str, Tensor], state: State, prev_action: Tensor, noise: Tensor | None = None
    ) -> State:
        """Filter one observation: return the state after ``prev_action`` (B, A) led from ``state`` to it.

        :param observation: raw observation (B, *shape) of each sensor.
        :param noise: standard normal noise (B, S) to sample the posterior; ``None`` takes its mode.
        """
        embedding = self.embed(self.standardize(observation))
        h = self.rssm.transition(state, prev_action)
        posterior = self.rssm.posterior(h, self.rssm.prepare(embedding))
        return State(h, posterior.mode if noise is None else posterior.rsample(noise))

    def evidence(
        self,
        observations: Mapping[str, Tensor],
        source: ActionSource,
        noise: Tensor,
        *,
        initial: State | None = None,
        valid: Tensor | None = None,
        regularize: bool = True,
        robust_nats: float | None = None,
        embeddings: Tensor | None = None,
    ) -> Evidence:
        """Compute the ELBO of observations under the actions of ``source``: Eq. 1 of AIME, for either phase.

        :param observations: raw observations (T, B, *shape) of each sensor.
        :param source: recorded actions (phase 1) or a policy (phase 2).
        :param noise: standard normal noise (T, B, S) of the posterior's samples.
        :param initial: state before the first observation; ``None`` is the zero state.
        :param valid: mask (T, B) of the records that count; ``None`` is all of them.
        :param regularize: whether the loss has the configuration's free nats and KL balance; phase 2 has neither.
        :param robust_nats: surprise of a record, in nats, beyond which the loss grows by its logarithm only: with
            n = KL - log p(o) + max log p, c log(1 + n / c) takes the place of n. ``None`` sums nats.
        :param embeddings: embeddings (T, B, E) of the observations, where they are known already.
        """
        targets = self.standardize(observations)
        latents = self.rssm(self.embed(targets) if embeddings is None else embeddings, source, noise, initial)
        likelihoods = self.likelihood_terms(latents.states.feature, targets)
        kl = latents.posterior.kl(latents.prior).sum(-1)  # (T, B)

        kl_for_loss = kl
        if regularize:
            kl_for_loss = balanced_kl(latents.posterior, latents.prior, self.config.kl_balance)
            kl_for_loss = with_free_nats(kl_for_loss, self.config.free_nats)
        if self.config.beta_nll:
            dimensions = sum(math.prod(shape) for shape in self.sensors.values())
            kl_for_loss = kl_for_loss * sum_over_sensors(likelihoods, "weight") / dimensions

        surprise = surprise_of(latents, likelihoods)
        negative = kl_for_loss - sum_over_sensors(likelihoods, "weighted")
        if robust_nats is not None:
            negative = robust_nats * torch.log1p(surprise / robust_nats)
        loss = per_sequence(negative, valid)
        reconstruction = per_sequence(sum_over_sensors(likelihoods, "log_likelihood"), valid)
        elbo = reconstruction - per_sequence(kl, valid)
        metrics: Metrics = {
            "loss": loss.detach(),
            "elbo": elbo.detach(),
            "reconstruction": reconstruction.detach(),
            "kl": (reconstruction - elbo).detach(),
        }
        for name, terms in likelihoods.items():
            metrics[f"mse/{name}"] = terms.error.mean() if valid is None else terms.error[valid].mean()
        return Evidence(loss, elbo, metrics, latents, surprise.detach())


def per_sequence(values: Tensor, valid: Tensor | None) -> Tensor:
    """Sum over (valid) steps, mean over the batch: (T, B) -> scalar, in nats per sequence."""
    return (values if valid is None else values * valid).sum(0).mean()


def surprise_of(latents: Latents, likelihoods: Mapping[str, LikelihoodTerms]) -> Tensor:
    """Compute KL - log p(o) + max log p of each record, (T, B) in nats; see [`Evidence`][]."""
    return latents.posterior.kl(latents.prior).sum(-1) - sum_over_sensors(likelihoods, "kernel")


def sum_over_sensors(likelihoods: Mapping[str, LikelihoodTerms], field: str) -> Tensor:
    """Sum one field (T, B) over all sensors, which are independent given the state."""
    return torch.stack([getattr(terms, field) for terms in likelihoods.values()]).sum(0)


def balanced_kl(posterior: LatentDistribution, prior: LatentDistribution, balance: float | None) -> Tensor:
    """KL(q || p) per step (T, B) whose gradient goes to the prior by the share ``balance`` (DreamerV2, Eq. 7)."""
    if balance is None:
        return posterior.kl(prior).sum(-1)
    to_prior = posterior.detach().kl(prior).sum(-1)
    to_posterior = posterior.kl(prior.detach()).sum(-1)
    return balance * to_prior + (1 - balance) * to_posterior


def with_free_nats(kl: Tensor, free_nats: float) -> Tensor:
    """Return the KL (T, B) unchanged, but without gradient where a step's is below ``free_nats``."""
    if free_nats <= 0:
        return kl
    clamped = kl.clamp_min(free_nats)
    return clamped + (kl - clamped).detach()
