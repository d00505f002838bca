"""Memoryless networks on stacks of the last observations, of BC, BCO and IIDM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.images import ImageEncoder
from aime_gym.models.networks import SensorModules, mlp
from aime_gym.models.standardizer import Standardizer
from aime_gym.types import SensorShape, is_image

#: Channels of the first layer of the image encoders.
IMAGE_DEPTH = 32


class StackEncoder(nn.Module):
    """Encoder of observations, and the base of networks on stacks of them.

    Vectors are standardised. Images pass through a convolutional encoder, the same one for all frames.

    :param sensors: shape of each sensor.
    :param frames: observations in a stack.
    """

    def __init__(self, sensors: Mapping[str, SensorShape], frames: int) -> None:
        super().__init__()
        self.frames = frames
        #: Number of features of each sensor that is a vector.
        self.vectors = {name: shape[0] for name, shape in sensors.items() if not is_image(shape)}
        self.standardizer = Standardizer(sum(self.vectors.values()))
        self.encoders = SensorModules(
            {name: ImageEncoder(shape, "patch", IMAGE_DEPTH) for name, shape in sensors.items() if is_image(shape)}
        )
        #: Size E of an encoded observation: the vectors' features, then the embeddings of images.
        self.size = sum(self.vectors.values())
        self.size += sum(cast(ImageEncoder, encoder).size for encoder in self.encoders.values())

    def fit_standardizer(self, observations: Mapping[str, Tensor]) -> None:
        """Set shift and scale of the vectors from data (N, D)."""
        if self.vectors:
            self.standardizer.fit(self._vectors(observations))

    def copy_encoding(self, other: StackEncoder) -> None:
        """Take over how another network of the same sensors encodes observations: its standardiser and encoders."""
        self.standardizer.load_state_dict(other.standardizer.state_dict())
        self.encoders.load_state_dict(other.encoders.state_dict())

    def encode(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Encode observations: (..., *shape) of each sensor -> features (..., E)."""
        parts = [self.standardize(observations)] if self.vectors else []
        return torch.cat([*parts, *(encoder(observations[name]) for name, encoder in self.encoders.items())], dim=-1)

    def standardize(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Standardise the vectors: (..., D_i) of each -> (..., D)."""
        standardized: Tensor = self.standardizer(self._vectors(observations))
        return standardized

    def _vectors(self, observations: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([observations[name] for name in self.vectors], dim=-1)


class StackedNetwork(StackEncoder):
    """MLP from ``frames`` consecutive observations to an action.

    :param sensors: shape of each sensor.
    :param frames: observations in a stack.
    :param actions: size A of an encoded action.
    :param discrete: whether the output is logits, instead of an action in [-1, 1].
    :param hidden: width of the MLP.
    :param layers: hidden layers of the MLP.
    """

    def __init__(
        self,
        sensors: Mapping[str, SensorShape],
        frames: int,
        actions: int,
        *,
        discrete: bool,
        hidden: int = 128,
        layers: int = 2,
    ) -> None:
        super().__init__(sensors, frames)
        self.discrete = discrete
        self.net = mlp(frames * self.size, actions, hidden, layers, layer_norm=False)

    def forward(self, stack: Mapping[str, Tensor]) -> Tensor:
        """Map stacks (N, frames, *shape) of each sensor, oldest frame first, to encoded actions (N, A)."""
        return self.act(self.encode(stack))

    def act(self, features: Tensor) -> Tensor:
        """Map features of stacks (N, frames, E) to encoded actions (N, A)."""
        out: Tensor = self.net(features.flatten(1))
        return out if self.discrete else out.tanh()

    def loss(self, stack: Mapping[str, Tensor], actions: Tensor) -> Tensor:
        """Scalar loss: the mean squared error, or the cross-entropy of discrete actions."""
        return self.error(self(stack), actions)

    def error(self, out: Tensor, actions: Tensor) -> Tensor:
        """Scalar loss of outputs (N, A)."""
        return F.cross_entropy(out, actions) if self.discrete else F.mse_loss(out, actions)

    def initial_state(self, observation: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the state (N, frames, E) at an episode's start: its first observation's features, repeated."""
        return (self.encode(observation)[:, None].repeat(1, self.frames, 1),)

    def step(
        self, observation: Mapping[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Act on a new observation: return encoded actions (N, A) and the next state.

        :param generator: random numbers to sample discrete actions; ``None`` takes the most likely ones.
        """
        stack = torch.cat([state[0][:, 1:], self.encode(observation)[:, None]], dim=1)
        out = self.act(stack)
        if self.discrete and generator is not None:
            uniform = torch.rand(out.shape, generator=generator).to(out.device)
            out = out - (-uniform.log()).log()  # Gumbel-max trick
        return out, (stack,)


def concatenate_sensors(observation: Mapping[str, Tensor]) -> Tensor:
    """Concatenate all sensors, (..., D_i) each -> (..., D)."""
    return torch.cat(list(observation.values()), dim=-1)
