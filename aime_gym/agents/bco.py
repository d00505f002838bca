"""BCO: Behavioural Cloning from Observation (Torabi, Warnell and Stone 2018, arXiv 1805.01954).

    inverse dynamics model   a_{t-1} = g(o_{t-k} ... o_t)      from play
    policy                   a_t = pi(o_{t-k+1} ... o_t)       cloned from demonstrations that g has labelled

That is BCO(0), ``pretrain`` and ``imitate``. BCO(alpha), ``learn``, goes on from it, with |I_pre| steps of play:

    repeat   collect alpha |I_pre| steps with pi
             g   on play and all that was collected
             pi  on the demonstrations, labelled anew

Networks and training follow the AIME authors' comparison: two hidden layers of 128, tanh head, Adam 1e-3 without
clipping, a 70/30 split and early stopping. Deviations: whole trajectories are held out, since overlapping windows of
one would leak into the other part; observations are standardised by the play data; windows at the start of an episode
repeat its first observation in training too, as they do in acting. Discrete actions are trained by cross-entropy.

BCO(alpha) is the paper's, which stops when pi no longer improves; a number of steps says when here. (The AIME-v2
authors' comparison has 50 rounds of 20 episodes with the most likely actions, and its own networks.) Rounds are of
whole first episodes in all copies of the environment. Pi explores as ``predict`` samples: discrete actions from their
logits, others not at all. What was held out stays so, and each round holds out its share of what it collects. A round
ends with the best weights that it came by, those of before not among them, and has its own moments of Adam.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from aime_gym.agents.base import ImitationAgent
from aime_gym.config import check_bounds
from aime_gym.data import TrajectoryDataset, split_trajectories
from aime_gym.models.stacked import StackedNetwork
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.replay import EpisodeReplayBuffer
from aime_gym.training.rollouts import episode_metrics
from aime_gym.training.rounds import Rounds
from aime_gym.training.supervised import StackedConfig, act_on_windows, regress_actions, regress_further
from aime_gym.types import Metrics, Trajectories


@dataclass(frozen=True)
class BCOConfig(StackedConfig):
    """Hyper-parameters of BCO; ``min_epochs`` and ``min_updates`` hold for what is learnt before ``learn``.

    :param alpha: environment steps of a round of ``learn``, as a share of the steps of play; an episode at least.
    """

    alpha: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, alpha=(0, None))


class BCOAgent(ImitationAgent):
    """Labels demonstrations with an inverse dynamics model learnt from play, and clones them.

    ``learn(total_timesteps)`` then improves both with what the policy does in the environment.
    Hyper-parameters: :class:`BCOConfig`.
    """

    config: BCOConfig
    policy: StackedNetwork
    inverse_model: StackedNetwork
    presets: ClassVar = {"default": BCOConfig()}
    needs_play = True
    improves_online = True

    def _setup_networks(self) -> None:
        self.inverse_model = self._network(self.config.stack + 1)
        self.policy = self._network(self.config.stack)
        self._start_over()

    def _start_over(self) -> None:
        self.play_steps = 0
        self.collected = EpisodeReplayBuffer()
        #: Which trajectories are learnt from; the others are held out.
        self.train_mask: dict[str, list[bool]] = {"play": [], "collected": [], "demos": []}

    def _network(self, frames: int) -> StackedNetwork:
        discrete, shapes = isinstance(self.action_space, spaces.Discrete), self.observation_encoding.shapes
        return StackedNetwork(shapes, frames, self.action_encoding.size, discrete=discrete, **self.policy_kwargs)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["inverse_model", "policy"], []

    def _training_state(self) -> dict[str, Any]:
        return {"play_steps": self.play_steps, "collected": self.collected.state_dict(), "train_mask": self.train_mask}

    def _load_training_state(self, state: Mapping[str, Any]) -> None:
        self._start_over()
        if state:  # files of before learn have none
            self.play_steps = state["play_steps"]
            self.collected.load_state_dict(state["collected"])
            self.train_mask = {name: list(train_mask) for name, train_mask in state["train_mask"].items()}

    # BCO(0)

    def _pretrain(self, play: Trajectories, loop: TrainingLoop) -> None:
        self._start_over()
        dataset = TrajectoryDataset(play, self.action_encoding, self.device)
        assert dataset.prev_actions is not None
        self.inverse_model.fit_standardizer(dataset.observations)
        self.play_steps, self.train_mask["play"] = sum(map(len, play)), self._split(len(play))
        regress_actions(
            self.inverse_model,
            dataset,
            dataset.prev_actions,
            self.train_mask["play"],
            lag=0,
            config=self.config,
            phase="inverse",
            loop=loop,
        )

    def _imitate(self, demos: Trajectories, loop: TrainingLoop) -> None:
        dataset = TrajectoryDataset(demos, None, self.device)
        with self._initial_weights():
            self.policy = self._network(self.config.stack).to(self.device)
        self.policy.standardizer.load_state_dict(self.inverse_model.standardizer.state_dict())
        labels, self.train_mask["demos"] = self._infer_actions(dataset), self._split(len(demos))
        regress_actions(
            self.policy, dataset, labels, self.train_mask["demos"], lag=1, config=self.config, phase="policy", loop=loop
        )

    def _split(self, count: int, known: list[bool] | None = None) -> list[bool]:
        return split_trajectories(count, self.config.train_fraction, self.generator, known or ())

    # BCO(alpha)

    def _learn(self, demos: Trajectories, loop: TrainingLoop) -> None:
        assert loop.total_timesteps is not None
        play = self.pretrained_play or []
        if not play:
            warnings.warn(
                "BCOAgent.learn: expected the play that pretrain learnt from, got None; the inverse model goes on with "
                "what is collected alone, unless load is given play=",
                stacklevel=2,
            )
        # Of other play or demonstrations than before, some are new.
        for name, trajectories in (("play", play), ("demos", demos)):
            self.train_mask[name] = self._split(len(trajectories), self.train_mask[name])
        dataset = TrajectoryDataset(demos, None, self.device)
        rounds = Rounds(loop, "learn", loop.total_timesteps, _Learnt(self))

        def play_round() -> Metrics:
            self.collected.add(self._collect_round_episodes(rounds, round(self.config.alpha * self.play_steps)))
            metrics = episode_metrics(self)
            if not rounds.stopped:
                metrics |= self._improve_inverse_model(play, rounds) | self._improve_policy(dataset, rounds)
            return metrics

        rounds.run(play_round)

    def _improve_inverse_model(self, play: Trajectories, rounds: Rounds) -> Metrics:
        trajectories = [*play, *self.collected.trajectories]
        train_mask = self._split(len(trajectories), self.train_mask["play"] + self.train_mask["collected"])
        self.train_mask["collected"] = train_mask[len(play) :]
        dataset = TrajectoryDataset(trajectories, self.action_encoding, self.device)
        assert dataset.prev_actions is not None
        return self._improve(self.inverse_model, dataset, dataset.prev_actions, train_mask, 0, "inverse", rounds)

    def _improve_policy(self, demos: TrajectoryDataset, rounds: Rounds) -> Metrics:
        labels = self._infer_actions(demos)
        return self._improve(self.policy, demos, labels, self.train_mask["demos"], 1, "policy", rounds)

    def _improve(
        self,
        network: StackedNetwork,
        dataset: TrajectoryDataset,
        actions: Tensor,
        train_mask: list[bool],
        lag: int,
        phase: str,
        rounds: Rounds,
    ) -> Metrics:
        metrics = regress_further(
            network,
            dataset,
            actions,
            train_mask,
            lag=lag,
            config=self.config,
            generator=self.generator,
            on_update=lambda: rounds.update({}),
        )
        return {f"{phase}/{name}": value for name, value in metrics.items()}

    @torch.no_grad()
    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        labels = act_on_windows(self.inverse_model, demos, torch.arange(len(demos), device=self.device))
        if self.inverse_model.discrete:
            labels = torch.nn.functional.one_hot(labels.argmax(-1), self.action_encoding.size).float()
        return labels

    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return self.policy.initial_state(observation)

    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.policy.step(observation, state, generator)


class _Learnt:
    """All that a round of ``learn`` changes. Optimizers are not part of it: each round has its own."""

    def __init__(self, agent: BCOAgent) -> None:
        self._agent = agent

    def state_dict(self) -> dict[str, Any]:
        return {"parameters": self._agent.get_parameters(), "training": self._agent._training_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._agent.set_parameters(state["parameters"], device=self._agent.device)
        self._agent._load_training_state(state["training"])
