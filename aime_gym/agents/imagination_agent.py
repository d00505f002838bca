"""The base of agents that imitate in imagined rollouts of a world model: DITTO and D-GAIL."""

from __future__ import annotations

from typing import ClassVar

from aime_gym.agents.world_model_agent import WorldModelAgent
from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.filtering import FilteredLatents, filter_trajectories, recorded_source
from aime_gym.model_based.imagined_imitation import ImaginedImitation, ImaginedImitationConfig
from aime_gym.model_based.latent_regression import clone_actions
from aime_gym.training.loop import TrainingLoop
from aime_gym.types import Trajectories


class ImaginationAgent(WorldModelAgent):
    """Imitates demonstrations in imagined rollouts from their own latent states."""

    config: ImaginedImitationConfig
    presets: ClassVar = {"default": ImaginedImitationConfig()}
    #: Whether the reward is D-GAIL's, instead of DITTO's.
    adversarial: ClassVar[bool]

    @classmethod
    def reads_actions(cls, config: ImaginedImitationConfig) -> bool:
        """Return whether ``imitate`` reads the demonstrations' actions."""
        return config.expert_actions

    def _imitate(self, demos: Trajectories, loop: TrainingLoop) -> None:
        config = self.config
        encoding = self.action_encoding if config.expert_actions else None
        dataset = TrajectoryDataset(demos, encoding, self.device)
        self._start_policy()
        latents = self._fit_actions(dataset, loop)
        if latents is None:
            return
        if not config.cloned_start:
            self._start_policy()
        with self._initial_weights():
            updates = ImaginedImitation(
                self.world_model,
                self.policy,
                dataset,
                latents,
                config,
                self._noise,
                loop.generator,
                adversarial=self.adversarial,
            )
        loop.run("imagination", config.imagination_updates, updates.update, updates)

    def _fit_actions(self, demos: TrajectoryDataset, loop: TrainingLoop) -> FilteredLatents | None:
        """Filter demonstrations with their own actions or inferred ones, after fitting the policy to these.

        :return: their latent states; ``None`` if the policy's updates were cut short.
        """
        config = self.config
        if not config.expert_actions:
            completed = self._infer_policy(demos, loop)
            return filter_trajectories(self.world_model, demos, self._explaining_source()) if completed else None
        latents = filter_trajectories(self.world_model, demos, recorded_source(demos))
        completed = not config.cloned_start or clone_actions(
            self.policy,
            demos,
            latents,
            loop,
            updates=config.clone_updates,
            start_fraction=config.demo_start_fraction,
            start_steps=config.sequence_length,
        )
        return latents if completed else None
