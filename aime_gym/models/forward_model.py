"""Forward dynamics of observations: what follows a stack of them and an action. Of IIDM."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from aime_gym.models.images import ImageDecoder, as_floats
from aime_gym.models.networks import SensorModules, mlp
from aime_gym.models.stacked import IMAGE_DEPTH, StackEncoder
from aime_gym.models.standardizer import Standardizer
from aime_gym.types import SensorShape, is_image

#: Least share of the mean spread that the spread of a number's changes counts as: of what stays still there is none.
_LEAST_SPREAD = 1e-3
#: Least variance that is believed.
_MIN_VARIANCE = 1e-6


class ForwardModel(StackEncoder):
    """MLP from ``frames`` consecutive observations and an action to the next observation.

    It predicts numbers: those of vectors in units of their spread in play, and those of pixels in [0, 1].

    :param sensors: shape of each sensor.
    :param frames: observations in a stack.
    :param actions: size A of an encoded action.
    :param predict_changes: whether the units are those of vectors' changes since the last observation. One action
        moves an observation by a small part of the spread that observations have, and errors in units of that hide it.
    :param hidden: width of the MLP.
    :param layers: hidden layers of the MLP.
    :param layer_norm: activation, see [`mlp`][].
    """

    #: Mean squared error of each number on held-out play; ones until the model is fitted.
    variance: Tensor

    def __init__(
        self,
        sensors: Mapping[str, SensorShape],
        frames: int,
        actions: int,
        *,
        predict_changes: bool,
        hidden: int,
        layers: int,
        layer_norm: bool,
    ) -> None:
        super().__init__(sensors, frames)
        self.predict_changes = predict_changes
        size = sum(self.vectors.values())
        self.images = {name: tuple(shape) for name, shape in sensors.items() if is_image(shape)}
        #: Size of each sensor: features of a vector, pixels times channels of an image.
        self.numbers = [*self.vectors.values(), *map(math.prod, self.images.values())]
        self.changes = Standardizer(size)
        self.register_buffer("variance", torch.ones(sum(self.numbers)))
        self.net = mlp(frames * self.size + actions, None, hidden, layers, layer_norm=layer_norm)
        self.head = nn.Linear(hidden, size) if self.vectors else None
        self.decoders = SensorModules(
            {
                name: ImageDecoder(hidden, shape, "patch", IMAGE_DEPTH, sigmoid=False)
                for name, shape in self.images.items()
            }
        )

    def fit_changes(self, changes: Tensor) -> None:
        """Set the units of predictions from the changes of vectors between records of play, standardised, (N, D)."""
        if self.vectors:
            self.changes.fit(changes, _LEAST_SPREAD)

    def errors(self, features: Tensor, actions: Tensor, next_observations: Mapping[str, Tensor]) -> Tensor:
        """Return the error (N, numbers) of each number that is predicted.

        :param features: encoded stacks (N, frames, E), oldest frame first.
        :param actions: encoded actions (N, A).
        :param next_observations: observations (N, *shape) of each sensor that followed.
        """
        hidden = self.net(torch.cat([features.flatten(1), actions], dim=-1))
        errors = []
        if self.head is not None:
            target = self.standardize(next_observations)
            if self.predict_changes:
                target = self.changes(target - features[:, -1, : target.shape[-1]])
            errors.append(self.head(hidden) - target)
        for name, decoder in self.decoders.items():
            target = as_floats(next_observations[name], self.images[name])
            errors.append((decoder(hidden) - target).flatten(1))
        return torch.cat(errors, dim=-1)

    def mean_square(self, errors: Tensor) -> Tensor:
        """Return the mean squared error of each sensor, summed over the sensors; scalar."""
        return torch.stack([part.square().mean() for part in errors.split(self.numbers, dim=-1)]).sum()

    def negative_log_likelihood(self, errors: Tensor) -> Tensor:
        """Return sum_i log(1 + e_i^2 / (4 v_i)), the mean over rows; scalar.

        Up to a factor and a constant that is -log p of a Cauchy distribution. Contacts make errors of heavy tails, and
        the square of the largest few would count for more than all others. v_i is the model's own mean squared error,
        or that of these rows where it is larger, as it is for a policy that has just begun: of errors far beyond the
        scale there is hardly a gradient, and such a policy would not learn.
        """
        squares = errors.square()
        scale = torch.maximum(self.variance, squares.detach().mean(0))
        return (squares / (4 * scale)).log1p().sum(-1).mean()

    def set_variance(self, variance: Tensor) -> None:
        """Set the mean squared error (numbers,) on held-out play."""
        self.variance.copy_(variance.clamp_min(_MIN_VARIANCE))
