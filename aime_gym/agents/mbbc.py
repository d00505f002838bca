"""MBBC: model-based behavioural cloning, an oracle (Zhang et al. 2024, arXiv 2404.18896, section 1).

    phase 1   phi, theta = argmax E[ELBO(o | recorded actions)]        over play data
    phase 2   psi        = argmin E[|mode pi_psi(a | s) - a|^2]        over demonstrations, filtered with their actions

AIME that is told what it would have to infer. What it falls short of the expert by is what the demonstrations do not
cover; what AIME falls short of it by is what the world model does not know of the body.

Deviations from the authors' code: those of AIME's default world model, and a fixed number of updates in place of early
stopping on held-out clips, which overlap those that are learnt from.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aime_gym.agents.base import ImitationAgent
from aime_gym.data import TrajectoryDataset
from aime_gym.models.acting import act_in_latents, initial_memory
from aime_gym.models.config import WorldModelConfig
from aime_gym.models.policies import LatentPolicy, latent_policy
from aime_gym.models.sources import RecordedActions
from aime_gym.models.world_model import WorldModel
from aime_gym.training.action_inference import policy_source
from aime_gym.training.embodiment import EmbodimentConfig, fit_world_model
from aime_gym.training.filtering import Filtered, filter_trajectories
from aime_gym.training.fit import Fit
from aime_gym.training.latent_regression import clone_actions
from aime_gym.training.ranges import check_ranges
from aime_gym.types import Trajectories


@dataclass(frozen=True)
class MBBCConfig(EmbodimentConfig):
    """Hyper-parameters of :class:`MBBCAgent`; those of phase 1 are ``EmbodimentConfig``'s.

    :param clone_updates: updates of the policy.
    :param demo_start_fraction: share of each minibatch that comes from the starts of demonstrations.
    """

    clone_updates: int = 3000
    demo_start_fraction: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, clone_updates=(0, None), demo_start_fraction=(0, 1))


class MBBCAgent(ImitationAgent):
    """Clones demonstrations with their actions in the latent space of a world model learnt from play.

    An oracle: it sees the demonstrations' actions. Hyper-parameters: :class:`MBBCConfig`.
    """

    config: MBBCConfig
    policy: LatentPolicy
    presets: ClassVar = {"default": MBBCConfig()}
    needs_play = True
    needs_demonstration_actions = True

    def _setup_networks(self) -> None:
        assert isinstance(self.config.world_model, WorldModelConfig)
        self.world_model = WorldModel(self.config.world_model, self.observations.shapes, self.encoding.size)
        self.policy = self._fresh_policy()

    def _fresh_policy(self) -> LatentPolicy:
        features, encoding = self.world_model.feature_size, self.encoding
        return latent_policy(features, encoding.size, discrete=encoding.discrete, **self.policy_kwargs)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["world_model", "policy"], []

    def _pretrain(self, play: Trajectories, fit: Fit) -> None:
        fit_world_model(self.world_model, TrajectoryDataset(play, self.encoding, self.device), fit, self.config)

    def _imitate(self, demos: Trajectories, fit: Fit) -> None:
        dataset, config = TrajectoryDataset(demos, self.encoding, self.device), self.config
        self.world_model.requires_grad_(False)
        with self._initial_weights():
            self.policy = self._fresh_policy().to(self.device)
        clone_actions(
            self.policy,
            dataset,
            self._filter(dataset),
            fit,
            phase="policy",
            updates=config.clone_updates,
            start_fraction=config.demo_start_fraction,
            start_steps=config.horizon,
        )

    def _filter(self, demos: TrajectoryDataset) -> Filtered:
        pre_actions = demos.pre_actions
        assert pre_actions is not None
        return filter_trajectories(self.world_model, demos, lambda rows: RecordedActions(pre_actions[rows]))

    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        """What the policy would have done."""
        return filter_trajectories(self.world_model, demos, policy_source(self.policy, self.encoding.size)).pre_actions

    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        noise = None if generator is None else functools.partial(self._noise, of=generator)
        return act_in_latents(self.world_model, self.policy, observation, state, noise)

    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return initial_memory(self.world_model, observation)
