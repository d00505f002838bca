"""What an agent is that learns a reward and lets an algorithm of SB3 earn it.

The one level between :class:`~aime_gym.agents.base.ImitationAgent` and some of the agents. All that it does is done by
a part, :class:`~aime_gym.learned_reward.trainer.LearnedRewardTrainer`; but the phases of an agent are methods that it
defines, and each of these agents would define the same dozen to hand them on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aime_gym.agents.base import ImitationAgent
from aime_gym.data import TrajectoryDataset
from aime_gym.learned_reward.trainer import LearnedReward, LearnedRewardConfig, LearnedRewardTrainer
from aime_gym.models.flat_layout import FlatLayout
from aime_gym.training.loop import TrainingLoop
from aime_gym.types import Array, Observation, Trajectories

#: How many stacks of frames the policy is shown at once.
_ROWS = 512


class LearnedRewardAgent(ImitationAgent):
    """An agent with a :class:`~aime_gym.learned_reward.trainer.LearnedReward`, which it earns in its environment."""

    config: LearnedRewardConfig
    needs_play = False
    imitates_online = True
    default_n_envs = 8  # one pass through the networks then acts in all of them

    @abstractmethod
    def _make_reward(self, layout: FlatLayout) -> LearnedReward:
        """A reward of flat observations, that has learnt nothing yet.

        :raises NotImplementedError: observations that it cannot see.
        """

    def transition_reward(self, obs: Observation, actions: Array, next_obs: Observation, terminated: Array) -> Array:
        """The reward that the agent is paid, (n,): ``reward_fn``, and what a termination is worth.

        For :class:`~aime_gym.learned_reward.vec_envs.LearnedRewardVecEnv`. Two images are taken for the first ones of
        an episode, as ``reward_fn`` takes them.
        """
        self._require_setup()
        return self.trainer.transition_reward(obs, actions, next_obs, terminated)

    def _setup_networks(self) -> None:
        self.trainer = LearnedRewardTrainer(
            self.config,
            self.observation_encoding,
            self.action_encoding,
            self._make_reward,
            policy_kwargs=self.policy_kwargs,
            device=self.device,
        )
        vars(self).update(self.trainer.modules)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return list(self.trainer.modules), []

    def _training_state(self) -> dict[str, Any]:
        return self.trainer.state_dict()

    def _load_training_state(self, state: Mapping[str, Any]) -> None:
        self.trainer.load_state_dict(state)

    def _pretrain(self, play: Trajectories, loop: TrainingLoop) -> None:
        loop.logger.info(f"{type(self).__name__}.pretrain: there is nothing to learn from play")

    def _imitate(self, demos: Trajectories, loop: TrainingLoop) -> None:
        with self._initial_weights():
            self._setup_networks()
        if self.trainer.start(demos, loop):
            self.trainer.run(self, demos, loop.total_timesteps or self.config.timesteps, loop, "imitate")

    def _learn(self, demos: Trajectories, loop: TrainingLoop) -> None:
        assert loop.total_timesteps is not None
        self.trainer.run(self, demos, loop.total_timesteps, loop, "learn")

    @torch.no_grad()
    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        """What the policy would have done."""
        rows = (torch.arange(len(demos), device=self.device) - 1).clamp_min(0)
        parts = rows.split(_ROWS) if self.trainer.stacked.images else [rows]
        return torch.cat([self.trainer.act(self.trainer.stacked.recorded(demos, part), None) for part in parts])

    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        stacked = self.trainer.stacked
        return (stacked.start(observation),) if stacked.images else ()

    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        stacked = self.trainer.stacked
        rows = stacked.push(state[0], observation) if stacked.images else stacked.start(observation)
        return self.trainer.act(rows, generator), (rows,) if stacked.images else ()
