"""Feature extractor of SB3's networks for a ``Dict`` of vectors and images."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule, TensorDict
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor, nn

from aime_gym.models.images import ImageEncoder
from aime_gym.models.networks import SensorModules
from aime_gym.models.standardizer import RunningStandardizer
from aime_gym.types import SensorShape, is_image

#: Channels of the first layer of an image's encoder.
_DEPTH = 32
#: Features of an image.
_FEATURES = 64


class SensorsExtractor(BaseFeaturesExtractor):
    """SB3's ``CombinedExtractor`` with standardised vectors, and with encoders as in DrQ-v2.

    An embedding ends in a linear layer, LayerNorm and tanh (Yarats et al. 2022, arXiv 2107.09645), so that its numbers
    stand beside standardised vectors.

    :param observation_space: vectors (D,) and images (C, H, W).
    :param standardizer: statistics of all vectors side by side. Whoever made them updates them; every extractor that
        shares them sees the change.
    :param image_encoder: kind of the encoders; see [`images`][].
    """

    def __init__(self, observation_space: spaces.Dict, standardizer: RunningStandardizer, image_encoder: str) -> None:
        shapes = sensor_shapes(observation_space)
        images = [name for name, shape in shapes.items() if is_image(shape)]
        super().__init__(observation_space, len(standardizer.mean) + _FEATURES * len(images))
        self.vectors = [name for name in shapes if name not in images]
        self.standardizer = standardizer
        encoders = {}
        for name in images:
            channels, height, width = shapes[name]
            image = ImageEncoder((height, width, channels), image_encoder, _DEPTH)
            encoders[name] = nn.Sequential(image, nn.Linear(image.size, _FEATURES), nn.LayerNorm(_FEATURES), nn.Tanh())
        self.encoders = SensorModules(encoders)

    def forward(self, observations: TensorDict) -> Tensor:
        """Vectors (N, D) and images (N, C, H, W) in [0, 1] -> features (N, F)."""
        features = [encoder(observations[name].movedim(1, -1)) for name, encoder in self.encoders.items()]
        if self.vectors:
            features.insert(0, self.standardizer(_join([observations[name] for name in self.vectors])))
        return _join(features)


def _join(parts: list[Tensor]) -> Tensor:
    """Return (N, D_i) side by side, without a copy of a single one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def sensor_shapes(space: spaces.Dict) -> dict[str, SensorShape]:
    """Return the shape of each sensor of a space."""
    return {name: tuple(part.shape or ()) for name, part in space.items()}


class CriticEncoderSACPolicy(SACPolicy):
    """SAC's policy, with an actor that sees through the critic's encoders and leaves them as they are, as in DrQ.

    SB3 has either two encoders, or one that follows the actor's loss alone; but it is the critic's loss that tells what
    is worth seeing.
    """

    def _build(self, lr_schedule: Schedule) -> None:
        self.critic = self.make_critic()
        self.critic_target = self.make_critic()
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.critic_target.set_training_mode(False)
        self.actor = self.make_actor(_FrozenExtractor(self.critic.features_extractor))
        options: dict[str, Any] = {"lr": lr_schedule(1), **self.optimizer_kwargs}
        for part in (self.actor, self.critic):
            part.optimizer = self.optimizer_class(part.parameters(), **options)


class _FrozenExtractor(BaseFeaturesExtractor):
    """The features of another network's extractor, whose weights are not registered here and get no gradient."""

    def __init__(self, extractor: BaseFeaturesExtractor) -> None:
        super().__init__(extractor._observation_space, extractor.features_dim)
        self.borrowed = (extractor,)  # PyTorch registers no module inside a tuple

    @torch.no_grad()
    def forward(self, observations: TensorDict) -> Tensor:
        features: Tensor = self.borrowed[0](observations)
        return features
