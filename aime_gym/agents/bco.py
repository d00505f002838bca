"""BCO: Behavioural Cloning from Observation (Torabi, Warnell and Stone 2018, arXiv 1805.01954).

    inverse dynamics model   a_{t-1} = g(o_{t-k} ... o_t)      from play
    policy                   a_t = pi(o_{t-k+1} ... o_t)       cloned from demonstrations that g has labelled

That is BCO(0), ``pretrain`` and ``imitate``. BCO(alpha), ``learn``, continues from it, with |I_pre| steps of play:

    repeat   collect alpha |I_pre| steps with pi
             g   on play and all that was collected
             pi  on the demonstrations, labelled anew

Networks and training follow the AIME authors' comparison: two hidden layers of 128, tanh head, Adam 1e-3 without
clipping, a 70/30 split and early stopping. Deviations: whole trajectories are held out, since overlapping windows of
one would leak into the other part; observations are standardised by the play data; windows at the start of an episode
repeat its first observation in training too, as they do in acting. Discrete actions are trained by cross-entropy. As
there, the policy starts from the inverse model's encoder of images, and trains it further.

BCO(alpha) is the paper's, which stops when pi no longer improves; a number of steps says when here. (The AIME-v2
authors' comparison has 50 rounds of 20 episodes with the most likely actions, and its own networks.) Rounds are of
whole first episodes in all copies of the environment. Pi explores as ``predict`` samples: discrete actions from their
logits, others not at all. What was held out stays so, and each round holds out its share of what it collects. A round
ends with its best weights, those that it started from not among them, and has its own moments of Adam.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from aime_gym.agents.stacked_agent import StackedAgent
from aime_gym.config import check_bounds
from aime_gym.data import TrajectoryDataset, split_trajectories
from aime_gym.models.stacked import StackedNetwork
from aime_gym.training.loop import TrainingLoop, UpdateRunner
from aime_gym.training.replay import EpisodeReplayBuffer
from aime_gym.training.rollouts import Rollouts
from aime_gym.training.supervised import StackedConfig, act_on_windows, regress_actions
from aime_gym.types import Metrics, Trajectories


@dataclass(frozen=True)
class BCOConfig(StackedConfig):
    """Hyper-parameters of BCO; ``min_epochs`` and ``min_updates`` hold for what is learnt before ``learn``.

    :param alpha: number of environment steps of a round of ``learn``, as a share of the steps of play; an episode at
        least.
    """

    alpha: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, alpha=(0, None))


class BCOAgent(StackedAgent):
    """Labels demonstrations with an inverse dynamics model learnt from play, and clones them.

    ``learn(total_timesteps)`` then improves both with what the policy does in the environment.
    Hyper-parameters: [`BCOConfig`][].
    """

    config: BCOConfig
    inverse_model: StackedNetwork
    presets: ClassVar = {"default": BCOConfig()}
    needs_play = True
    improves_online = True

    def _setup_networks(self) -> None:
        self.inverse_model = self._stacked_network(self.config.stack + 1)
        self.policy = self._stacked_network(self.config.stack)
        self._start_over()

    def _start_over(self) -> None:
        self.play_steps = 0
        self.collected = EpisodeReplayBuffer()
        #: Masks of the trajectories that are learnt from; the others are held out.
        self.train_mask: dict[str, list[bool]] = {"play": [], "collected": [], "demos": []}

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["inverse_model", "policy"], []

    def _training_state(self) -> dict[str, Any]:
        return {"play_steps": self.play_steps, "collected": self.collected.state_dict(), "train_mask": self.train_mask}

    def _load_training_state(self, state: Mapping[str, Any]) -> None:
        self._start_over()
        if state:  # files from before there was an online phase have none
            self.play_steps = state["play_steps"]
            self.collected.load_state_dict(state["collected"])
            self.train_mask = {name: list(train_mask) for name, train_mask in state["train_mask"].items()}

    # BCO(0)

    def _pretrain(self, play: Trajectories, loop: TrainingLoop) -> None:
        self._start_over()
        dataset = TrajectoryDataset(play, self.action_encoding, self.device)
        self.inverse_model.fit_standardizer(dataset.observations)
        self.play_steps = sum(map(len, play))
        self.train_mask["play"] = self._split(len(play))
        self._fit_inverse_model(dataset, self.train_mask["play"], loop)

    def _imitate(self, demos: Trajectories, loop: TrainingLoop) -> None:
        dataset = TrajectoryDataset(demos, None, self.device)
        self.policy = self._fresh_policy()
        self.policy.copy_encoding(self.inverse_model)
        self.train_mask["demos"] = self._split(len(demos))
        self._fit_policy(dataset, loop)

    def _fit_inverse_model(
        self, dataset: TrajectoryDataset, train_mask: list[bool], runner: UpdateRunner, *, refit: bool = False
    ) -> float:
        assert dataset.prev_actions is not None
        return regress_actions(
            self.inverse_model,
            dataset,
            dataset.prev_actions,
            train_mask,
            lag=0,
            config=self.config,
            name="inverse",
            runner=runner,
            generator=self.generator,
            refit=refit,
        )

    def _fit_policy(self, demos: TrajectoryDataset, runner: UpdateRunner, *, refit: bool = False) -> float:
        return regress_actions(
            self.policy,
            demos,
            self._infer_actions(demos),
            self.train_mask["demos"],
            lag=1,
            config=self.config,
            name="policy",
            runner=runner,
            generator=self.generator,
            refit=refit,
        )

    def _split(self, count: int, known: list[bool] | None = None) -> list[bool]:
        return split_trajectories(count, self.config.train_fraction, self.generator, known or ())

    # BCO(alpha)

    def _learn(self, demos: Trajectories, loop: TrainingLoop) -> None:
        assert loop.total_timesteps is not None
        play = self.pretrained_play or []
        if not play:
            warnings.warn(
                "BCOAgent.learn: expected the play that pretrain learnt from, got None; the inverse model learns from "
                "what is collected alone, unless load is given play=",
                stacklevel=2,
            )
        # Other play or demonstrations than before may be more than the masks cover.
        for name, trajectories in (("play", play), ("demos", demos)):
            self.train_mask[name] = self._split(len(trajectories), self.train_mask[name])
        dataset = TrajectoryDataset(demos, None, self.device)
        rollouts = Rollouts(self, loop, "learn", loop.total_timesteps, _OnlineState(self))

        def collect_and_update() -> Metrics:
            steps = round(self.config.alpha * self.play_steps)
            self.collected.add(rollouts.collect(self._sample_actions, steps=steps))
            if rollouts.stopped:
                return {}
            inverse_error = self._refit_inverse_model(play, rollouts)
            policy_error = self._fit_policy(dataset, rollouts, refit=True)
            return {"inverse/validation_error": inverse_error, "policy/validation_error": policy_error}

        rollouts.repeat(collect_and_update)

    def _refit_inverse_model(self, play: Trajectories, runner: UpdateRunner) -> float:
        """Fit the inverse model to play and all that was collected."""
        trajectories = [*play, *self.collected.trajectories]
        train_mask = self._split(len(trajectories), self.train_mask["play"] + self.train_mask["collected"])
        self.train_mask["collected"] = train_mask[len(play) :]
        dataset = TrajectoryDataset(trajectories, self.action_encoding, self.device)
        return self._fit_inverse_model(dataset, train_mask, runner, refit=True)

    @torch.no_grad()
    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        labels = act_on_windows(self.inverse_model, demos, torch.arange(len(demos), device=self.device))
        if self.inverse_model.discrete:
            labels = torch.nn.functional.one_hot(labels.argmax(-1), self.action_encoding.size).float()
        return labels


class _OnlineState:
    """State of all that a round of ``learn`` changes. Optimizers are not part of it: each round has its own."""

    def __init__(self, agent: BCOAgent) -> None:
        self._agent = agent

    def state_dict(self) -> dict[str, Any]:
        return {"parameters": self._agent.get_parameters(), "training": self._agent._training_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._agent.set_parameters(state["parameters"], device=self._agent.device)
        self._agent._load_training_state(state["training"])
