"""What the expert would see next: the internal model of IMRL, and the rewards that are read off it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from aime_gym.models.distributions import Normal
from aime_gym.models.networks import mlp
from aime_gym.models.standardizer import RunningStandardizer


def _error(expected: Normal, change: Tensor) -> Tensor:
    return (change - expected.mean).square().mean(-1).sqrt()


#: Log-density of a change that the expert never makes: without it, one step could cost more than all others.
_FLOOR = torch.tensor(-4.0)
#: Rewards (N,) as functions of p(s' | s) and s', (N, D) each; see :class:`NextStateModel`.
REWARDS: Mapping[str, Callable[[Normal, Tensor], Tensor]] = {
    "tanh": lambda expected, change: -10 * _error(expected, change).tanh(),
    "exp": lambda expected, change: (-_error(expected, change).square()).exp(),
    "likelihood": lambda expected, change: torch.logaddexp(expected.log_prob(change), _FLOOR).mean(-1),
}

#: Bounds of log sigma: from a fiftieth of the changes' spread to three times it.
_MIN_LOG_STD, _MAX_LOG_STD = math.log(0.02), math.log(3)


class NextStateModel(nn.Module):
    """p(s' | s) of the expert, a Gaussian around theta(s), and the reward of reaching another state.

    The network predicts the change s' - s, in units of the size that each feature's changes have in the
    demonstrations: beside the states' own spread, what one action does is lost. Every form of the reward is greatest at
    s' = theta(s) and falls with the error e = || s' - theta(s) || / sqrt(D):

        tanh         -10 tanh(e)           as in the paper's experiments: every step but a perfect one costs
        exp          exp(-e^2)             every step pays
        likelihood   log p(s' | s) / D     so that the sum is the log-likelihood of the trajectory under the expert

    Under the first two, staying where the expert's mean change is zero, because it goes both ways there, is as good as
    imitating; the likelihood knows that sigma is large there.

    :param observation: features D of a state.
    :param reward: form of the reward: ``tanh``, ``exp`` or ``likelihood``.
    """

    def __init__(self, observation: int, *, hidden: int, layers: int, reward: str) -> None:
        super().__init__()
        self.form = REWARDS[reward]
        self.states, self.changes = RunningStandardizer(observation), RunningStandardizer(observation)
        self.net = mlp(observation, 2 * observation, hidden, layers, layer_norm=False)

    def fit_standardizer(self, obs: Tensor, next_obs: Tensor, generator: torch.Generator) -> None:
        """Take the units from the demonstrations' transitions (N, D)."""
        self.states.update(obs)
        changes = next_obs - obs
        self.changes.update(torch.cat([changes, -changes]))  # root mean square: a steady change has no spread

    def forward(self, obs: Tensor) -> Normal:
        """The expert's change from states (N, D), in units of its spread."""
        mean, log_std = self.net(self.states(obs)).chunk(2, dim=-1)
        middle, reach = (_MAX_LOG_STD + _MIN_LOG_STD) / 2, (_MAX_LOG_STD - _MIN_LOG_STD) / 2
        return Normal(mean, (middle + reach * log_std.tanh()).exp())

    def loss(self, obs: Tensor, next_obs: Tensor, generator: torch.Generator) -> Tensor:
        """-log p(s' | s) of the expert's transitions, per feature; scalar."""
        return -self(obs).log_prob(self.changes(next_obs - obs)).mean()

    def reward(self, obs: Tensor, next_obs: Tensor) -> Tensor:
        """Rewards (N,) of transitions (N, D)."""
        return self.form(self(obs), self.changes(next_obs - obs))
