"""A replay buffer whose rewards are those of the moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, TensorDict
from stable_baselines3.common.vec_env import VecNormalize

from aime_gym.learned_reward.transitions import Transitions
from aime_gym.types import Array


class RelabellingReplayBuffer(DictReplayBuffer):
    """A replay buffer that rewards transitions anew whenever they are sampled: the reward has learnt since.

    :param relabel: function from transitions to rewards (N,), with the value of a termination.
    :param augment: function from sampled observations to those that the algorithm learns from.
    """

    def __init__(
        self,
        *args: Any,
        relabel: Callable[[Transitions], Array],
        augment: Callable[[TensorDict], TensorDict],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._relabel, self._augment = relabel, augment

    def state_dict(self) -> dict[str, Any]:
        """Return the stored transitions: tensors that share the buffer's memory, up to the last one stored."""
        size = self.size()
        stored = {name: torch.from_numpy(values[:size]) for name, values in self._arrays().items()}
        return {"stored": stored, "pos": self.pos, "full": self.full}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Store the transitions of a state, in a buffer of the same size."""
        for name, values in self._arrays().items():
            values[: len(state["stored"][name])] = state["stored"][name].numpy()
        self.pos, self.full = state["pos"], state["full"]

    def _arrays(self) -> dict[str, Array]:
        """Return the arrays of the buffer, (buffer_size, n_envs, ...)."""
        arrays = {name: getattr(self, name) for name in ("actions", "rewards", "dones", "timeouts")}
        for group in ("observations", "next_observations"):
            arrays |= {f"{group}/{name}": values for name, values in getattr(self, group).items()}
        return arrays

    def _get_samples(  # type: ignore[override]
        self, batch_inds: Array, env: VecNormalize | None = None
    ) -> DictReplayBufferSamples:
        stored = super()._get_samples(batch_inds, None)
        terminated = stored.dones.squeeze(-1) > 0
        rewards = self._relabel(Transitions(stored.observations, stored.actions, stored.next_observations, terminated))
        rewards = self._normalize_reward(np.asarray(rewards, np.float32), env)
        return stored._replace(
            observations=self._augment(stored.observations),
            next_observations=self._augment(stored.next_observations),
            rewards=self.to_torch(rewards).reshape(-1, 1),
        )
