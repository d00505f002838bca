"""The discriminator of adversarial imitation, which tells expert from agent, and the reward that is read off it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aime_gym.models.images import ImageEncoder
from aime_gym.models.patch_discriminator import PatchSimilarity
from aime_gym.models.standardizer import RunningStandardizer
from aime_gym.types import SensorShape

#: Rewards as functions of the logit f = log p(expert) / p(agent); see ``Discriminator``.
REWARDS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "logit": lambda logit: logit,
    "positive": F.softplus,
    "negative": lambda logit: -F.softplus(-logit),
}
#: Channels of the first layer of an image's encoder.
_DEPTH = 32
#: Share that is added to both sides of a ratio of shares: the logarithm stays within +-4.6.
_SMOOTHING = 0.01
#: Factor of the agent's earlier counts of steps and terminations, whenever new ones come.
_COUNT_DECAY = 0.75


class Discriminator(nn.Module):
    """A network whose logit f(x) > 0 says that x is the expert's, and the learned reward.

    Trained to the end by logistic regression on balanced batches, f is the log ratio of the two occupancies,

        f(x) = log rho_E(x) / rho(x),        D = sigmoid(f), the probability that x is the expert's.

    The reward of the agent grows with f, whatever its form:

        logit      f                           = log D - log(1 - D), as in AIRL; of either sign
        positive   softplus(f)   = -log(1 - D)   as in GAIL's code: above zero, so that staying alive is rewarded
        negative   -softplus(-f) =  log D        below zero, so that ending the episode is rewarded

    (Papers that let D = 1 mean the agent write the last two as -log D and log(1 - D).)

    **Terminations.** The bias of the forms is about how episodes end: as long as a terminal state is worth zero, a
    positive reward favours not reaching MountainCar's goal, a negative one dropping CartPole's pole, and a constant in
    f does either. So an episode that terminates goes on in an absorbing state, for expert and agent alike
    (Kostrikov et al. 2019, arXiv 1809.02925), for the 1 / (1 - gamma) steps that the discount looks ahead. Being
    there is one bit, and so its part of f is known without a network. Let p_E and p be the shares of that state in both
    occupancies; then

        f(absorbing) = log p_E / p        f(x) = f_net(x) + log (1 - p_E) / (1 - p)

    with f_net trained on the other rows alone. The value of a terminal state is g(f(absorbing)) / (1 - gamma): high if
    the expert ends its episodes and the agent does not, low the other way round, for every form g. An episode that a
    time limit cuts has no such end; there the RL algorithm bootstraps.

    The statistics that standardise x are those of the balanced batches, as they come: an expert hardly moves in some
    directions, and in units of the demonstrations' spread alone a beginner would be out of all bounds.

    The methods take x as one tensor or several: vectors (N, V), images (N, C, H, W) of bytes, or vectors and images.

    :param vectors: V; 0 for images alone.
    :param net: network from standardised x to f_net (N, 1), or to the logits of P patches (N, P), whose mean f_net is;
        an MLP on vectors unless given.
    :param similarity: weight of rewards by the logits of patches that they were read off.
    :param reward: form g of the reward: ``logit``, ``positive`` or ``negative``.
    """

    absorbing: Tensor
    expert_share: Tensor
    agent_steps: Tensor
    agent_terminations: Tensor
    effective_horizon: Tensor

    def __init__(
        self,
        vectors: int,
        net: nn.Module | None = None,
        similarity: PatchSimilarity | None = None,
        *,
        hidden: int = 256,
        layers: int = 2,
        reward: str,
    ) -> None:
        super().__init__()
        self.reward_form = REWARDS[reward]
        self.standardizer = RunningStandardizer(vectors)
        self.net = net if net is not None else logit_mlp(vectors, hidden, layers)
        self.similarity = similarity
        # Whether episodes go on in the absorbing state; its share for the expert, and what the agent's is counted from.
        self.register_buffer("absorbing", torch.tensor(False))
        for name in ("expert_share", "agent_steps", "agent_terminations", "effective_horizon"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return f_net of x: (N,), or the logits of patches (N, P)."""
        return self.from_standardized(*self.standardize(*inputs))

    def standardize(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return vectors in units of their spread, and images in [0, 1]."""
        dtype = torch.get_default_dtype()
        return tuple(self.standardizer(part) if part.ndim == 2 else part.to(dtype) / 255 for part in inputs)

    def from_standardized(self, *inputs: Tensor) -> Tensor:
        """Return f_net of x that is standardised already: (N,), or the logits of patches (N, P)."""
        out: Tensor = self.net(*inputs)
        return out.squeeze(-1)

    @torch.no_grad()
    def reward(self, *inputs: Tensor) -> Tensor:
        """Return g(f(x)), (N,)."""
        logits = self(*inputs)
        logit = logits.mean(-1) if logits.ndim > 1 else logits
        rewards = self.reward_form(logit + _log_ratio(1 - float(self.expert_share), 1 - self.agent_share))
        return rewards if self.similarity is None else self.similarity(rewards, logits)

    def terminal_value(self) -> float:
        """Return the value of a terminal state, discounted from the first step in the absorbing state on."""
        if not self.absorbing:
            return 0.0
        logit = torch.tensor(_log_ratio(float(self.expert_share), self.agent_share))
        return float(self.effective_horizon * self.reward_form(logit))

    @property
    def agent_share(self) -> float:
        """Share p of the absorbing state in the agent's recent steps."""
        return _share(float(self.agent_steps), float(self.agent_terminations * self.effective_horizon))

    def set_expert(self, *, steps: int, terminations: int, effective_horizon: float, absorbing: bool) -> None:
        """Set the expert's share of the absorbing state.

        :param steps: number of the demonstrations' transitions, and ``terminations`` of those into a terminal state.
        :param effective_horizon: steps that the discount looks ahead, 1 / (1 - gamma).
        :param absorbing: whether there is an absorbing state.
        """
        self.absorbing.fill_(absorbing)
        self.effective_horizon.fill_(effective_horizon if absorbing else 0.0)
        self.expert_share.fill_(_share(steps, terminations * float(self.effective_horizon)))

    def count_agent(self, *, steps: int, terminations: int) -> None:
        """Count the agent's latest transitions, and those into a terminal state."""
        self.agent_steps.mul_(_COUNT_DECAY).add_(steps)
        self.agent_terminations.mul_(_COUNT_DECAY).add_(terminations)


def logit_mlp(inputs: int, hidden: int, layers: int) -> nn.Sequential:
    """Make ``layers`` x [Linear -> tanh], and a logit."""
    modules: list[nn.Module] = []
    for width in [inputs] + [hidden] * (layers - 1):
        modules += [nn.Linear(width, hidden), nn.Tanh()]
    return nn.Sequential(*modules, nn.Linear(hidden, 1))


class ImageLogit(nn.Module):
    """A logit of standardised vectors, if any, and images: encoders, and an MLP on all of it.

    :param vectors: size V; 0 for images alone.
    :param images: shape (C, H, W) of each image.
    :param kind: kind of the encoders; see [`images`][].
    """

    def __init__(self, vectors: int, images: Sequence[SensorShape], kind: str, hidden: int, layers: int) -> None:
        super().__init__()
        encoders = [ImageEncoder((height, width, channels), kind, _DEPTH) for channels, height, width in images]
        self.encoders = nn.ModuleList(encoders)
        self.head = logit_mlp(vectors + sum(encoder.size for encoder in encoders), hidden, layers)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Vectors (N, V) and images (N, C, H, W) in [0, 1] -> (N, 1)."""
        images = inputs[-len(self.encoders) :]
        embeddings = [encoder(image.movedim(1, -1)) for encoder, image in zip(self.encoders, images, strict=True)]
        logit: Tensor = self.head(torch.cat([*inputs[: -len(self.encoders)], *embeddings], dim=-1))
        return logit


def _share(steps: float, absorbed: float) -> float:
    return absorbed / max(steps + absorbed, 1)


def _log_ratio(expert: float, agent: float) -> float:
    return math.log((expert + _SMOOTHING) / (agent + _SMOOTHING))


def discrimination_loss(expert: Tensor, agent: Tensor) -> Tensor:
    """Return the binary cross-entropy of both sides' logits, each (N,) or (N, P); log 2 for an untrained network."""
    return 0.5 * (F.softplus(-expert).mean() + F.softplus(agent).mean())


def gradient_penalty(
    logit: Callable[..., Tensor], expert: Sequence[Tensor], agent: Sequence[Tensor], weight: Tensor
) -> Tensor:
    """Return the mean of max(0, |grad f(x)| - 1)^2 at x = weight * expert + (1 - weight) * agent.

    The one-sided form of Gulrajani et al. 2017 (arXiv 1704.00028, section 4): the two-sided one asks for a slope of one
    everywhere, and so for a preference where expert and agent are alike. Of patches, f is the sum of their logits.

    :param logit: f of the parts of a standardised x.
    :param expert: parts of the expert's x, vectors (N, V) or images (N, C, H, W); ``agent`` has as many.
    :param weight: weights (N, 1), uniform in [0, 1].
    """

    def interpolate(theirs: Tensor, own: Tensor) -> Tensor:
        share = weight.view(-1, *[1] * (own.ndim - 1))
        return (share * theirs + (1 - share) * own).detach().requires_grad_()

    between = [interpolate(*sides) for sides in zip(expert, agent, strict=True)]
    slopes = torch.autograd.grad(logit(*between).sum(), between, create_graph=True)
    squares = torch.stack([slope.square().flatten(1).sum(-1) for slope in slopes]).sum(0)  # (N,)
    # The square root's own slope is infinite at zero.
    return (squares + 1e-12).sqrt().sub(1).clamp_min(0).square().mean()
