"""A discriminator as the reward of adversarial imitation: what GAIfO, GAIL and PatchAIL share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from aime_gym.config import MAX_LAYERS, MAX_ROWS, MAX_UNITS, check_bounds
from aime_gym.learned_reward.trainer import LearnedRewardConfig, check_choices
from aime_gym.learned_reward.transitions import ExpertTransitions, Transitions
from aime_gym.models.augmentation import augment
from aime_gym.models.discriminator import REWARDS, Discriminator, ImageLogit, discrimination_loss, gradient_penalty
from aime_gym.models.features_extractor import sensor_shapes
from aime_gym.models.patch_discriminator import PatchSimilarity
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Metrics, is_image


@dataclass(frozen=True)
class AdversarialConfig(LearnedRewardConfig):
    """Hyper-parameters of adversarial imitation, over those of
    [`LearnedRewardConfig`][].

    :param reward: form of the learned reward, ``logit``, ``positive`` or ``negative``; see
        [`Discriminator`][].
    :param penalty: weight of the discriminator's gradient penalty.
    :param discriminator_hidden: width of the discriminator's layers.
    :param discriminator_layers: number of them.
    :param discriminator_updates: updates of the discriminator for each rollout of PPO, or 512 environment steps of SAC.
    :param batch_size: transitions of each side in such an update.
    :param learning_rate: step size of the discriminator's Adam.
    """

    reward: str = "logit"
    penalty: float = 10.0
    discriminator_hidden: int = 256
    discriminator_layers: int = 2
    discriminator_updates: int = 16
    batch_size: int = 512
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self, reward=REWARDS)
        check_bounds(
            self,
            penalty=(0, None),
            discriminator_hidden=(1, MAX_UNITS),
            discriminator_layers=(1, MAX_LAYERS),
            discriminator_updates=(1, None),
            batch_size=(1, MAX_ROWS),
            learning_rate=(0, None),
        )


class DiscriminatorInputs:
    """The part of transitions that a discriminator sees: s and s', or s and an encoded a.

    Vectors are (s, s' - s), side by side: as much as (s, s'), with the change in units of its own spread. Images are
    both stacks of frames, one behind the other along the channels.

    :param space: space of an observation: vectors (D,) and images (C, H, W).
    :param action_size: size of an encoded action, to see (s, a); ``None`` sees (s, s').
    :param images_only: flag that leaves the vectors out.
    """

    def __init__(self, space: spaces.Dict, action_size: int | None = None, *, images_only: bool = False) -> None:
        shapes = sensor_shapes(space)
        self.uses_actions = action_size is not None
        self._images = [name for name, shape in shapes.items() if is_image(shape)]
        self._vectors = [name for name in shapes if name not in self._images and not images_only]
        size = sum(shapes[name][0] for name in self._vectors)
        #: Size of all vectors side by side.
        self.vector_size = 2 * size if action_size is None else size + action_size
        #: (C, H, W) of each image.
        self.image_shapes = [
            (shapes[name][0] * (1 if self.uses_actions else 2), *shapes[name][1:]) for name in self._images
        ]

    def __call__(self, transitions: Transitions) -> list[Tensor]:
        """Return vectors (N, V), if there are any, and images (N, C, H, W)."""
        images = [transitions.obs[name] for name in self._images]
        if not self.uses_actions:
            images = [torch.cat([transitions.obs[name], transitions.next_obs[name]], dim=1) for name in self._images]
        return [self.vectors(transitions), *images] if self.vector_size else images

    def vectors(self, transitions: Transitions) -> Tensor:
        """Return the vectors alone (N, V), of transitions that may lack the images."""
        parts = [transitions.obs[name] for name in self._vectors]
        if transitions.actions is not None and self.uses_actions:
            parts.append(transitions.actions)
        else:
            parts += [transitions.next_obs[name] - transitions.obs[name] for name in self._vectors]
        return torch.cat(parts, dim=-1) if parts else torch.empty(len(transitions), 0)


class DiscriminatorReward:
    """A discriminator between the demonstrations and the agent's latest transitions.

    A [`aime_gym.learned_reward.trainer.LearnedReward`][].

    :param inputs: inputs of the discriminator, made from transitions.
    :param net: network in place of the usual one, and ``similarity`` a weight of its reward; see
        [`Discriminator`][].
    """

    name = "discriminator"

    def __init__(
        self,
        config: AdversarialConfig,
        inputs: DiscriminatorInputs,
        device: torch.device,
        *,
        net: nn.Module | None = None,
        similarity: PatchSimilarity | None = None,
    ) -> None:
        self.config, self.inputs, self.uses_actions = config, inputs, inputs.uses_actions
        size = {"hidden": config.discriminator_hidden, "layers": config.discriminator_layers}
        if net is None and inputs.image_shapes:
            net = ImageLogit(inputs.vector_size, inputs.image_shapes, config.image_encoder, **size)
        self.network = Discriminator(inputs.vector_size, net, similarity, reward=config.reward, **size).to(device)
        self.optimizer = Optimizer([self.network], config.learning_rate, max_grad_norm=None)

    def reward(self, transitions: Transitions) -> Tensor:
        return self.network.reward(*self.inputs(transitions))

    def terminal_value(self) -> float:
        return self.network.terminal_value()

    def fit_demonstrations(self, expert: ExpertTransitions, effective_horizon: float, loop: TrainingLoop) -> bool:
        """Take the expert's statistics; the discriminator learns against the agent alone."""
        self.network.set_expert(
            steps=len(expert),
            terminations=expert.num_terminations,
            effective_horizon=effective_horizon,
            absorbing=self.config.absorbing and expert.endings_known,
        )
        self.network.standardizer.update(self.inputs.vectors(expert.vectors))
        return True

    def update(self, transitions: Transitions, expert: ExpertTransitions, loop: TrainingLoop) -> None:
        config, generator, network = self.config, loop.generator, self.network
        network.count_agent(steps=len(transitions), terminations=int(transitions.terminated.sum()))
        balanced = [transitions, expert.vectors.sample(len(transitions), generator)]
        network.standardizer.update(torch.cat([self.inputs.vectors(side) for side in balanced]))

        def sample() -> tuple[list[Tensor], list[Tensor]]:
            theirs = expert.sample(config.batch_size, generator)
            own = transitions.sample(config.batch_size, generator)
            return self.inputs(theirs), self.inputs(own)

        for _ in range(config.discriminator_updates):
            metrics = self.update_discriminator(*sample(), generator)
            loop.counter.num_updates += 1
            for name, value in metrics.items():
                loop.logger.record_mean(f"{self.name}/{name}", float(value))
        if not math.isfinite(float(metrics["loss"])):
            raise FloatingPointError("training diverged: the discriminator's loss is not finite; lower learning_rate")
        if network.similarity is not None:
            with torch.no_grad():
                network.similarity.update(*(network(*side) for side in sample()))
        loop.logger.record(f"{self.name}/updates", loop.counter.num_updates)

    def update_discriminator(self, expert: list[Tensor], agent: list[Tensor], generator: torch.Generator) -> Metrics:
        """Take one step of logistic regression on inputs (N, ...) of the expert and of the agent."""
        discriminator, config = self.network, self.config
        if config.augment:
            expert = [augment(part, generator) for part in expert]
            agent = [augment(part, generator) for part in agent]
        theirs = discriminator.standardize(*expert)
        own = discriminator.standardize(*agent)
        both = [torch.cat(sides) for sides in zip(theirs, own, strict=True)]
        expert_logit, agent_logit = discriminator.from_standardized(*both).chunk(2)
        loss = discrimination_loss(expert_logit, agent_logit)
        weight = torch.rand(config.batch_size, 1, generator=generator).to(loss.device)
        penalty = loss.new_zeros(())
        if config.penalty:  # more than half of an update's time
            penalty = gradient_penalty(discriminator.from_standardized, theirs, own, weight)
        if expert_logit.ndim > 1:  # its f is the sum over patches, where the loss has their mean
            penalty = penalty / expert_logit.shape[-1]
        self.optimizer.step(loss + config.penalty * penalty)
        return {
            "loss": loss.detach(),
            "expert_logit": expert_logit.detach().mean(),
            "agent_logit": agent_logit.detach().mean(),
            "penalty": penalty.detach(),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"moments": self.optimizer.state_dict()["moments"]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"moments": state["moments"]})
