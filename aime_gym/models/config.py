"""Configurations of the world model: the papers', and a default that was chosen by measurement."""

from __future__ import annotations

from dataclasses import dataclass

from aime_gym.config import MAX_LAYERS, MAX_UNITS, check_bounds, check_choices
from aime_gym.models.images import IMAGE_ARCHITECTURES


@dataclass(frozen=True)
class WorldModelConfig:
    """Sizes and choices of a world model.

    :param deter: size of the deterministic state h.
    :param stoch: size of the stochastic state s.
    :param classes: classes of each categorical of s, which is then ``stoch / classes`` one-hot vectors (DreamerV2);
        ``None`` makes it Gaussian.
    :param hidden: width of all networks of the transition.
    :param input_layer: whether there is a layer before the recurrent cell.
    :param layer_norm_gru: whether the cell is a GRU with LayerNorm, instead of the plain one.
    :param layer_norm: whether all networks have LayerNorm and SiLU, instead of ELU.
    :param separate_latent_heads: whether mean and std of prior and posterior have a network each.
    :param latent_layers: hidden layers of the networks of prior and posterior.
    :param softplus_std: whether their std is softplus(x) + min_std, instead of 2 sigmoid(x / 2) + min_std.
    :param min_std: least std of prior and posterior.
    :param encoder_layers: hidden layers of the joint encoder of all vectors; 0 is the identity.
    :param decoder_layers: hidden layers of each sensor's decoder, of ``decoder_hidden`` units.
    :param decoder_hidden: width of the decoders of vectors.
    :param sigma: fixed std of the decoders of vectors; ``None`` learns it.
    :param beta_nll: whether each dimension's log-likelihood is weighted by its std, without gradient (Seitzer et al.
        2022, beta = 0.5), and the KL by the mean of these weights, as in the AIME authors' code.
    :param free_nats: nats of a step's KL below which it has no gradient, in training the model only.
    :param kl_balance: share of the KL that trains the prior; ``None`` is the plain KL.
    :param standardize: whether vectors are standardised by mean and std of the play data; images never are.
    :param image_encoder: network of images, ``ha``, ``stages`` or ``patch``; see [`images`][].
    :param image_depth: channels of the first layer of that network.
    :param image_sigma: fixed std of a pixel, whose value is in [0, 1].
    :param image_sigmoid: whether a sigmoid keeps the mean of a pixel in [0, 1].
    """

    deter: int = 256
    stoch: int = 30
    classes: int | None = None
    hidden: int = 256
    input_layer: bool = True
    layer_norm_gru: bool = True
    layer_norm: bool = True
    separate_latent_heads: bool = False
    latent_layers: int = 1
    softplus_std: bool = False
    min_std: float = 0.1
    encoder_layers: int = 2
    decoder_layers: int = 2
    decoder_hidden: int = 256
    sigma: float | None = 0.1
    beta_nll: bool = False
    free_nats: float = 0.0
    kl_balance: float | None = 0.8
    standardize: bool = True
    image_encoder: str = "patch"
    image_depth: int = 32
    image_sigma: float = 0.1
    image_sigmoid: bool = False

    def __post_init__(self) -> None:
        check_choices(self, image_encoder=IMAGE_ARCHITECTURES)
        check_bounds(
            self,
            **dict.fromkeys(("deter", "stoch", "hidden", "decoder_hidden"), (1, MAX_UNITS)),
            **dict.fromkeys(("latent_layers", "encoder_layers", "decoder_layers"), (0, MAX_LAYERS)),
            classes=(2, MAX_UNITS),
            image_depth=(1, 1024),
            **dict.fromkeys(("sigma", "image_sigma"), (1e-9, None)),
            min_std=(0, None),
            free_nats=(0, None),
            kl_balance=(0, 1),
        )
        if self.classes is not None and self.stoch % self.classes:
            raise ValueError(f"stoch: expected a multiple of classes={self.classes}, got {self.stoch}")


PRESETS: dict[str, WorldModelConfig] = {
    # A small sigma on standardised observations makes actions identifiable.
    "default": WorldModelConfig(),
    # Half as wide, for simple tasks or little compute.
    "small": WorldModelConfig(deter=128, hidden=128, decoder_hidden=128, image_depth=16),
    # AIME (Zhang et al. 2023), the authors' ``rssm``.
    "aime": WorldModelConfig(
        deter=512,
        stoch=128,
        hidden=128,
        input_layer=False,
        layer_norm_gru=False,
        layer_norm=False,
        separate_latent_heads=True,
        latent_layers=2,
        softplus_std=True,
        min_std=1e-6,
        encoder_layers=0,
        decoder_hidden=128,
        sigma=None,
        beta_nll=True,
        kl_balance=None,
        standardize=False,
        image_encoder="ha",
        image_sigma=1.0,
        image_sigmoid=True,
    ),
    # AIME-v2 (Zhang et al. 2024), the authors' ``rssmo``: the world model of DreamerV2 with Gaussian latents.
    "dreamer": WorldModelConfig(
        deter=512,
        hidden=512,
        decoder_hidden=512,
        sigma=1.0,
        free_nats=1.0,
        standardize=False,
        image_encoder="ha",
        image_sigma=1.0,
    ),
    # AIME-v2 on Meta-World, the authors' ``rssmo-m``.
    "dreamer-m": WorldModelConfig(
        deter=1024,
        hidden=640,
        encoder_layers=3,
        decoder_layers=3,
        decoder_hidden=640,
        sigma=1.0,
        free_nats=1.0,
        standardize=False,
        image_encoder="stages",
        image_depth=48,
        image_sigma=1.0,
    ),
    # DITTO (DeMoss et al. 2023): the world model of DreamerV2 with its categorical latents. The authors' loss, squared
    # errors of pixels in units of their std plus 0.1 KL, is 0.1 times a negative ELBO with a sigma of 0.22 of these
    # units. In grey Atari frames the std is about 0.19, hence 0.04. What differs: SiLU for ELU, and a sum over time for
    # a mean, which Adam does not notice.
    "ditto": WorldModelConfig(
        deter=1024,
        stoch=1024,
        classes=32,
        hidden=1000,
        layer_norm_gru=False,
        decoder_hidden=1000,
        sigma=1.0,
        standardize=False,
        image_encoder="ha",
        image_depth=48,
        image_sigma=0.04,
    ),
}
