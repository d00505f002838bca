"""Expert or agent: the discriminator of adversarial imitation, and the reward that is read off it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.standardizer import RunningStandardizer

#: Rewards as functions of the logit f = log p(expert) / p(agent); see :class:`Discriminator`.
REWARDS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "logit": lambda logit: logit,
    "positive": F.softplus,
    "negative": lambda logit: -F.softplus(-logit),
}
REGULARIZERS = ("gradient_penalty", "spectral_norm")

#: Share that is added to both sides of a ratio of shares: the logarithm stays within +-4.6.
_SMOOTHING = 0.01
#: Share of the agent's past that a new round keeps, when its terminations are counted.
_MEMORY = 0.75


class Discriminator(nn.Module):
    """An MLP whose logit f(x) > 0 says that x is the expert's, and the learned reward.

    Trained to the end by logistic regression on balanced batches, f is the log ratio of the two occupancies,

        f(x) = log rho_E(x) / rho(x),        D = sigmoid(f), the probability that x is the expert's.

    The reward of the agent grows with f, whatever its form:

        logit      f                           = log D - log(1 - D), as in AIRL; of either sign
        positive   softplus(f)   = -log(1 - D)   as in GAIL's code: every step pays, so staying alive does
        negative   -softplus(-f) =  log D        every step costs, so ending the episode pays

    (Papers that let D = 1 mean the agent write the last two as -log D and log(1 - D).)

    **Terminations.** The bias of the forms is about how episodes end: as long as a terminal state is worth zero, a
    positive reward pays for not reaching MountainCar's goal, a negative one for dropping CartPole's pole, and a
    constant in f does either. So an episode that terminates goes on in an absorbing state, for expert and agent alike
    (Kostrikov et al. 2019, arXiv 1809.02925), for the 1 / (1 - gamma) steps that the discount looks ahead. Being
    there is one bit, and so its part of f is known without a network. Let p_E and p be the shares of that state in both
    occupancies; then

        f(absorbing) = log p_E / p        f(x) = f_net(x) + log (1 - p_E) / (1 - p)

    with f_net trained on the other rows alone. The value of a terminal state is g(f(absorbing)) / (1 - gamma): high if
    the expert ends its episodes and the agent does not, low the other way round, for every form g. An episode that a
    time limit cuts has no such end; it is the generator's to bootstrap.

    The statistics that standardise x are those of the balanced batches, as they come: an expert hardly moves in some
    directions, and in units of the demonstrations' spread alone a beginner would be out of all bounds.

    :param inputs: features of x.
    :param reward: form g of the reward: ``logit``, ``positive`` or ``negative``.
    :param spectral: normalise the layers' spectral norm, instead of penalising gradients.
    """

    absorbing: Tensor
    expert_share: Tensor
    agent_steps: Tensor
    agent_ends: Tensor
    horizon: Tensor

    def __init__(self, inputs: int, *, hidden: int = 256, layers: int = 2, reward: str, spectral: bool) -> None:
        super().__init__()
        self.form = REWARDS[reward]
        self.standardizer = RunningStandardizer(inputs)
        modules: list[nn.Module] = []
        for width in [inputs] + [hidden] * (layers - 1):
            modules += [_linear(width, hidden, spectral), nn.Tanh()]
        modules.append(_linear(hidden, 1, spectral))
        self.net = nn.Sequential(*modules)
        # Whether episodes go on in the absorbing state; its share for the expert, and what the agent's is counted from.
        self.register_buffer("absorbing", torch.tensor(False))
        for name in ("expert_share", "agent_steps", "agent_ends", "horizon"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))
        self.eval()

    def forward(self, rows: Tensor) -> Tensor:
        """f_net of rows (N, D), as they come: (N,)."""
        return self.from_standardized(self.standardizer(rows))

    def from_standardized(self, rows: Tensor) -> Tensor:
        """f_net of rows (N, D) that are standardised already: (N,)."""
        out: Tensor = self.net(rows)
        return out.squeeze(-1)

    @torch.no_grad()
    def reward(self, rows: Tensor) -> Tensor:
        """g(f(x)) of rows (N, D): (N,)."""
        return self.form(self(rows) + _log_ratio(1 - float(self.expert_share), 1 - self.agent_share))

    def terminal_value(self) -> float:
        """What follows a termination, discounted from the first step in the absorbing state on."""
        if not self.absorbing:
            return 0.0
        logit = torch.tensor(_log_ratio(float(self.expert_share), self.agent_share))
        return float(self.horizon * self.form(logit))

    @property
    def agent_share(self) -> float:
        """Share p of the absorbing state in what the agent did of late."""
        return _share(float(self.agent_steps), float(self.agent_ends * self.horizon))

    def start(self, *, steps: int, ends: int, horizon: float, absorbing: bool) -> None:
        """Take the expert's side: its transitions, its terminations, and the steps that the discount looks ahead."""
        self.absorbing.fill_(absorbing)
        self.horizon.fill_(horizon if absorbing else 0.0)
        self.expert_share.fill_(_share(steps, ends * float(self.horizon)))

    def count(self, *, steps: int, ends: int) -> None:
        """Count a round of the agent: its transitions, and those that ended in a terminal state."""
        self.agent_steps.mul_(_MEMORY).add_(steps)
        self.agent_ends.mul_(_MEMORY).add_(ends)


def _linear(inputs: int, outputs: int, spectral: bool) -> nn.Module:
    layer = nn.Linear(inputs, outputs)
    return nn.utils.parametrizations.spectral_norm(layer) if spectral else layer


def _share(steps: float, absorbed: float) -> float:
    return absorbed / max(steps + absorbed, 1)


def _log_ratio(expert: float, agent: float) -> float:
    return math.log((expert + _SMOOTHING) / (agent + _SMOOTHING))


def discrimination_loss(expert: Tensor, agent: Tensor) -> Tensor:
    """Binary cross-entropy of the logits of both sides, each (N,); log 2 for a discriminator that knows nothing."""
    return 0.5 * (F.softplus(-expert).mean() + F.softplus(agent).mean())


def gradient_penalty(logit: Callable[[Tensor], Tensor], expert: Tensor, agent: Tensor, weight: Tensor) -> Tensor:
    """Mean max(0, |grad f(x)| - 1)^2 at x = weight * expert + (1 - weight) * agent.

    The one-sided form of Gulrajani et al. 2017 (arXiv 1704.00028, section 4): the two-sided one asks for a slope of one
    everywhere, and so for a preference where expert and agent are alike.

    :param logit: f of standardised rows.
    :param expert: standardised rows (N, D), and ``agent`` as many.
    :param weight: (N, 1), uniform in [0, 1].
    """
    between = (weight * expert + (1 - weight) * agent).detach().requires_grad_()
    (slope,) = torch.autograd.grad(logit(between).sum(), between, create_graph=True)  # (N, D)
    # The square root's own slope is infinite at zero.
    return (slope.square().sum(-1) + 1e-12).sqrt().sub(1).clamp_min(0).square().mean()
