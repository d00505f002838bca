"""Sources of actions for the RSSM's pass over time (:class:`~aime_gym.models.rssm.ActionSource`)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.policies import LatentPolicy
from aime_gym.models.rssm import State


@dataclass(frozen=True)
class RecordedActions:
    """Recorded actions (T, B, A): phase 1."""

    prev_actions: Tensor

    def __call__(self, t: int, state: State) -> Tensor:
        return self.prev_actions[t]


@dataclass(frozen=True)
class PolicyActions:
    """Actions of a policy, a_{t-1} ~ pi(a | [h, s]_{t-1}): phase 2.

    :param noise: standard normal noise (T, B, A); zeros give the policy's mode.
    :param first_action: action (B, A) that led to the first observation; ``None`` takes it from the policy too, in the
        zero state before that observation, as the authors do.
    """

    policy: LatentPolicy
    noise: Tensor
    first_action: Tensor | None = None

    def __call__(self, t: int, state: State) -> Tensor:
        if t == 0 and self.first_action is not None:
            return self.first_action
        return self.policy(state.feature).rsample(self.noise[t])


@dataclass(frozen=True)
class InverseActions:
    """Mean actions of an inverse model: the warm start.

    :param changes: changes o_t - o_{t-1} (T, B, D) of the observations that are filtered.
    """

    model: LatentInverseModel
    changes: Tensor

    def __call__(self, t: int, state: State) -> Tensor:
        actions: Tensor = self.model(state.feature, self.changes[t])
        # No action leads to an episode's first observation.
        return actions if t else actions.new_zeros(actions.shape)
