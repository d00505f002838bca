"""A reward that is fitted to the demonstrations before the first step, and stays: what IMRL and PMI-IL share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from aime_gym.config import MAX_LAYERS, MAX_ROWS, MAX_UNITS, check_bounds
from aime_gym.learned_reward.trainer import LearnedRewardConfig
from aime_gym.learned_reward.transitions import ExpertTransitions, Transitions
from aime_gym.models.stacked import concatenate_sensors
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Metrics


@dataclass(frozen=True)
class FittedConfig(LearnedRewardConfig):
    """Hyper-parameters of a fitted reward, over those of [`LearnedRewardConfig`][].

    :param hidden: width of the model's layers.
    :param layers: number of them.
    :param updates: number of updates of the model.
    :param batch_size: transitions per update.
    :param learning_rate: step size of the model's Adam; falls to zero.
    """

    hidden: int = 128
    layers: int = 2
    updates: int = 2000
    batch_size: int = 256
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(
            self,
            hidden=(1, MAX_UNITS),
            layers=(1, MAX_LAYERS),
            updates=(1, None),
            batch_size=(1, MAX_ROWS),
            learning_rate=(0, None),
        )


class TransitionModel(Protocol):
    """A module that models the expert's transitions."""

    def fit_standardizer(self, obs: Tensor, next_obs: Tensor, generator: torch.Generator) -> None:
        """Take units from the demonstrations' transitions (N, D)."""
        ...

    def loss(self, obs: Tensor, next_obs: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of the expert's transitions (N, D), scalar."""
        ...

    def reward(self, obs: Tensor, next_obs: Tensor) -> Tensor:
        """Return rewards (N,) of transitions (N, D)."""
        ...


class FittedRewardNetwork(nn.Module):
    """The reward of a model of the expert's transitions, and the value of a termination.

    A fixed reward is known up to a constant per step, which decides whether to live or to end: as long as a terminal
    state is worth zero, a reward below zero favours dropping CartPole's pole, and one above zero never reaching
    MountainCar's goal. So an episode that terminates goes on in an absorbing state, for the
    1 / (1 - gamma) steps that the discount looks ahead (Kostrikov et al. 2019, arXiv 1809.02925). All episodes are then
    equally long, and the constant is the same for every policy: the mean of the demonstrations is taken off, so that a
    critic, which starts at zero, takes what it has not seen for as good as the expert. With a share w of the
    demonstrations that end in a terminal state, each step there is rewarded by

        r_absorbing = r_worst + w (r_best - r_worst)

    r_best is the greatest reward of the demonstrations' transitions: to end as the expert does (w = 1) is worth no less
    than to go on. r_worst is the mean reward of (s, s + c), with changes c of other times: where the expert never ends
    (w = 0), to end is worth no more than to do anything. What a terminal state looks like does not matter: where an
    expert ends in success and a beginner in failure, both get the same reward.

    :param model: [`TransitionModel`][] with its weights.
    """

    absorbing_reward: Tensor
    constant: Tensor
    effective_horizon: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        for name in ("absorbing_reward", "constant", "effective_horizon"):
            self.register_buffer(name, torch.zeros(()))

    @property
    def transition_model(self) -> TransitionModel:
        """The model, typed."""
        model: Any = self.model
        return model

    @torch.no_grad()
    def calibrate_absorbing_reward(
        self, expert: ExpertTransitions, effective_horizon: float, generator: torch.Generator
    ) -> None:
        """Let episodes that terminate go on in an absorbing state."""
        obs = concatenate_sensors(expert.vectors.obs)
        next_obs = concatenate_sensors(expert.vectors.next_obs)
        changes = (next_obs - obs)[torch.randperm(len(obs), generator=generator).to(obs.device)]
        own = self.transition_model.reward(obs, next_obs)
        self.constant.copy_(own.mean())
        best = own.max() - self.constant
        worst = self.reward(obs, obs + changes).mean()
        self.absorbing_reward.copy_(worst + expert.num_terminations / expert.num_episodes * (best - worst))
        self.effective_horizon.fill_(effective_horizon)

    @torch.no_grad()
    def reward(self, obs: Tensor, next_obs: Tensor) -> Tensor:
        """Return rewards (N,) of transitions (N, D)."""
        return self.transition_model.reward(obs, next_obs) - self.constant

    def terminal_value(self) -> float:
        """Return the value of a terminal state."""
        return float(self.effective_horizon * self.absorbing_reward)


class FittedReward:
    """A [`aime_gym.learned_reward.trainer.LearnedReward`][] that learns nothing after the first environment step.

    :param model: [`TransitionModel`][] with its weights.
    """

    name = "reward_model"
    uses_actions = False

    def __init__(self, config: FittedConfig, model: nn.Module, device: torch.device) -> None:
        self.config = config
        self.network = FittedRewardNetwork(model).to(device)

    def reward(self, transitions: Transitions) -> Tensor:
        return self.network.reward(concatenate_sensors(transitions.obs), concatenate_sensors(transitions.next_obs))

    def terminal_value(self) -> float:
        return self.network.terminal_value()

    def fit_demonstrations(self, expert: ExpertTransitions, effective_horizon: float, loop: TrainingLoop) -> bool:
        """Fit the model, in updates of ``loop``."""
        config, model = self.config, self.network.transition_model
        obs = concatenate_sensors(expert.vectors.obs)
        next_obs = concatenate_sensors(expert.vectors.next_obs)
        model.fit_standardizer(obs, next_obs, loop.generator)
        optimizer = Optimizer([self.network], config.learning_rate, decay_updates=config.updates)

        def update() -> Metrics:
            rows = torch.randint(len(obs), (config.batch_size,), generator=loop.generator).to(obs.device)
            loss = model.loss(obs[rows], next_obs[rows], loop.generator)
            return {"loss": loss.detach(), "gradient_norm": optimizer.step(loss)}

        completed = loop.run("reward", config.updates, update, optimizer)
        if config.absorbing and expert.endings_known:
            self.network.calibrate_absorbing_reward(expert, effective_horizon, loop.generator)
        return completed

    def update(self, transitions: Transitions, expert: ExpertTransitions, loop: TrainingLoop) -> None:
        """Learn nothing: the reward stays."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load nothing: there is no state beside the network."""
