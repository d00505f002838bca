"""Actor and critic in imagination: the world model's prior as the environment (Dreamer, Hafner et al. 2020).

    s_k ~ p(s_k | h_k), a_k ~ pi(a | s_k)          k = 0 ... H, from a filtered state of the data
    R_k = r_{k+1} + d_{k+1} [(1 - lambda) V'(s_{k+1}) + lambda R_{k+1}],     R_H = V'(s_H)
    policy   maximise mean_k w_k R_k, through the dynamics,      w_k = d_1 ... d_k
    value    minimise 1/2 mean_k w_k (V(s_k) - R_k)^2

with ``r_{k+1}`` the reward on arriving at ``s_{k+1}``, ``d = gamma (1 - p_terminal)`` and V' the target network of V.

Where AIME-v2 and its code differ: the value of a state excludes the reward of that state, as in Eq. 6 (the code adds
it: another name for the same returns); the squared error is halved and weighted by w, as in the code, since what
follows a terminal state is not part of the task (Eq. 7 has neither).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from aime_gym.config import MAX_RECORDS, MAX_ROWS, check_bounds
from aime_gym.models.heads import ScalarHead, TargetNetwork
from aime_gym.models.policies import CategoricalPolicy, LatentPolicy
from aime_gym.models.rssm import RSSM, State
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Metrics


class ImaginedRollout(NamedTuple):
    """Rollout of the prior under a policy, H steps from N states."""

    states: State  # (H + 1, N, ...), with the first states in front
    actions: Tensor  # (H, N, A)
    policy_prior_kl: Tensor  # (H, N), how far the policy is from a broad one

    @property
    def features(self) -> Tensor:
        """Latent features [h, s], (H + 1, N, F)."""
        return self.states.feature


#: Rewards (H, N) on arriving at the states 1 ... H of a rollout.
RewardFunction = Callable[[ImaginedRollout], Tensor]


class ActionNoise(Protocol):
    """Source of standard normal noise of a shape."""

    def __call__(self, *shape: int) -> Tensor: ...


def imagine(rssm: RSSM, policy: LatentPolicy, start: State, horizon: int, noise: ActionNoise) -> ImaginedRollout:
    """Roll the prior forward under the policy's samples.

    The policy sees its input without a gradient, as in the authors' code: what an action does to the return flows
    through the dynamics alone.

    :param start: latent states (N, ...) to start from.
    :param horizon: number H of steps.
    :param noise: source of standard normal noise.
    """
    state = start
    count = len(start.deter)
    deters, stochs, actions, kls = [state.deter], [state.stoch], [], []
    for _ in range(horizon):
        choice = policy(state.feature.detach())
        action = choice.rsample(noise(count, rssm.action_size))
        h = rssm.transition(state, action)
        state = State(h, rssm.prior(h).rsample(noise(count, rssm.config.stoch)))
        deters.append(state.deter)
        stochs.append(state.stoch)
        actions.append(action)
        kls.append(choice.prior_kl())
    return ImaginedRollout(State(torch.stack(deters), torch.stack(stochs)), torch.stack(actions), torch.stack(kls))


def draw_starts(states: State, valid: Tensor, count: int | None, generator: torch.Generator) -> State:
    """Draw the states (N, ...) that rollouts start from.

    :param states: filtered states (T, B, ...).
    :param valid: mask (T, B) of those that may be drawn.
    :param count: greatest N; ``None`` takes all.
    """
    deter, stoch = states.deter[valid], states.stoch[valid]
    if count is not None and len(deter) > count:
        chosen = torch.randperm(len(deter), generator=generator)[:count]
        deter, stoch = deter[chosen], stoch[chosen]
    return State(deter, stoch)


def lambda_returns(rewards: Tensor, discounts: Tensor, values: Tensor, td_lambda: float) -> Tensor:
    """Compute the TD(lambda) returns R_0 ... R_{H-1}, (H, ...).

    :param rewards: rewards (H, ...) on arriving at the states 1 ... H.
    :param discounts: discounts (H, ...) of those states.
    :param values: values (H, ...) of those states.
    :param td_lambda: lambda of TD(lambda); 0 looks one step ahead, 1 to the end.
    """
    returns, following = [], values[-1]
    for reward, discount, value in zip(
        reversed(rewards.unbind()), reversed(discounts.unbind()), reversed(values.unbind()), strict=True
    ):
        following = reward + discount * ((1 - td_lambda) * value + td_lambda * following)
        returns.append(following)
    return torch.stack(returns[::-1])


@dataclass(frozen=True)
class ImaginationConfig:
    """Hyper-parameters of actor and critic.

    :param imagination_horizon: number H of steps of a rollout.
    :param imagination_starts: number of states that rollouts start from, drawn from the data; ``None`` takes all.
    :param gamma: discount per step of the agent.
    :param td_lambda: lambda of TD(lambda).
    :param entropy_weight: weight of the policy's distance from a broad one, subtracted from its return.
    :param target_decay: share of itself that the target network keeps at each update; 0.95 in the paper, 0.99 in its
        code.
    :param value_learning_rate: Adam's learning rate for the value network; the papers' 8e-5 is for hundreds of
        thousands of updates.
    """

    imagination_horizon: int = 15
    imagination_starts: int | None = 512
    gamma: float = 0.99
    td_lambda: float = 0.95
    entropy_weight: float = 1e-4
    target_decay: float = 0.95
    value_learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        check_bounds(
            self,
            imagination_horizon=(1, MAX_RECORDS),
            imagination_starts=(1, MAX_ROWS),
            gamma=(0, 1),
            td_lambda=(0, 1),
            entropy_weight=(0, None),
            target_decay=(0, 1),
            value_learning_rate=(0, None),
        )


class EvaluatedRollout(NamedTuple):
    """Rollout with its rewards and returns."""

    imagined: ImaginedRollout
    rewards: Tensor  # (H, N)
    returns: Tensor  # (H, N), differentiable through the dynamics
    weights: Tensor  # (H, N), the probability that the task has not ended, discounted

    def policy_loss(self, entropy_weight: float) -> Tensor:
        """Return the loss of the policy: minus the return, plus its distance from a broad policy. A scalar."""
        return -(self.weights * self.returns).mean() + entropy_weight * self.imagined.policy_prior_kl.mean()


def reinforce_loss(
    policy: CategoricalPolicy, rollout: EvaluatedRollout, baseline: Tensor, entropy_weight: float
) -> Tensor:
    """Return the loss of a policy of one-hot actions by REINFORCE (Williams 1992), where no gradient passes a rollout.

    Advantages R_k - V'(s_k) are normalised over the batch, as in DITTO's code.

    :param baseline: values (H, N) of the states 0 ... H - 1.
    :param entropy_weight: weight of the policy's distance from a broad one.
    :return: a scalar.
    """
    imagined, weights = rollout.imagined, rollout.weights
    advantages = (rollout.returns - baseline).detach()
    counted = advantages[weights > 0]
    advantages = (advantages - counted.mean()) / counted.std(correction=0).clamp_min(1e-6)
    choice = policy(imagined.features[:-1].detach())
    gain = choice.log_prob(imagined.actions.detach()) * advantages
    return -(weights * gain).mean() + entropy_weight * choice.prior_kl().mean()


class Critic:
    """Value network and its target network, which evaluate rollouts.

    :param features: size of a latent feature.
    """

    def __init__(self, features: int, config: ImaginationConfig, device: torch.device) -> None:
        self.config = config
        self.value = ScalarHead(features).to(device)
        self.target = TargetNetwork(self.value, ScalarHead(features).to(device), config.target_decay)
        self.optimizer = Optimizer([self.value], config.value_learning_rate)

    def evaluate(self, imagined: ImaginedRollout, rewards: Tensor, alive: Tensor) -> EvaluatedRollout:
        """Compute the returns of a rollout.

        :param rewards: rewards (H, N) on arriving at its states 1 ... H.
        :param alive: probability (H, N) that the task continues from those states.
        """
        discounts = self.config.gamma * alive
        returns = lambda_returns(rewards, discounts, self.target(imagined.features[1:]), self.config.td_lambda)
        before = torch.cat([torch.ones_like(discounts[:1]), discounts[:-1]]).detach()
        return EvaluatedRollout(imagined, rewards, returns, before.cumprod(0))

    def update(self, rollout: EvaluatedRollout) -> Metrics:
        """Take one step of the value network, and of its target network after it."""
        returns = rollout.returns.detach()
        error = self.value(rollout.imagined.features[:-1].detach()) - returns
        loss = 0.5 * (rollout.weights * error.square()).mean()
        self.optimizer.step(loss)
        self.target.polyak_update(self.value)
        return {"value_loss": loss.detach(), "return": returns.mean()}

    def state_dict(self) -> dict[str, Any]:
        """Return weights and moments."""
        return {"value": self.optimizer.state_dict(), "target": self.target.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over weights and moments."""
        self.optimizer.load_state_dict(state["value"])
        self.target.load_state_dict(state["target"])
