"""The base of agents that learn a world model from play, and a policy in its latent space without an environment step.

What AIME, DITTO and D-GAIL do with play, how they infer actions, and the files of their world models.
"""

from __future__ import annotations

from os import PathLike

from torch import Tensor

from aime_gym.agents.latent_policy_agent import LatentPolicyAgent
from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.action_inference import (
    InferenceConfig,
    infer_policy,
    inverse_source,
    policy_source,
    require_fitted,
)
from aime_gym.model_based.filtering import RowSource, filter_trajectories
from aime_gym.model_based.latent_regression import fit_inverse_model
from aime_gym.model_based.one_hot_evidence import likeliest_source
from aime_gym.model_based.pretraining import fit_world_model
from aime_gym.models.config import WorldModelConfig
from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.pretrained import write_world_model
from aime_gym.models.world_model import WorldModel
from aime_gym.training.loop import TrainingLoop
from aime_gym.types import Trajectories


class WorldModelAgent(LatentPolicyAgent):
    """An agent with a world model, an inverse model of its latent states, and a policy on them.

    ``world_model`` is as in [`InferenceConfig`][], or the path of a file that [`save_world_model`][] wrote, whose
    configuration replaces that of the preset. Its sensors and actions have to be those of the environment.
    """

    config: InferenceConfig

    def _setup_networks(self) -> None:
        config, actions = self.config.world_model, self.action_encoding.size
        assert isinstance(config, WorldModelConfig)
        self.world_model = WorldModel(config, self.observation_encoding.shapes, actions)
        features, shown = self.world_model.feature_size, self.world_model.inverse_model_input_size
        self.inverse_model = LatentInverseModel(features, shown, actions, discrete=self.action_encoding.discrete)
        self.policy = self._fresh_policy()
        if self._import_world_model(self.world_model, self.inverse_model) and self.config.warm_start:
            require_fitted(self.inverse_model)

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

    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        return filter_trajectories(self.world_model, demos, self._action_source(demos)).prev_actions

    def _action_source(self, demos: TrajectoryDataset) -> RowSource:
        """Return the source of inferred actions: the policy once it has imitated, the inverse model before.

        For one-hot actions the world model's comparison of all of them.
        """
        if self.action_encoding.discrete or self.imitated:
            return self._explaining_source()
        return inverse_source(self.inverse_model, self.world_model, demos)

    def _explaining_source(self) -> RowSource:
        """Return the source of the actions that phase 2 has found to explain the demonstrations."""
        if self.action_encoding.discrete:
            return likeliest_source(self.world_model)
        return policy_source(self.policy, self.action_encoding.size)

    # Files

    def save_world_model(self, path: str | PathLike[str]) -> None:
        """Write the world model, and the inverse model that belongs to it, to a file of their own.

        :param path: gets the suffix ``.safetensors`` if it has none.
        :raises ValueError: an agent that has not pretrained, or another suffix.
        """
        if not self.pretrained:
            raise ValueError("world_model: expected one that was pretrained, got a new one; call pretrain first")
        write_world_model(path, self.world_model, self.inverse_model)
