"""Expert or agent, patch by patch: PatchAIL's network, and the weight of its reward."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.types import SensorShape

#: Mean weight of a reward in the first batch.
_MEAN_WEIGHT = 1.3
_KERNEL, _PADDING, _SLOPE = 4, 1, 0.2
#: Least share whose logarithm is taken.
_LEAST_SHARE = 1e-12


class PatchLogits(nn.Module):
    """A map of logits for each image, one for each patch: convolutions of width 4, the first of which halves the image.

    With the three layers and the 32 channels of the paper, the patches are 22 pixels wide, and 39 x 39 of them lie on
    an image of 84 x 84.

    :param shapes: shape (C, H, W) of each image.
    :param channels: channels of the first layer; each further one has twice as many as the one before.
    :param layers: layers before the one that makes the logits.
    :raises ValueError: images that are too small.
    """

    def __init__(self, shapes: Sequence[SensorShape], channels: int, layers: int) -> None:
        super().__init__()
        self.nets = nn.ModuleList([_convolutions(shape[0], channels, layers) for shape in shapes])
        #: Number of patches.
        self.patches = sum(math.prod(_map_size(shape, layers)) for shape in shapes)

    def forward(self, *images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> logits of patches (N, P)."""
        return torch.cat([net(image - 0.5).flatten(1) for net, image in zip(self.nets, images, strict=True)], dim=-1)


def _convolutions(inputs: int, channels: int, layers: int) -> nn.Sequential:
    modules: list[nn.Module] = []
    for index in range(layers):
        outputs = channels * 2**index
        modules.append(nn.Conv2d(inputs, outputs, _KERNEL, 1 if index else 2, _PADDING))
        modules.append(nn.LeakyReLU(_SLOPE))
        inputs = outputs
    return nn.Sequential(*modules, nn.Conv2d(inputs, 1, _KERNEL, 1, _PADDING))


def _map_size(shape: SensorShape, layers: int) -> tuple[int, int]:
    """Return height and width of the map of logits."""
    height, width = (side // 2 - layers for side in shape[1:])
    if min(height, width) < 1:
        least = 2 * (layers + 1)
        raise ValueError(
            f"discriminator_layers: expected images of at least {least} x {least} for {layers} layers, got "
            f"{shape[1]} x {shape[2]}"
        )
    return height, width


class PatchSimilarity(nn.Module):
    """The similarity of an agent's patches to the expert's, as a weight of the reward (the paper's W).

    The probabilities of the expert, patch by patch, are made a distribution over the patches: q(x) of x, and q_E, that
    of their mean over the expert's x. Then

        weight(x) = lambda exp(-KL(q(x) || q_E))

    with a lambda that makes the weight 1.3 on average of the first batch of the agent; from then on it stays. Before,
    all weights are one.

    :param patches: number of patches P.
    """

    expert: Tensor
    scale: Tensor

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.register_buffer("expert", torch.full((patches,), 1 / patches))
        self.register_buffer("scale", torch.zeros(()))

    @torch.no_grad()
    def update(self, expert: Tensor, agent: Tensor) -> None:
        """Take the expert's distribution from its logits (M, P), and at first lambda from the agent's (N, P)."""
        mean = expert.sigmoid().mean(0)
        self.expert.copy_(mean / mean.sum())
        if not self.scale:
            self.scale.copy_(_MEAN_WEIGHT / self.similarity(agent).mean())

    def similarity(self, logits: Tensor) -> Tensor:
        """Return exp(-KL(q(x) || q_E)), in (0, 1], for logits (N, P): (N,)."""
        own = F.logsigmoid(logits).log_softmax(-1)
        return (own.exp() * (self.expert.clamp_min(_LEAST_SHARE).log() - own)).sum(-1).exp()

    def forward(self, rewards: Tensor, logits: Tensor) -> Tensor:
        """Weigh rewards (N,) by the logits of patches (N, P) that they were read off: (N,)."""
        return rewards * self.scale * self.similarity(logits) if self.scale else rewards
