"""SB3's policies on flat observations: encoders of images in front of its networks.

Both for :class:`~aime_gym.models.flat_layout.FlatLayout`; without images, SB3's policies need nothing of this.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor, nn

from aime_gym.models.flat_layout import FlatLayout
from aime_gym.models.images import ImageEncoder

#: Channels of the first layer of an image's encoder, and numbers that are left of an image.
_DEPTH, _FEATURES = 32, 64


class FlatFeaturesExtractor(BaseFeaturesExtractor):
    """Features of flat observations: vectors as they are, and what an encoder makes of each image.

    An embedding ends in a linear layer, LayerNorm and tanh, as in DrQ-v2 (Yarats et al. 2022, arXiv 2107.09645), so
    that its numbers stand beside standardised vectors.

    :param encoder: kind of the encoder; see :mod:`aime_gym.models.images`.
    """

    def __init__(self, observation_space: spaces.Space, layout: FlatLayout, encoder: str) -> None:
        super().__init__(observation_space, layout.vectors + _FEATURES * len(layout.images))
        self.layout = layout
        self.encoders = nn.ModuleList()
        for shape in layout.images:
            image = ImageEncoder(shape, encoder, _DEPTH)
            self.encoders.append(
                nn.Sequential(image, nn.Linear(image.size, _FEATURES), nn.LayerNorm(_FEATURES), nn.Tanh())
            )

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (N, D), as floats of 0 to 255 where an image is -> features (N, F)."""
        vectors, images = self.layout.split(rows)
        embeddings = [encoder(image / 255) for encoder, image in zip(self.encoders, images, strict=True)]
        return torch.cat([vectors, *embeddings], dim=-1)


class PixelSACPolicy(SACPolicy):
    """SAC's, whose actor sees through the critic's encoders and leaves them as they are, as in DrQ.

    SB3 has either two encoders, or one that follows the actor's loss alone; but it is the critic's that tells what is
    worth seeing.
    """

    def _build(self, lr_schedule: Schedule) -> None:
        self.critic = self.make_critic()
        self.critic_target = self.make_critic()
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.critic_target.set_training_mode(False)
        self.actor = self.make_actor(_Seen(self.critic.features_extractor))
        options: dict[str, Any] = {"lr": lr_schedule(1), **self.optimizer_kwargs}
        for part in (self.actor, self.critic):
            part.optimizer = self.optimizer_class(part.parameters(), **options)


class _Seen(BaseFeaturesExtractor):
    """Features of an extractor that is somebody else's: none of its weights are here, and no gradient goes there."""

    def __init__(self, extractor: BaseFeaturesExtractor) -> None:
        super().__init__(extractor._observation_space, extractor.features_dim)
        self.others = (extractor,)  # a module of a tuple is no part of this one

    @torch.no_grad()
    def forward(self, rows: Tensor) -> Tensor:
        """Rows (N, D) -> features (N, F)."""
        features: Tensor = self.others[0](rows)
        return features
