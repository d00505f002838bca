"""The base of agents that learn a reward, on which one of SB3's algorithms trains their policy.

The one level between [`ImitationAgent`][] and some of the agents. All that it does is done by
a part, [`LearnedRewardTrainer`][]; but the phases of an agent are methods that it
defines, and each of these agents would define the same dozen to hand them on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from aime_gym.agents.base import ImitationAgent
from aime_gym.data import TrajectoryDataset
from aime_gym.learned_reward.trainer import LearnedReward, LearnedRewardConfig, LearnedRewardTrainer
from aime_gym.training.loop import TrainingLoop
from aime_gym.types import Array, Observation, Trajectories

#: Stacks of frames that the policy sees at once.
_BATCH_SIZE = 512


class LearnedRewardAgent(ImitationAgent):
    """An agent whose policy is trained in its environment, on a reward that it learns from demonstrations.

    ``imitate(demos)`` takes ``timesteps`` environment steps, ``imitate(demos, total_timesteps)`` as many as it is told,
    and ``learn(total_timesteps)`` goes on. Needs no play.
    """

    config: LearnedRewardConfig
    needs_play = False
    imitates_online = True
    default_n_envs = 8  # one pass through the networks then acts in all of them

    @abstractmethod
    def _make_reward(self, space: spaces.Dict) -> LearnedReward:
        """Make a reward that has learnt nothing yet.

        :param space: space of a stacked observation: vectors (D,) and images (C, H, W).
        :raises NotImplementedError: observations that it cannot see.
        """

    def reward_fn(self, obs: Observation, next_obs: Observation) -> Array:
        """Return the learned reward of transitions, (n,), without the value of a termination.

        Images are taken for the first two of an episode, the frames before s for copies of s.

        :param obs: s, (n, ...).
        :param next_obs: s', (n, ...); at an episode's end the last observation, not the next start.
        :raises ValueError: other sensors or shapes.
        """
        self._require_setup()
        return self.trainer.rewards(obs, next_obs=next_obs)

    def transition_reward(self, obs: Observation, actions: Array, next_obs: Observation, terminated: Array) -> Array:
        """Return the learned reward of transitions, (n,), with the value of a termination.

        For [`aime_gym.learned_reward.vec_envs.LearnedRewardVecEnv`][]. Images are taken as ``reward_fn`` takes
        them.
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
        if self.trainer.fit_demonstrations(demos, loop):
            self.trainer.train(self, demos, loop.total_timesteps or self.config.timesteps, loop, "imitate")

    def _learn(self, demos: Trajectories, loop: TrainingLoop) -> None:
        assert loop.total_timesteps is not None
        self.trainer.train(self, demos, loop.total_timesteps, loop, "learn")

    @torch.no_grad()
    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        """Return the actions that the policy would have taken."""
        frame_stack = self.trainer.frame_stack
        rows = (torch.arange(len(demos), device=self.device) - 1).clamp_min(0)
        batches = rows.split(_BATCH_SIZE) if frame_stack.images else [rows]
        return torch.cat([self.trainer.act(frame_stack.of_records(demos, batch), None) for batch in batches])

    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        stacked = self.trainer.frame_stack.reset(observation)
        return tuple(stacked[name] for name in self.trainer.frame_stack.images)

    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        frame_stack = self.trainer.frame_stack
        stacked = frame_stack.append(dict(zip(frame_stack.images, state, strict=True)), observation)
        return self.trainer.act(stacked, generator), tuple(stacked[name] for name in frame_stack.images)
