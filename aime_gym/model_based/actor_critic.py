"""Actor and critic in imagination: the world model's prior as the environment (Dreamer, Hafner et al. 2020).

    s_k ~ p(s_k | h_k), a_k ~ pi(a | s_k)          k = 0 ... H, from a filtered state of the data
    R_k = r_{k+1} + d_{k+1} [(1 - lambda) V'(s_{k+1}) + lambda R_{k+1}],     R_H = V'(s_H)
    policy   maximise mean_k w_k R_k, through the dynamics,      w_k = d_1 ... d_k
    value    minimise 1/2 mean_k w_k (V(s_k) - R_k)^2

with ``r_{k+1}`` the reward on arriving at ``s_{k+1}``, ``d = gamma (1 - p_terminal)`` and V' a slow copy of V.

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
from aime_gym.models.policies import LatentPolicy
from aime_gym.models.rssm import RSSM, State
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Metrics


class ImaginedRollout(NamedTuple):
    """A rollout of the prior under a policy, H steps from N states."""

    states: State  # (H + 1, N, ...), the states that it started from first
    actions: Tensor  # (H, N, A)
    policy_prior_kl: Tensor  # (H, N), how far the policy is from a broad one

    @property
    def features(self) -> Tensor:
        """[h, s], (H + 1, N, F)."""
        return self.states.feature


#: Rewards (H, N) on arriving at the states 1 ... H of a rollout.
RewardFunction = Callable[[ImaginedRollout], Tensor]


class ActionNoise(Protocol):
    """Standard normal noise of a shape."""

    def __call__(self, *shape: int) -> Tensor: ...


def imagine(rssm: RSSM, policy: LatentPolicy, start: State, horizon: int, noise: ActionNoise) -> ImaginedRollout:
    """Roll the prior forward under the policy's samples.

    The policy sees its input without a gradient, as in the authors' code: what an action does to the return flows
    through the dynamics alone.

    :param start: (N, ...).
    """
    state, count = start, len(start.deter)
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
    """States (N, ...) that rollouts start from.

    :param states: (T, B, ...).
    :param valid: (T, B), which of them may be drawn.
    :param count: the greatest N; ``None`` takes all.
    """
    deter, stoch = states.deter[valid], states.stoch[valid]
    if count is not None and len(deter) > count:
        chosen = torch.randperm(len(deter), generator=generator)[:count]
        deter, stoch = deter[chosen], stoch[chosen]
    return State(deter, stoch)


def lambda_returns(rewards: Tensor, discounts: Tensor, values: Tensor, td_lambda: float) -> Tensor:
    """TD(lambda) returns R_0 ... R_{H-1}, (H, ...).

    :param rewards: (H, ...), on arriving at the states 1 ... H.
    :param discounts: (H, ...), of those states.
    :param values: (H, ...), of those states.
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

    :param imagination_horizon: steps H.
    :param imagination_starts: states that a rollout starts from, drawn from those of the data; ``None`` takes all.
    :param gamma: discount per step of the agent.
    :param td_lambda: lambda of TD(lambda).
    :param entropy_weight: of the policy's distance from a broad one, subtracted from its return.
    :param target_decay: of the slow copy; the paper's 0.95 (its code 0.99).
    :param value_learning_rate: of the value network; the papers' 8e-5 is for hundreds of thousands of updates.
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
    """A rollout and what it is worth."""

    imagined: ImaginedRollout
    rewards: Tensor  # (H, N)
    returns: Tensor  # (H, N), differentiable through the dynamics
    weights: Tensor  # (H, N), the chance that the task is still going on, discounted

    def policy_loss(self, entropy_weight: float) -> Tensor:
        """Scalar: minus the return, and the policy's distance from a broad one."""
        return -(self.weights * self.returns).mean() + entropy_weight * self.imagined.policy_prior_kl.mean()


class Critic:
    """Judges rollouts, and learns to.

    :param features: size of a latent feature.
    """

    def __init__(self, features: int, config: ImaginationConfig, device: torch.device) -> None:
        self.config = config
        self.value = ScalarHead(features).to(device)
        self.target = TargetNetwork(self.value, ScalarHead(features).to(device), config.target_decay)
        self.optimizer = Optimizer([self.value], config.value_learning_rate)

    def evaluate(self, imagined: ImaginedRollout, rewards: Tensor, alive: Tensor) -> EvaluatedRollout:
        """The returns of a rollout.

        :param rewards: (H, N), on arriving at its states 1 ... H.
        :param alive: (H, N), the probability that the task goes on from there.
        """
        discounts = self.config.gamma * alive
        returns = lambda_returns(rewards, discounts, self.target(imagined.features[1:]), self.config.td_lambda)
        before = torch.cat([torch.ones_like(discounts[:1]), discounts[:-1]]).detach()
        return EvaluatedRollout(imagined, rewards, returns, before.cumprod(0))

    def update(self, rollout: EvaluatedRollout) -> Metrics:
        """One step of the value network, and of its slow copy after it."""
        returns = rollout.returns.detach()
        error = self.value(rollout.imagined.features[:-1].detach()) - returns
        loss = 0.5 * (rollout.weights * error.square()).mean()
        self.optimizer.step(loss)
        self.target.polyak_update(self.value)
        return {"value_loss": loss.detach(), "return": returns.mean()}

    def state_dict(self) -> dict[str, Any]:
        """Weights and moments."""
        return {"value": self.optimizer.state_dict(), "target": self.target.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.optimizer.load_state_dict(state["value"])
        self.target.load_state_dict(state["target"])
