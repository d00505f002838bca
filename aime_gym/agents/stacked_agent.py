"""Agents whose policy acts on a stack of the last observations: BC, BCO and IIDM."""

from __future__ import annotations

import torch
from torch import Tensor

from aime_gym.agents.base import ImitationAgent
from aime_gym.models.stacked import StackedNetwork
from aime_gym.training.supervised import StackedConfig


class StackedAgent(ImitationAgent):
    """Acts by a network on a stack of observations; subclasses say how it learns."""

    config: StackedConfig
    policy: StackedNetwork

    def _stacked_network(self, frames: int) -> StackedNetwork:
        """Make a network from stacks of ``frames`` observations to encoded actions."""
        return StackedNetwork(
            self.observation_encoding.shapes,
            frames,
            self.action_encoding.size,
            discrete=self.action_encoding.discrete,
            **self.policy_kwargs,
        )

    def _fresh_policy(self) -> StackedNetwork:
        """Make a policy with the weights that the agent's seed gives it."""
        with self._initial_weights():
            return self._stacked_network(self.config.stack).to(self.device)

    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return self.policy.initial_state(observation)

    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.policy.step(observation, state, generator)
