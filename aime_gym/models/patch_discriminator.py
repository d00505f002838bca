"""Expert or agent, patch by patch: PatchAIL's network, and what it pays for looking like the expert all over."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.flat_layout import FlatLayout
from aime_gym.types import SensorShape

#: How similarity enters a reward, and what it is on average of the first batch: the weight, or the bonus.
SIMILARITIES = {"weight": 1.3, "bonus": 0.5, "none": 0.0}
_KERNEL, _PADDING, _SLOPE = 4, 1, 0.2
#: Of a share whose logarithm is taken.
_LEAST = 1e-12


class PatchLogits(nn.Module):
    """A map of logits for each image, one for each patch: convolutions of width 4, the first of which halves the image.

    With the three layers and the 32 channels of the paper, the patches are 22 pixels wide, and 39 x 39 of them lie on
    an image of 84 x 84.

    :param layout: of images alone.
    :param channels: of the first layer; each further one has twice as many as the one before.
    :param layers: before the one that makes the logits.
    :raises ValueError: images that are too small.
    """

    def __init__(self, layout: FlatLayout, channels: int, layers: int) -> None:
        super().__init__()
        self.layout = layout
        self.nets = nn.ModuleList([_convolutions(shape, channels, layers) for shape in layout.images])
        #: Number of patches.
        self.patches = sum(math.prod(_sides(shape, layers)) for shape in layout.images)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (N, D), images in [0, 1] -> logits of patches (N, P)."""
        _, images = self.layout.split(rows)
        maps = [net((image - 0.5).permute(0, 3, 1, 2)).flatten(1) for net, image in zip(self.nets, images, strict=True)]
        return torch.cat(maps, dim=-1)


def _convolutions(shape: SensorShape, channels: int, layers: int) -> nn.Sequential:
    modules: list[nn.Module] = []
    before = shape[-1]
    for index in range(layers):
        after = channels * 2**index
        modules.append(nn.Conv2d(before, after, _KERNEL, 1 if index else 2, _PADDING))
        modules.append(nn.LeakyReLU(_SLOPE))
        before = after
    return nn.Sequential(*modules, nn.Conv2d(before, 1, _KERNEL, 1, _PADDING))


def _sides(shape: SensorShape, layers: int) -> tuple[int, int]:
    """Of the map of logits."""
    height, width = (side // 2 - layers for side in shape[:2])
    if min(height, width) < 1:
        least = 2 * (layers + 1)
        raise ValueError(
            f"discriminator_layers: expected images of at least {least} x {least} for {layers} layers, got "
            f"{shape[0]} x {shape[1]}"
        )
    return height, width


class PatchSimilarity(nn.Module):
    """The similarity of an agent's patches to the expert's, as a part of the reward.

    The probabilities of the expert, patch by patch, are made a distribution over the patches: q(x) of x, and q_E, that
    of their mean over the expert's x. Then

        weight     r(x) * lambda exp(-KL(q(x) || q_E))
        bonus      0.5 r(x) + lambda exp(-KL(q(x) || q_E))

    with a lambda that makes the factor 1.3, or the second term 0.5, on average of the first batch of the agent; from
    then on it stays. Before, the reward is as it is.

    :param patches: P.
    :param kind: ``weight`` or ``bonus``.
    """

    expert: Tensor
    scale: Tensor

    def __init__(self, patches: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("expert", torch.full((patches,), 1 / patches))
        self.register_buffer("scale", torch.zeros(()))

    @torch.no_grad()
    def fit_standardizer(self, expert: Tensor, agent: Tensor) -> None:
        """Take the expert's distribution from its logits (M, P), and at first lambda from the agent's (N, P)."""
        mean = expert.sigmoid().mean(0)
        self.expert.copy_(mean / mean.sum())
        if not self.scale:
            self.scale.copy_(SIMILARITIES[self.kind] / self.similarity(agent).mean())

    def similarity(self, logits: Tensor) -> Tensor:
        """exp(-KL(q(x) || q_E)), in (0, 1], for logits (N, P): (N,)."""
        own = F.logsigmoid(logits).log_softmax(-1)
        return (own.exp() * (self.expert.clamp_min(_LEAST).log() - own)).sum(-1).exp()

    def forward(self, rewards: Tensor, logits: Tensor) -> Tensor:
        """Rewards (N,) and the logits of patches (N, P) that they were read off -> rewards (N,)."""
        if not self.scale:
            return rewards
        similarity = self.scale * self.similarity(logits)
        return rewards * similarity if self.kind == "weight" else 0.5 * rewards + similarity
