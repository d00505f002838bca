"""The internal model of IMRL: where the expert would go next, and the reward of going there."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from aime_gym.models.distributions import Normal
from aime_gym.models.networks import mlp
from aime_gym.models.standardizer import RunningStandardizer

#: Log-density of a change that the expert never makes: without it, one step could cost more than all others.
_FLOOR = torch.tensor(-4.0)
#: Bounds of log sigma: from a fiftieth of the changes' spread to three times it.
_MIN_LOG_STD, _MAX_LOG_STD = math.log(0.02), math.log(3)


class NextStateModel(nn.Module):
    """p(s' | s) of the expert, a Gaussian around theta(s), and the reward log p(s' | s) / D.

    The network predicts the change s' - s, in units of the size that each feature's changes have in the
    demonstrations: beside the states' own spread, what one action does is lost. The sum of rewards is the
    log-likelihood of the trajectory under the expert. The reward is greatest at s' = theta(s), and where the expert's
    mean change is zero because it goes both ways, staying is no better than either: sigma is large there.

    :param size: features D of a state.
    """

    def __init__(self, size: int, *, hidden: int, layers: int) -> None:
        super().__init__()
        self.states = RunningStandardizer(size)
        self.changes = RunningStandardizer(size)
        self.net = mlp(size, 2 * size, hidden, layers, layer_norm=False)

    def fit_standardizer(self, obs: Tensor, next_obs: Tensor, generator: torch.Generator) -> None:
        """Take the units from the demonstrations' transitions (N, D)."""
        self.states.update(obs)
        changes = next_obs - obs
        self.changes.update(torch.cat([changes, -changes]))  # root mean square: a steady change has no spread

    def forward(self, obs: Tensor) -> Normal:
        """Predict the expert's change from states (N, D), in units of its spread."""
        mean, log_std = self.net(self.states(obs)).chunk(2, dim=-1)
        middle, reach = (_MAX_LOG_STD + _MIN_LOG_STD) / 2, (_MAX_LOG_STD - _MIN_LOG_STD) / 2
        return Normal(mean, (middle + reach * log_std.tanh()).exp())

    def loss(self, obs: Tensor, next_obs: Tensor, generator: torch.Generator) -> Tensor:
        """Return -log p(s' | s) of the expert's transitions, per feature; scalar."""
        return -self(obs).log_prob(self.changes(next_obs - obs)).mean()

    def reward(self, obs: Tensor, next_obs: Tensor) -> Tensor:
        """Return rewards (N,) of transitions (N, D)."""
        return torch.logaddexp(self(obs).log_prob(self.changes(next_obs - obs)), _FLOOR).mean(-1)
