"""Adversarial imitation: a discriminator that pays. What GAIfO and GAIL share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aime_gym.models.discriminator import (
    REGULARIZERS,
    REWARDS,
    Discriminator,
    discrimination_loss,
    gradient_penalty,
)
from aime_gym.training.earning import EarningConfig, check_choices
from aime_gym.training.fit import Fit
from aime_gym.training.optimizer import Optimizer
from aime_gym.training.ranges import check_ranges
from aime_gym.training.transitions import Expert, Transitions
from aime_gym.types import Metrics


@dataclass(frozen=True)
class AdversarialConfig(EarningConfig):
    """Hyper-parameters of adversarial imitation, over those of :class:`~aime_gym.training.earning.EarningConfig`.

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
        check_ranges(
            self,
            penalty=(0, None),
            discriminator_hidden=(1, None),
            discriminator_layers=(1, None),
            discriminator_updates=(1, None),
            batch_size=(1, None),
            learning_rate=(0, None),
        )


class AdversarialReward:
    """A discriminator between the demonstrations and what was done of late: a ``LearnedReward``.

    :param observation: features of an observation.
    :param actions: size of an encoded action, to see (s, a); ``None`` sees (s, s').
    """

    name = "discriminator"

    def __init__(self, config: AdversarialConfig, observation: int, actions: int | None, device: torch.device) -> None:
        self.config, self.sees_actions = config, actions is not None
        self.network = Discriminator(
            observation + (observation if actions is None else actions),
            hidden=config.discriminator_hidden,
            layers=config.discriminator_layers,
            reward=config.reward,
            spectral=config.regularizer == "spectral_norm",
        ).to(device)
        self.optimizer = Optimizer([self.network], config.learning_rate, clip=None)

    def rows(self, transitions: Transitions) -> Tensor:
        """The discriminator's input (N, ...): s and s', or s and an encoded a.

        (s, s' - s) holds what (s, s') does, and shows what happened in units of its own spread.
        """
        obs, actions = transitions.obs, transitions.actions
        return torch.cat([obs, transitions.next_obs - obs if actions is None else actions], dim=-1)

    def rewards(self, transitions: Transitions) -> Tensor:
        return self.network.reward(self.rows(transitions))

    def terminal_value(self) -> float:
        return self.network.terminal_value()

    def start(self, expert: Expert, horizon: float, fit: Fit) -> bool:
        self.network.start(
            steps=len(expert.transitions),
            ends=expert.ends,
            horizon=horizon,
            absorbing=self.config.absorbing and expert.endings_known,
        )
        self.network.standardizer.update(self.rows(expert.transitions))
        return True

    def round(self, taken: Transitions, expert: Expert, fit: Fit) -> None:
        config, draw, network = self.config, fit.generator, self.network
        rows, expert_rows = self.rows(taken), self.rows(expert.transitions)
        network.count(steps=len(rows), ends=int(taken.terminated.sum()))
        network.standardizer.update(torch.cat([rows, _sample(expert_rows, len(rows), draw)]))
        for _ in range(config.discriminator_updates):
            metrics = self.update_discriminator(
                _sample(expert_rows, config.batch_size, draw), _sample(rows, config.batch_size, draw), draw
            )
            fit.counter.num_updates += 1
            for name, value in metrics.items():
                fit.logger.record_mean(f"{self.name}/{name}", float(value))
        if not math.isfinite(float(metrics["loss"])):
            raise FloatingPointError("training diverged: the discriminator's loss is not finite; lower learning_rate")
        fit.logger.record(f"{self.name}/updates", fit.counter.num_updates)

    def update_discriminator(self, expert: Tensor, agent: Tensor, generator: torch.Generator) -> Metrics:
        """One step of logistic regression; expert and agent: rows (N, ...) of the same number."""
        discriminator, config = self.network, self.config
        discriminator.train()  # spectral norms follow the weights here only
        expert, agent = discriminator.standardizer(expert), discriminator.standardizer(agent)
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
            metrics["penalty"] = penalty.detach()
            loss = loss + config.penalty * penalty
        self.optimizer.step(loss)
        discriminator.eval()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {"moments": self.optimizer.state_dict()["moments"]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"moments": state["moments"]})


def _sample(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Some rows, with replacement."""
    return rows[torch.randint(len(rows), (count,), generator=generator).to(rows.device)]
