"""The base of agents whose policy acts in the latent space of a world model."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from aime_gym.agents.base import ImitationAgent
from aime_gym.model_based.predict import act_in_latents, initial_memory
from aime_gym.models.policies import LatentPolicy, make_latent_policy
from aime_gym.models.world_model import WorldModel


class LatentPolicyAgent(ImitationAgent):
    """An agent that filters observations with a world model, and acts by a policy on the latent states."""

    world_model: WorldModel
    policy: LatentPolicy
    needs_play = True
    divides_pretraining = True

    def _fresh_policy(self) -> LatentPolicy:
        features, encoding = self.world_model.feature_size, self.action_encoding
        return make_latent_policy(features, encoding.size, discrete=encoding.discrete, **self.policy_kwargs)

    def _start_policy(self) -> None:
        """Start from a policy with new weights, in the world model as it is."""
        self.world_model.requires_grad_(False)
        with self._initial_weights():
            self.policy = self._fresh_policy().to(self.device)

    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        noise = None if generator is None else functools.partial(self._noise, of=generator)
        return act_in_latents(self.world_model, self.policy, observation, state, noise)

    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return initial_memory(self.world_model, observation)
