"""BC: behavioural cloning of the demonstrations' true actions. An oracle: no other agent may see them.

    policy   a_t = pi(o_{t-k+1} ... o_t)      by regression on demonstrations with actions

Networks and training are those of BCO, so that the two differ only in where the labels come from.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from aime_gym.agents.stacked_agent import StackedAgent
from aime_gym.data import TrajectoryDataset, split_trajectories
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.supervised import StackedConfig, act_on_windows, regress_actions
from aime_gym.types import Trajectories


class BCAgent(StackedAgent):
    """Clones demonstrations from their actions; an oracle for agents that do without. Needs no play.

    Hyper-parameters: [`StackedConfig`][].
    """

    config: StackedConfig
    presets: ClassVar = {"default": StackedConfig()}
    needs_play = False
    needs_demonstration_actions = True

    def _setup_networks(self) -> None:
        self.policy = self._stacked_network(self.config.stack)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy"], []

    def _pretrain(self, play: Trajectories, loop: TrainingLoop) -> None:
        loop.logger.info("BCAgent.pretrain: behavioural cloning has nothing to learn from play")

    def _imitate(self, demos: Trajectories, loop: TrainingLoop) -> None:
        dataset = TrajectoryDataset(demos, self.action_encoding, self.device)
        assert dataset.prev_actions is not None
        self.policy = self._fresh_policy()
        self.policy.fit_standardizer(dataset.observations)
        regress_actions(
            self.policy,
            dataset,
            dataset.prev_actions,
            split_trajectories(len(demos), self.config.train_fraction, loop.generator),
            lag=1,
            config=self.config,
            name="policy",
            runner=loop,
            generator=loop.generator,
        )

    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        """Return the actions that the policy would have taken."""
        rows = torch.arange(len(demos), device=self.device)
        return act_on_windows(self.policy, demos, (rows - 1).clamp_min(0))
