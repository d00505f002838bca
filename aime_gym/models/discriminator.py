"""Expert or agent: the discriminator of adversarial imitation, and the reward that is read off it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.flat_layout import FlatLayout
from aime_gym.models.images import ImageEncoder
from aime_gym.models.patch_discriminator import PatchSimilarity
from aime_gym.models.standardizer import RunningStandardizer

#: Rewards as functions of the logit f = log p(expert) / p(agent); see :class:`Discriminator`.
REWARDS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "logit": lambda logit: logit,
    "positive": F.softplus,
    "negative": lambda logit: -F.softplus(-logit),
}
REGULARIZERS = ("gradient_penalty", "spectral_norm")

#: Channels of the first layer of an image's encoder.
_DEPTH = 32
#: Share that is added to both sides of a ratio of shares: the logarithm stays within +-4.6.
_SMOOTHING = 0.01
#: Share of the agent's past that a new round keeps, when its terminations are counted.
_MEMORY = 0.75


class Discriminator(nn.Module):
    """A network whose logit f(x) > 0 says that x is the expert's, and the learned reward.

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
    directions, and in units of the demonstrations' spread alone a beginner would be out of all bounds. Images are
    numbers in [0, 1].

    :param inputs: features of x, or what they mean if there are images among them.
    :param net: from standardised rows to f_net (N, 1), or to the logits of P patches (N, P), whose mean f_net is; an
        MLP unless given.
    :param similarity: changes rewards (N,) by the logits of patches that they were read off.
    :param reward: form g of the reward: ``logit``, ``positive`` or ``negative``.
    :param spectral: normalise the layers' spectral norm, instead of penalising gradients.
    """

    absorbing: Tensor
    expert_share: Tensor
    agent_steps: Tensor
    agent_ends: Tensor
    effective_horizon: Tensor

    def __init__(
        self,
        inputs: int | FlatLayout,
        net: nn.Module | None = None,
        similarity: PatchSimilarity | None = None,
        *,
        hidden: int = 256,
        layers: int = 2,
        reward: str,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        self.form = REWARDS[reward]
        self.layout = inputs if isinstance(inputs, FlatLayout) else FlatLayout(inputs)
        self.standardizer = RunningStandardizer(self.layout.vectors)
        self.net = net if net is not None else logit_mlp(self.layout.vectors, hidden, layers)
        self.similarity = similarity
        if spectral:
            for part in [part for part in self.net.modules() if isinstance(part, nn.Linear | nn.Conv2d)]:
                nn.utils.parametrizations.spectral_norm(part)
        # Whether episodes go on in the absorbing state; its share for the expert, and what the agent's is counted from.
        self.register_buffer("absorbing", torch.tensor(False))
        for name in ("expert_share", "agent_steps", "agent_ends", "effective_horizon"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))
        self.eval()

    def forward(self, rows: Tensor) -> Tensor:
        """f_net of rows (N, D), as they come: (N,), or the logits of patches (N, P)."""
        return self.from_standardized(self.standardize(rows))

    def standardize(self, rows: Tensor) -> Tensor:
        """Rows (N, D) as the network sees them."""
        if not self.layout.images:
            standardized: Tensor = self.standardizer(rows)
            return standardized
        vectors, pixels = rows.split([self.layout.vectors, rows.shape[-1] - self.layout.vectors], dim=-1)
        pixels = pixels.to(torch.get_default_dtype()) / 255
        return torch.cat([self.standardizer(vectors), pixels], dim=-1) if self.layout.vectors else pixels

    def from_standardized(self, rows: Tensor) -> Tensor:
        """f_net of rows (N, D) that are standardised already: (N,), or the logits of patches (N, P)."""
        out: Tensor = self.net(rows)
        return out.squeeze(-1)

    @torch.no_grad()
    def reward(self, rows: Tensor) -> Tensor:
        """g(f(x)) of rows (N, D): (N,)."""
        logits = self(rows)
        logit = logits.mean(-1) if logits.ndim > 1 else logits
        rewards = self.form(logit + _log_ratio(1 - float(self.expert_share), 1 - self.agent_share))
        return rewards if self.similarity is None else self.similarity(rewards, logits)

    def terminal_value(self) -> float:
        """What follows a termination, discounted from the first step in the absorbing state on."""
        if not self.absorbing:
            return 0.0
        logit = torch.tensor(_log_ratio(float(self.expert_share), self.agent_share))
        return float(self.effective_horizon * self.form(logit))

    @property
    def agent_share(self) -> float:
        """Share p of the absorbing state in what the agent did of late."""
        return _share(float(self.agent_steps), float(self.agent_ends * self.effective_horizon))

    def start(self, *, steps: int, ends: int, effective_horizon: float, absorbing: bool) -> None:
        """Take the expert's side: its transitions, its terminations, and the steps that the discount looks ahead."""
        self.absorbing.fill_(absorbing)
        self.effective_horizon.fill_(effective_horizon if absorbing else 0.0)
        self.expert_share.fill_(_share(steps, ends * float(self.effective_horizon)))

    def count(self, *, steps: int, ends: int) -> None:
        """Count a round of the agent: its transitions, and those that ended in a terminal state."""
        self.agent_steps.mul_(_MEMORY).add_(steps)
        self.agent_ends.mul_(_MEMORY).add_(ends)


