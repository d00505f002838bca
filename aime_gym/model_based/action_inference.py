"""Phase 2 of AIME: the evidence of demonstrations under a policy's actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.filtering import FilteredLatents, RowSource, input_changes
from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.policies import LatentPolicy
from aime_gym.models.rssm import InverseActions, PolicyActions, State
from aime_gym.models.world_model import Evidence, WorldModel, per_sequence
from aime_gym.types import SequenceBatch

#: Source of standard normal noise of a shape.
Noise = Callable[..., Tensor]


class InferenceConfig(Protocol):
    """Options of a configuration that phase 2 follows."""

    @property
    def action_prior(self) -> bool:
        """Whether actions are scored under the inverse model's belief as well."""

    @property
    def continue_latents(self) -> bool:
        """Whether sequences of demonstrations continue from the filtered latent state."""


@dataclass(frozen=True)
class ActionInference:
    """Loss of a policy by how well its actions explain demonstrations, through a frozen world model (Eq. 8).

    :param inverse_model: model whose belief scores the policy's actions as well; ``None`` leaves that out.
    :param continue_latents: whether sequences start from the filtered latent state of the record before them.
    """

    world_model: WorldModel
    inverse_model: LatentInverseModel | None
    continue_latents: bool

    @classmethod
    def from_config(
        cls, config: InferenceConfig, world_model: WorldModel, inverse_model: LatentInverseModel
    ) -> ActionInference:
        """Make the loss that a configuration asks for."""
        return cls(world_model, inverse_model if config.action_prior else None, config.continue_latents)

    def loss(
        self,
        policy: LatentPolicy,
        batch: SequenceBatch,
        beliefs: FilteredLatents | None,
        noise: Noise,
        embeddings: Tensor | None = None,
    ) -> tuple[Tensor, Evidence]:
        """Compute the scalar to minimise: the negative ELBO of demonstrations under the policy's actions.

        :param policy: policy whose samples are the actions.
        :param batch: sequences of demonstrations, without actions.
        :param beliefs: latent features and inferred actions of every record of the demonstrations, which give the
            states to start from and the prior of the actions.
        :param noise: source of standard normal noise.
        :param embeddings: embeddings (T, B, E) of the demonstrations, where they are known already.
        :return: the loss, and the evidence behind it.
        """
        model, initial, first = self.world_model, None, None
        if beliefs is not None:
            first = beliefs.prev_actions[batch.rows[0]]
            if self.continue_latents:
                before = beliefs.features[(batch.rows[0] - 1).clamp_min(0)] * ~batch.is_first[:, None]
                initial = State(*before.split([model.config.deter, model.config.stoch], dim=-1))
        source = PolicyActions(policy, noise(*batch.valid.shape, model.action_size), first)
        evidence = model.evidence(
            batch.observations,
            source,
            noise(*batch.valid.shape, model.config.stoch),
            initial=initial,
            valid=batch.valid,
            regularize=False,
            embeddings=embeddings,
        )
        loss = evidence.loss
        if beliefs is not None and self.inverse_model is not None:
            surprise = self.inverse_model.negative_log_prob(
                evidence.latents.prev_actions, beliefs.prev_actions[batch.rows]
            )
            loss = loss + per_sequence(surprise, batch.valid)
        return loss, evidence


def inverse_source(inverse_model: LatentInverseModel, world_model: WorldModel, dataset: TrajectoryDataset) -> RowSource:
    """Make a source of an inverse model's mean actions, to filter trajectories with.

    :raises ValueError: an inverse model that has learnt nothing.
    """
    require_fitted(inverse_model)
    return lambda rows, embeddings: InverseActions(inverse_model, input_changes(world_model, dataset, rows, embeddings))


def policy_source(policy: LatentPolicy, actions: int) -> RowSource:
    """Make a source of a policy's most likely actions, to filter trajectories with.

    :param actions: size A of an action.
    """

    def source(rows: Tensor, _: Tensor) -> PolicyActions:
        mode = torch.zeros(*rows.shape, actions, device=rows.device)
        return PolicyActions(policy, mode, first_action=mode[0])

    return source


def require_fitted(inverse_model: LatentInverseModel) -> None:
    """Make sure that an inverse model has been fitted.

    :raises ValueError: one that has learnt nothing.
    """
    if not inverse_model.fitted:
        raise ValueError(
            "world_model: expected one with a fitted inverse model, which pretrain ends with, got one without; "
            "pretrain it again, or go without: warm_start=False, action_prior=False, continue_latents=False"
        )
