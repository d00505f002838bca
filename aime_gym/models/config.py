"""World model configurations: the papers' two, and the default that was chosen by measurement."""

from __future__ import annotations

from dataclasses import dataclass

from aime_gym.config import MAX_LAYERS, MAX_UNITS, check_bounds, check_choices
from aime_gym.models.images import KINDS


@dataclass(frozen=True)
class WorldModelConfig:
    """Sizes and choices of a world model.

    :param deter: size of the deterministic memory h.
    :param stoch: size of the stochastic state s.
    :param hidden: width of all networks of the transition.
    :param input_layer: one layer before the recurrent cell.
    :param layer_norm_gru: LayerNorm GRU instead of the plain one.
    :param layer_norm: LayerNorm and SiLU in all networks, instead of ELU.
    :param separate_latent_heads: one network for the mean and one for the std of prior and posterior.
    :param latent_layers: hidden layers of these networks.
    :param softplus_std: std = softplus(x) + min_std, instead of 2 sigmoid(x / 2) + min_std.
    :param encoder_layers: hidden layers of the joint encoder of all sensors; 0 passes them on as they are.
    :param decoder_layers: hidden layers of each sensor's decoder, of ``decoder_hidden`` units.
    :param sigma: the decoders' fixed std; ``None`` learns it.
    :param beta_nll: weight each dimension's log-likelihood with its std, without gradient (Seitzer et al. 2022, beta =
        0.5), and the KL with the mean of these weights, as the AIME authors do.
    :param free_nats: no gradient from a step's KL below this many nats, in training the model only.
    :param kl_balance: share of the KL that trains the prior; ``None`` is the plain KL.
    :param standardize: see vectors in units of the play data's spread; images never are.
    :param image_encoder: network of images, ``ha``, ``stages`` or ``patch``; see :mod:`aime_gym.models.images`.
    :param image_depth: channels of its first layer.
    :param image_sigma: std of a pixel, which is a number in [0, 1].
    :param image_sigmoid: keep the mean of a pixel inside [0, 1].
    """

    deter: int = 256
    stoch: int = 30
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
        check_choices(self, image_encoder=KINDS)
        check_bounds(
            self,
            **dict.fromkeys(("deter", "stoch", "hidden", "decoder_hidden"), (1, MAX_UNITS)),
            **dict.fromkeys(("latent_layers", "encoder_layers", "decoder_layers"), (0, MAX_LAYERS)),
            image_depth=(1, 1024),
            **dict.fromkeys(("sigma", "image_sigma"), (1e-9, None)),
            min_std=(0, None),
            free_nats=(0, None),
            kl_balance=(0, 1),
        )


PRESETS: dict[str, WorldModelConfig] = {
    # A sharp likelihood on standardised observations is what makes actions identifiable.
    "default": WorldModelConfig(),
    # Half as wide, for tasks that are simple or hours that are short.
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
}
