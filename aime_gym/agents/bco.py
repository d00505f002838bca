"""BCO(0): Behavioural Cloning from Observation (Torabi, Warnell and Stone 2018, arXiv 1805.01954).

    inverse dynamics model   a_{t-1} = g(o_{t-k} ... o_t)      from play
    policy                   a_t = pi(o_{t-k+1} ... o_t)       cloned from demonstrations that g has labelled

Networks and training follow the AIME authors' comparison: two hidden layers of 128, tanh head, Adam 1e-3 without
clipping, a 70/30 split and early stopping. Deviations: whole trajectories are held out, since overlapping windows of
one would leak into the other part; observations are standardised by the play data; windows at the start of an episode
repeat its first observation in training too, as they do in acting. Discrete actions are trained by cross-entropy.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from aime_gym.agents.base import ImitationAgent
from aime_gym.data import TrajectoryDataset
from aime_gym.models.stacked import StackedNetwork, joined
from aime_gym.training.fit import Fit
from aime_gym.training.supervised import StackedConfig, regress_actions
from aime_gym.types import Trajectories


class BCOAgent(ImitationAgent):
    """Labels demonstrations with an inverse dynamics model learnt from play, and clones them.

    Hyper-parameters: :class:`~aime_gym.training.supervised.StackedConfig`.
    """

    config: StackedConfig
    policy: StackedNetwork
    inverse_model: StackedNetwork
    presets: ClassVar = {"default": StackedConfig()}
    needs_play = True

    def _setup_networks(self) -> None:
        self.inverse_model = self._network(self.config.stack + 1)
        self.policy = self._network(self.config.stack)

    def _network(self, frames: int) -> StackedNetwork:
        observation, discrete = sum(self.sensor_sizes.values()), isinstance(self.action_space, spaces.Discrete)
        return StackedNetwork(observation, frames, self.encoding.size, discrete=discrete, **self.policy_kwargs)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["inverse_model", "policy"], []

    def _pretrain(self, play: Trajectories, fit: Fit) -> None:
        dataset = TrajectoryDataset(play, self.encoding, self.device)
        assert dataset.pre_actions is not None
        self.inverse_model.standardizer.fit(joined(dataset.observations))
        self._regress(self.inverse_model, dataset, dataset.pre_actions, lag=0, phase="inverse", fit=fit)

    def _imitate(self, demos: Trajectories, fit: Fit) -> None:
        dataset = TrajectoryDataset(demos, None, self.device)
        with self._initial_weights():
            self.policy = self._network(self.config.stack).to(self.device)
        self.policy.standardizer.load_state_dict(self.inverse_model.standardizer.state_dict())
        self._regress(self.policy, dataset, self._infer_actions(dataset), lag=1, phase="policy", fit=fit)

    def _regress(
        self, network: StackedNetwork, dataset: TrajectoryDataset, actions: Tensor, *, lag: int, phase: str, fit: Fit
    ) -> None:
        regress_actions(network, dataset, actions, lag=lag, config=self.config, phase=phase, fit=fit)

    @torch.no_grad()
    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        observations, rows = joined(demos.observations), torch.arange(len(demos), device=self.device)
        labels: Tensor = self.inverse_model(demos.stacked(observations, rows, self.inverse_model.frames))
        if self.inverse_model.discrete:
            labels = torch.nn.functional.one_hot(labels.argmax(-1), self.encoding.size).float()
        return labels

    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return self.policy.start(observation)

    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.policy.step(observation, state, generator)