def logit_mlp(inputs: int, hidden: int, layers: int) -> nn.Sequential:
    """``layers`` x [Linear -> tanh], and a logit."""
    modules: list[nn.Module] = []
    for width in [inputs] + [hidden] * (layers - 1):
        modules += [nn.Linear(width, hidden), nn.Tanh()]
    return nn.Sequential(*modules, nn.Linear(hidden, 1))


class ImageLogit(nn.Module):
    """A logit of standardised vectors and images: encoders, and an MLP on all of it.

    :param kind: of the encoders; see :mod:`aime_gym.models.images`.
    """

    def __init__(self, layout: FlatLayout, kind: str, hidden: int, layers: int) -> None:
        super().__init__()
        self.layout = layout
        encoders = [ImageEncoder(shape, kind, _DEPTH) for shape in layout.images]
        self.encoders = nn.ModuleList(encoders)
        self.head = logit_mlp(layout.vectors + sum(encoder.size for encoder in encoders), hidden, layers)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (N, D), images in [0, 1] -> (N, 1)."""
        vectors, images = self.layout.split(rows)
        embeddings = [encoder(image) for encoder, image in zip(self.encoders, images, strict=True)]
        logit: Tensor = self.head(torch.cat([vectors, *embeddings], dim=-1))
        return logit


def _share(steps: float, absorbed: float) -> float:
    return absorbed / max(steps + absorbed, 1)


def _log_ratio(expert: float, agent: float) -> float:
    return math.log((expert + _SMOOTHING) / (agent + _SMOOTHING))


def discrimination_loss(expert: Tensor, agent: Tensor) -> Tensor:
    """Binary cross-entropy of both sides' logits, each (N,) or (N, P); log 2 for a discriminator that knows nothing."""
    return 0.5 * (F.softplus(-expert).mean() + F.softplus(agent).mean())


def gradient_penalty(logit: Callable[[Tensor], Tensor], expert: Tensor, agent: Tensor, weight: Tensor) -> Tensor:
    """Mean max(0, |grad f(x)| - 1)^2 at x = weight * expert + (1 - weight) * agent.

    The one-sided form of Gulrajani et al. 2017 (arXiv 1704.00028, section 4): the two-sided one asks for a slope of one
    everywhere, and so for a preference where expert and agent are alike. Of patches, f is the sum of their logits.

    :param logit: f of standardised rows.
    :param expert: standardised rows (N, D), and ``agent`` as many.
    :param weight: (N, 1), uniform in [0, 1].
    """
    between = (weight * expert + (1 - weight) * agent).detach().requires_grad_()
    (slope,) = torch.autograd.grad(logit(between).sum(), between, create_graph=True)  # (N, D)
    # The square root's own slope is infinite at zero.
    return (slope.square().sum(-1) + 1e-12).sqrt().sub(1).clamp_min(0).square().mean()
