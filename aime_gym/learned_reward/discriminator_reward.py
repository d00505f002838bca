"""Adversarial imitation: a discriminator that pays. What GAIfO, GAIL and PatchAIL share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aime_gym.config import MAX_LAYERS, MAX_ROWS, MAX_UNITS, check_bounds
from aime_gym.learned_reward.trainer import LearnedRewardConfig, check_choices
from aime_gym.learned_reward.transitions import ExpertTransitions, Transitions
from aime_gym.models.augmentation import shifted
from aime_gym.models.discriminator import (
    REGULARIZERS,
    REWARDS,
    Discriminator,
    ImageLogit,
    discrimination_loss,
    gradient_penalty,
)
from aime_gym.models.flat_layout import FlatLayout
from aime_gym.models.patch_discriminator import PatchSimilarity
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Metrics


@dataclass(frozen=True)
class AdversarialConfig(LearnedRewardConfig):
    """Hyper-parameters of adversarial imitation, over those of
    :class:`~aime_gym.learned_reward.trainer.LearnedRewardConfig`.

    :param reward: form of the learned reward, ``logit``, ``positive`` or ``negative``; see
        :class:`~aime_gym.models.discriminator.Discriminator`.
    :param regularizer: of the discriminator, ``gradient_penalty`` or ``spectral_norm``.
    :param penalty: weight of the gradient penalty.
    :param discriminator_hidden: width of the discriminator's layers.
    :param discriminator_layers: number of them.
    :param discriminator_updates: per round of the generator.
    :param batch_size: rows of each side in such an update.
    :param learning_rate: of the discriminator's Adam.
    """

    reward: str = "logit"
    regularizer: str = "gradient_penalty"
    penalty: float = 10.0
    discriminator_hidden: int = 256
    discriminator_layers: int = 2
    discriminator_updates: int = 16
    batch_size: int = 512
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self, reward=REWARDS, regularizer=REGULARIZERS)
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
    """What a discriminator sees of transitions: s and s', or s and an encoded a.

    Of vectors, (s, s' - s): it holds what (s, s') does, and shows what happened in units of its own spread. Of images,
    both stacks of frames, one behind the other along the channels.

    :param layout: of an observation.
    :param actions: size of an encoded action, to see (s, a); ``None`` sees (s, s').
    :param images_alone: look past the vectors.
    """

    def __init__(self, layout: FlatLayout, actions: int | None = None, *, images_alone: bool = False) -> None:
        self._observed, self._images_alone, self.sees_actions = layout, images_alone, actions is not None
        vectors = 0 if images_alone else layout.vectors + (layout.vectors if actions is None else actions)
        images = [(*sides, channels * (1 if self.sees_actions else 2)) for *sides, channels in layout.images]
        #: Of what is seen.
        self.layout = FlatLayout(vectors, images)

    def rows(self, transitions: Transitions) -> Tensor:
        """Rows (N, ...) of transitions with flat observations."""
        if not self.layout.images:
            return self.vectors(transitions)
        first, second = (self._observed.split(rows)[1] for rows in (transitions.obs, transitions.next_obs))
        if not self.sees_actions:
            first = [torch.cat(pair, dim=-1) for pair in zip(first, second, strict=True)]
        return self.layout.join(self.vectors(transitions) if self.layout.vectors else None, first)

    def vectors(self, transitions: Transitions) -> Tensor:
        """The vectors alone (N, V), of transitions that may lack the images."""
        count = 0 if self._images_alone else self._observed.vectors
        obs, next_obs = (rows[:, :count] for rows in (transitions.obs, transitions.next_obs))
        actions = transitions.actions if self.sees_actions else None
        if actions is None:
            return torch.cat([obs, next_obs - obs], dim=-1)
        # Without vectors, obs may be bytes.
        return torch.cat([obs, actions], dim=-1) if count else actions


class DiscriminatorReward:
    """A discriminator between the demonstrations and what was done of late: a ``LearnedReward``.

    :param seen: what it sees of a transition.
    :param net: its network, and ``similarity`` a part of its reward, if they are not the usual ones; see
        :class:`~aime_gym.models.discriminator.Discriminator`.
    """

    name = "discriminator"

    def __init__(
        self,
        config: AdversarialConfig,
        seen: DiscriminatorInputs,
        device: torch.device,
        *,
        net: nn.Module | None = None,
        similarity: PatchSimilarity | None = None,
    ) -> None:
        self.config, self.seen, self.sees_actions = config, seen, seen.sees_actions
        size = {"hidden": config.discriminator_hidden, "layers": config.discriminator_layers}
        if net is None and seen.layout.images:
            net = ImageLogit(seen.layout, config.image_encoder, **size)
        self.network = Discriminator(
            seen.layout,
            net,
            similarity,
            reward=config.reward,
            spectral=config.regularizer == "spectral_norm",
            **size,
        ).to(device)
        self.optimizer = Optimizer([self.network], config.learning_rate, max_grad_norm=None)

    def rewards(self, transitions: Transitions) -> Tensor:
        return self.network.reward(self.seen.rows(transitions))

    def terminal_value(self) -> float:
        return self.network.terminal_value()

    def start(self, expert: ExpertTransitions, effective_horizon: float, loop: TrainingLoop) -> bool:
        self.network.start(
            steps=len(expert),
            ends=expert.ends,
            effective_horizon=effective_horizon,
            absorbing=self.config.absorbing and expert.endings_known,
        )
        self.network.standardizer.update(self.seen.vectors(expert.transitions))
        return True

    def round(self, taken: Transitions, expert: ExpertTransitions, loop: TrainingLoop) -> None:
        config, draw, network, seen = self.config, loop.generator, self.network, self.seen
        network.count(steps=len(taken), ends=int(taken.terminated.sum()))
        balanced = [taken, expert.transitions.sample(len(taken), draw)]
        network.standardizer.update(torch.cat([seen.vectors(side) for side in balanced]))
        for _ in range(config.discriminator_updates):
            sides = (expert.sample(config.batch_size, draw), taken.sample(config.batch_size, draw))
            metrics = self.update_discriminator(seen.rows(sides[0]), seen.rows(sides[1]), draw)
            loop.counter.num_updates += 1
            for name, value in metrics.items():
                loop.logger.record_mean(f"{self.name}/{name}", float(value))
        if not math.isfinite(float(metrics["loss"])):
            raise FloatingPointError("training diverged: the discriminator's loss is not finite; lower learning_rate")
        if network.similarity is not None:
            sides = (expert.sample(config.batch_size, draw), taken.sample(config.batch_size, draw))
            with torch.no_grad():
                network.similarity.fit_standardizer(*(network(seen.rows(side)) for side in sides))
        loop.logger.record(f"{self.name}/updates", loop.counter.num_updates)

    def update_discriminator(self, expert: Tensor, agent: Tensor, generator: torch.Generator) -> Metrics:
        """One step of logistic regression; expert and agent: rows (N, ...) of the same number."""
        discriminator, config = self.network, self.config
        discriminator.train()  # spectral norms follow the weights here only
        if config.augment:
            expert, agent = (shifted(discriminator.layout, rows, generator) for rows in (expert, agent))
        expert, agent = discriminator.standardize(expert), discriminator.standardize(agent)
        expert_logit, agent_logit = discriminator.from_standardized(torch.cat([expert, agent])).chunk(2)
        loss = discrimination_loss(expert_logit, agent_logit)
        metrics: Metrics = {
            "loss": loss.detach(),
            "expert_logit": expert_logit.detach().mean(),
            "agent_logit": agent_logit.detach().mean(),
        }
        if config.regularizer == "gradient_penalty":
            weight = torch.rand(len(expert), 1, generator=generator).to(expert.device)
            penalty = gradient_penalty(discriminator.from_standardized, expert, agent, weight)
            if expert_logit.ndim > 1:  # of the sum over patches, where the loss is of their mean
                penalty = penalty / expert_logit.shape[-1]
            metrics["penalty"] = penalty.detach()
            loss = loss + config.penalty * penalty
        self.optimizer.step(loss)
        discriminator.eval()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {"moments": self.optimizer.state_dict()["moments"]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"moments": state["moments"]})
