"""``predict`` of a world model with a policy: filter an observation, then act in the latent state."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from aime_gym.models.policies import LatentPolicy
from aime_gym.models.rssm import State
from aime_gym.models.world_model import WorldModel


def initial_memory(model: WorldModel, observation: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Return the memory before an episode's first observation (B, ...): zero state (B, H), (B, S), no action (B, A)."""
    h, s = model.rssm.initial_state(len(next(iter(observation.values()))))
    return h, s, h.new_zeros(len(h), model.action_size)


def act_in_latents(
    model: WorldModel,
    policy: LatentPolicy,
    observation: Mapping[str, Tensor],
    memory: tuple[Tensor, ...],
    noise: Callable[..., Tensor] | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Choose an encoded action (B, A), and return it with the memory of the next step.

    :param observation: encoded observations (B, ...) of each sensor.
    :param memory: latent state and the action that led to the observation.
    :param noise: source of standard normal noise, for samples; ``None`` filters with the posterior's mode and acts with
        the policy's mode.
    """
    deter, stoch, prev_action = memory
    latent = model.observe(
        observation, State(deter, stoch), prev_action, None if noise is None else noise(*stoch.shape)
    )
    actions = policy(latent.feature)
    action = actions.mode if noise is None else actions.rsample(noise(*prev_action.shape))
    return action, (*latent, action)
