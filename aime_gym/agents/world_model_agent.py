"""The base of agents that learn a world model from play, and a policy in its latent space without an environment step.

The one level between [`ImitationAgent`][] and AIME, DITTO and D-GAIL: what these do with play, how they infer actions
and act, the files of their world models, and what two of them do with demonstrations.
"""

from __future__ import annotations

import functools
from os import PathLike

import torch
from torch import Tensor

from aime_gym.agents.base import ImitationAgent
from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.action_inference import (
    InferenceConfig,
    infer_policy,
    inverse_source,
    policy_source,
    require_fitted,
)
from aime_gym.model_based.filtering import FilteredLatents, RowSource, filter_trajectories, recorded_source
from aime_gym.model_based.imagined_imitation import ImaginedImitation, ImaginedImitationConfig
from aime_gym.model_based.latent_regression import clone_actions, fit_inverse_model
from aime_gym.model_based.predict import act_in_latents, initial_memory
from aime_gym.model_based.pretraining import fit_world_model
from aime_gym.models.config import WorldModelConfig
from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.policies import LatentPolicy, make_latent_policy
from aime_gym.models.pretrained import write_world_model
from aime_gym.models.world_model import WorldModel
from aime_gym.training.loop import TrainingLoop
from aime_gym.types import Trajectories


class WorldModelAgent(ImitationAgent):
    """An agent with a world model, an inverse model of its latent states, and a policy on them.

    ``world_model`` is as in [`InferenceConfig`][], or the path of a file that [`save_world_model`][] wrote, whose
    configuration replaces that of the preset. Its sensors and actions have to be those of the environment.
    """

    config: InferenceConfig
    policy: LatentPolicy
    needs_play = True

    def _setup_networks(self) -> None:
        config, actions = self.config.world_model, self.action_encoding.size
        assert isinstance(config, WorldModelConfig)
        self.world_model = WorldModel(config, self.observation_encoding.shapes, actions)
        features, shown = self.world_model.feature_size, self.world_model.inverse_model_input_size
        self.inverse_model = LatentInverseModel(features, shown, actions, discrete=self.action_encoding.discrete)
        self.policy = self._fresh_policy()
        if self._import_world_model(self.world_model, self.inverse_model) and self.config.warm_start:
            require_fitted(self.inverse_model)

    def _fresh_policy(self) -> LatentPolicy:
        features, encoding = self.world_model.feature_size, self.action_encoding
        return make_latent_policy(features, encoding.size, discrete=encoding.discrete, **self.policy_kwargs)

    def _start_policy(self) -> None:
        """Start from a policy with new weights, in the world model as it is."""
        self.world_model.requires_grad_(False)
        with self._initial_weights():
            self.policy = self._fresh_policy().to(self.device)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["world_model", "inverse_model", "policy"], []

    # Phase 1

    def _pretrain(self, play: Trajectories, loop: TrainingLoop) -> None:
        dataset = TrajectoryDataset(play, self.action_encoding, self.device)
        self.inverse_model.variance.zero_()  # it does not fit what the model becomes now
        fit_world_model(self.world_model, dataset, loop, self.config)
        # Also when the model was interrupted: without an inverse model, what it learnt could not be used.
        fit_inverse_model(self.inverse_model, self.world_model, dataset, loop, updates=self.config.inverse_updates)

    # Phase 2

    def _infer_policy(self, demos: TrajectoryDataset, loop: TrainingLoop) -> bool:
        """Fit the policy to demonstrations as AIME does, and return whether the updates came to their end."""
        return infer_policy(self.world_model, self.inverse_model, self.policy, demos, loop, self.config, self._noise)

    def _imitate_in_imagination(
        self, demos: Trajectories, loop: TrainingLoop, config: ImaginedImitationConfig, *, adversarial: bool
    ) -> None:
        """Fit the policy to demonstrations in imagined rollouts.

        :param adversarial: whether the reward is D-GAIL's, instead of DITTO's.
        """
        encoding = self.action_encoding if config.expert_actions else None
        dataset = TrajectoryDataset(demos, encoding, self.device)
        self._start_policy()
        latents = self._fit_actions(dataset, loop, config)
        if latents is None:
            return
        if not config.cloned_start:
            self._start_policy()
        with self._initial_weights():
            updates = ImaginedImitation(
                self.world_model,
                self.policy,
                dataset,
                latents.features,
                config,
                self._noise,
                loop.generator,
                adversarial=adversarial,
            )
        loop.run("imagination", config.imagination_updates, updates.update, updates)

    def _fit_actions(
        self, demos: TrajectoryDataset, loop: TrainingLoop, config: ImaginedImitationConfig
    ) -> FilteredLatents | None:
        """Filter demonstrations with their own actions or inferred ones, after fitting the policy to these.

        :return: their latent states; ``None`` if the policy's updates were cut short.
        """
        if not config.expert_actions:
            completed = self._infer_policy(demos, loop)
            source = policy_source(self.policy, self.action_encoding.size)
            return filter_trajectories(self.world_model, demos, source) if completed else None
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

    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        return filter_trajectories(self.world_model, demos, self._action_source(demos)).prev_actions

    def _action_source(self, demos: TrajectoryDataset) -> RowSource:
        """Return the source of inferred actions: the policy once it has imitated, the inverse model before."""
        if self.imitated:
            return policy_source(self.policy, self.action_encoding.size)
        return inverse_source(self.inverse_model, self.world_model, demos)

    # Acting

    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        noise = None if generator is None else functools.partial(self._noise, of=generator)
        return act_in_latents(self.world_model, self.policy, observation, state, noise)

    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return initial_memory(self.world_model, observation)

    # Files

    def save_world_model(self, path: str | PathLike[str]) -> None:
        """Write the world model, and the inverse model that belongs to it, to a file of their own.

        :param path: gets the suffix ``.safetensors`` if it has none.
        :raises ValueError: an agent that has not pretrained, or another suffix.
        """
        if not self.pretrained:
            raise ValueError("world_model: expected one that was pretrained, got a new one; call pretrain first")
        write_world_model(path, self.world_model, self.inverse_model)
