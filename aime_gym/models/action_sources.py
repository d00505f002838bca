"""Sources of actions for the one pass over time (:class:`~aime_gym.models.rssm.ActionSource`)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.policies import LatentPolicy
from aime_gym.models.rssm import State


@dataclass(frozen=True)
class RecordedActions:
    """Phase 1: the actions of the record, (T, B, A)."""

    prev_actions: Tensor

    def __call__(self, t: int, state: State) -> Tensor:
        return self.prev_actions[t]


@dataclass(frozen=True)
class PolicyActions:
    """Phase 2: a_{t-1} ~ pi(a | [h, s]_{t-1}).

    :param noise: (T, B, A) standard normal; zeros act with the mode.
    :param first: (B, A), what led to the first observation. ``None`` asks the policy there too, on the zero state that
        comes before it, as the authors do.
    """

    policy: LatentPolicy
    noise: Tensor
    first: Tensor | None = None

    def __call__(self, t: int, state: State) -> Tensor:
        if t == 0 and self.first is not None:
            return self.first
        return self.policy(state.feature).rsample(self.noise[t])


@dataclass(frozen=True)
class InverseActions:
    """Warm start: what an inverse model believes led to each observation, the mean of its belief.

    :param changes: (T, B, D), of the observations that are filtered, against the one before.
    """

    model: LatentInverseModel
    changes: Tensor

    def __call__(self, t: int, state: State) -> Tensor:
        actions: Tensor = self.model(state.feature, self.changes[t])
        # Nothing led to an episode's first observation.
        return actions if t else actions.new_zeros(actions.shape)
