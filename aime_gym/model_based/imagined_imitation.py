"""Imitation in imagination: rollouts of a frozen world model that are rewarded for resembling demonstrations.

A rollout starts from a latent state of a demonstration, h_0 = h^E_0, and is compared with what follows there:

    DITTO    r_k = h^E_k . h_k / max(|h^E_k|, |h_k|)^2      at the same time k; at most 1, and 1 for the demonstration
                                                            (h less the mean of h^E, unless as in the paper)
    D-GAIL   r_k = f(h_{k-1}, h_k)                          f the logit of a discriminator of the two

Actor and critic are those of [`actor_critic`][].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aime_gym.config import check_bounds
from aime_gym.data import SequenceSampler, TrajectoryDataset
from aime_gym.model_based.action_inference import InferenceConfig, Noise
from aime_gym.model_based.actor_critic import Critic, EvaluatedRollout, ImaginationConfig, imagine, reinforce_loss
from aime_gym.model_based.filtering import FilteredLatents
from aime_gym.model_based.surrogate_rewards import EmbeddedSequences, LatentDiscriminatorReward
from aime_gym.models.policies import CategoricalPolicy, LatentPolicy
from aime_gym.models.rssm import State
from aime_gym.models.world_model import WorldModel
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Metrics


@dataclass(frozen=True)
class ImaginedImitationConfig(ImaginationConfig, InferenceConfig):
    """Hyper-parameters of imitation in imagination.

    Those of phase 1, and of the policy that infers the demonstrations' actions, are [`InferenceConfig`][]'s; those of
    actor and critic [`ImaginationConfig`][]'s.

    :param expert_actions: whether the demonstrations are filtered with their own actions, as in the paper; otherwise
        with those that AIME's policy infers.
    :param cloned_start: whether the policy starts from AIME's, or from a clone of the demonstrations' own actions where
        these are read; otherwise from new weights, as in the paper.
    :param center_latents: whether DITTO's reward compares states less their mean over the demonstrations, instead of
        whole ones as in the paper, where what all states have in common outweighs the rest.
    :param bootstrap: whether the value network stands for what would follow the end of a rollout, as in the paper.
        Otherwise the return ends there: the demonstration at the same time, which DITTO's reward compares with, is
        nothing that the network sees, and its errors, fed back to it as targets, grow.
    :param imagination_updates: number of updates in imagination.
    :param imagination_warmup: number of those, the first ones, that train value network and discriminator alone: before
        they have learnt anything, their gradients would only spoil a policy that was cloned.
    :param actor_learning_rate: Adam's learning rate for the policy in imagination.
    :param discriminator_learning_rate: Adam's learning rate for D-GAIL's discriminator.
    """

    expert_actions: bool = False
    cloned_start: bool = True
    center_latents: bool = True
    bootstrap: bool = False
    imagination_updates: int = 1000
    imagination_warmup: int = 100
    actor_learning_rate: float = 3e-4
    discriminator_learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        InferenceConfig.__post_init__(self)
        ImaginationConfig.__post_init__(self)
        check_bounds(
            self,
            imagination_updates=(0, None),
            imagination_warmup=(0, None),
            actor_learning_rate=(0, None),
            discriminator_learning_rate=(0, None),
        )


def latent_similarity(one: Tensor, other: Tensor) -> Tensor:
    """Compute the dot product of latent vectors over the larger squared norm: (..., H) -> (...), between -1 and 1."""
    largest = torch.maximum(one.square().sum(-1), other.square().sum(-1))
    # Zero vectors are as unlike as orthogonal ones.
    return (one * other).sum(-1) / largest.clamp_min(torch.finfo(largest.dtype).tiny)


class ImaginedImitation:
    """Updates of a policy, in rollouts from the latent states of demonstrations.

    Rollouts are as long as the horizon. A demonstration that ends before it ends its rollouts.

    :param demos: demonstrations, whose actions are not read.
    :param latents: latent features and actions of all their records.
    :param noise: source of standard normal noise.
    :param generator: source of the rows that rollouts start from.
    :param adversarial: whether the reward is D-GAIL's, instead of DITTO's.
    """

    def __init__(
        self,
        world_model: WorldModel,
        policy: LatentPolicy,
        demos: TrajectoryDataset,
        latents: FilteredLatents,
        config: ImaginedImitationConfig,
        noise: Noise,
        generator: torch.Generator,
        *,
        adversarial: bool,
    ) -> None:
        self.world_model, self.policy, self.config = world_model, policy, config
        self.features, self.prev_actions = latents.features, latents.prev_actions
        self.noise, self.generator = noise, generator
        self.sampler = SequenceSampler(
            demos,
            sequence_length=config.imagination_horizon + 1,
            batch_size=config.imagination_starts or len(demos),
            generator=generator,
            start_fraction=config.demo_start_fraction,
        )
        deter = self.features[:, : world_model.config.deter]
        #: Origin of the deterministic states that are compared: the mean of the demonstrations, or zero.
        self.center = deter.mean(0) * config.center_latents
        #: Mean squared distance of the demonstrations' deterministic states from their mean; at least a small one.
        self.variance = deter.var(0, correction=0).sum().clamp_min(1e-6)
        self.critic = Critic(world_model.feature_size, config, deter.device)
        self.discriminator: LatentDiscriminatorReward | None = None
        if adversarial:
            self.discriminator = LatentDiscriminatorReward(
                world_model.config.deter, config.discriminator_learning_rate, deter.device
            )
        self.updates = 0
        self.optimizer = Optimizer([policy], config.actor_learning_rate, max_grad_norm=config.max_grad_norm)

    def update(self) -> Metrics:
        """Make one update of all networks."""
        rows, valid, _ = (part.to(self.features.device) for part in self.sampler.sample_rows())
        deter, stoch = self.features[rows].split([self.world_model.config.deter, self.world_model.config.stoch], -1)
        rollout = self._evaluate_rollout(deter, stoch[0], valid)
        loss = self._policy_loss(rollout)
        metrics: Metrics = {
            "loss": loss.detach(),
            "latent_distance": self._distance(rollout.imagined.states.deter[1:], deter[1:], valid[1:]),
            "imagined_reward": rollout.rewards.detach()[valid[1:]].mean(),
        }
        if self.updates >= self.config.imagination_warmup:
            self.optimizer.step(loss)
        self.updates += 1
        metrics |= self.critic.update(rollout)
        if self.discriminator is not None:
            own = EmbeddedSequences(rollout.imagined.states.deter.detach(), valid)
            expert = EmbeddedSequences(self._imagine_expert(rows, State(deter[0], stoch[0])), valid)
            metrics |= self.discriminator.update(expert, own, self.generator)
        return metrics

    @torch.no_grad()
    def _imagine_expert(self, rows: Tensor, start: State) -> Tensor:
        """Roll the prior forward under the demonstrations' actions: deterministic states (H + 1, N, ...).

        Filtered states would not do as the expert's: a discriminator tells them from imagined ones whatever the policy.
        """
        state, deters = start, [start.deter]
        for actions in self.prev_actions[rows[1:]]:
            h = self.world_model.rssm.transition(state, actions)
            prior = self.world_model.rssm.prior(h)
            state = State(h, prior.rsample(self.noise(*state.stoch.shape)))
            deters.append(h)
        return torch.stack(deters)

    @torch.no_grad()
    def _distance(self, imagined: Tensor, expert: Tensor, valid: Tensor) -> Tensor:
        """Compute the mean squared distance of states (H, N, ...) in units of the demonstrations' variance."""
        return (imagined - expert).square().sum(-1)[valid].mean() / self.variance

    def _evaluate_rollout(self, expert: Tensor, stoch: Tensor, valid: Tensor) -> EvaluatedRollout:
        """Imagine rollouts from states of the demonstrations, and evaluate them.

        :param expert: deterministic states (H + 1, N, ...) of the demonstrations.
        :param stoch: stochastic states (N, S) to start from.
        :param valid: mask (H + 1, N) of the records before a demonstration's end.
        """
        with torch.set_grad_enabled(not isinstance(self.policy, CategoricalPolicy)):
            start = State(expert[0], stoch)
            imagined = imagine(self.world_model.rssm, self.policy, start, len(expert) - 1, self.noise)
            deter = imagined.states.deter
            if self.discriminator is None:
                # Less the demonstration's own reward: the value network starts where that of a perfect policy is, and a
                # demonstration that ends early takes nothing away. It is the same for all policies.
                rewards = latent_similarity(expert[1:] - self.center, deter[1:] - self.center) - 1
            else:
                rewards = self.discriminator.relabel(deter)[1:]
            following = torch.cat([valid[2:], valid[-1:] & self.config.bootstrap])
            return self.critic.evaluate(imagined, rewards * valid[1:], following.to(rewards.dtype))

    def _policy_loss(self, rollout: EvaluatedRollout) -> Tensor:
        if not isinstance(self.policy, CategoricalPolicy):
            return rollout.policy_loss(self.config.entropy_weight)
        with torch.no_grad():
            baseline = self.critic.target(rollout.imagined.features[:-1])
        return reinforce_loss(self.policy, rollout, baseline, self.config.entropy_weight)

    def state_dict(self) -> dict[str, Any]:
        """Return all that [`update`][] changes."""
        return {
            "updates": self.updates,
            "policy": self.optimizer.state_dict(),
            "critic": self.critic.state_dict(),
            "discriminator": {} if self.discriminator is None else self.discriminator.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self.updates = state["updates"]
        self.optimizer.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        if self.discriminator is not None:
            self.discriminator.load_state_dict(state["discriminator"])
