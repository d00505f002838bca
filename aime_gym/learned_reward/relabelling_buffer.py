"""A replay buffer whose rewards are those of today."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from aime_gym.learned_reward.transitions import Transitions
from aime_gym.types import Array


class RelabellingReplayBuffer(ReplayBuffer):
    """Keeps transitions as the reward sees them; standardises and pays them when they are sampled.

    A learned reward changes while it is earned, and so do the statistics that standardise the policy's observations:
    what was stored with them would go stale.

    :param latest: the transitions of the last step of all environments, one each.
    :param standardize: flat observations (N, D) -> what the policy sees.
    :param pay: transitions -> rewards (N,), with what a termination is worth.
    """

    def __init__(
        self,
        *args: Any,
        latest: Callable[[], Transitions],
        standardize: Callable[[Tensor], Tensor],
        pay: Callable[[Transitions], Array],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._latest, self._standardize, self._pay = latest, standardize, pay

    def add(
        self, obs: Array, next_obs: Array, action: Array, reward: Array, done: Array, infos: list[dict[str, Any]]
    ) -> None:
        seen = self._latest()
        super().add(seen.obs.cpu().numpy(), seen.next_obs.cpu().numpy(), action, reward, done, infos)

    def _get_samples(self, batch_inds: Array, env: VecNormalize | None = None) -> ReplayBufferSamples:
        raw = super()._get_samples(batch_inds, None)
        terminated = raw.dones.squeeze(-1) > 0
        rewards = self._pay(Transitions(raw.observations, raw.actions, raw.next_observations, terminated))
        rewards = self._normalize_reward(np.asarray(rewards, np.float32), env)
        with torch.no_grad():
            return raw._replace(
                observations=self._standardize(raw.observations),
                next_observations=self._standardize(raw.next_observations),
                rewards=self.to_torch(rewards).reshape(-1, 1),
            )
