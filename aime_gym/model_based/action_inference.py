"""Phase 2 of AIME: the evidence of demonstrations under a policy's actions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from aime_gym.data import SequenceSampler, TrajectoryDataset
from aime_gym.model_based.filtering import (
    FilteredLatents,
    RowSource,
    by_pieces,
    filter_trajectories,
    input_changes,
    standardized,
)
from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.policies import LatentPolicy
from aime_gym.models.rssm import InverseActions, PolicyActions, State
from aime_gym.models.world_model import Evidence, WorldModel
from aime_gym.training.loop import SequenceConfig
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Metrics, SequenceBatch

#: Source of standard normal noise of a shape.
Noise = Callable[..., Tensor]

#: Updates of the policy between two passes that filter what sequences start from. A pass costs as much as ten updates.
_FILTER_INTERVAL = 250
#: Memory of the embeddings of all demonstrations.
_MAX_BYTES = 2**29


class InferenceConfig(SequenceConfig, Protocol):
    """Options of a configuration that phase 2 follows."""

    @property
    def policy_updates(self) -> int:
        """Number of updates."""

    @property
    def policy_learning_rate(self) -> float:
        """Adam's learning rate for the policy."""

    @property
    def policy_matrix_learning_rate(self) -> float | None:
        """Muon's learning rate for the policy's weight matrices; ``None`` leaves them to Adam."""

    @property
    def demo_start_fraction(self) -> float:
        """Share of sequences that start where a demonstration starts."""

    @property
    def continue_latents(self) -> bool:
        """Whether sequences of demonstrations continue from the filtered latent state."""


@dataclass(frozen=True)
class ActionInference:
    """Evidence of demonstrations under a policy's actions, through a frozen world model (Eq. 8).

    :param world_model: world model, whose weights have no gradient.
    """

    world_model: WorldModel

    def evidence(
        self,
        policy: LatentPolicy,
        batch: SequenceBatch,
        noise: Noise,
        *,
        starts: FilteredLatents | None = None,
        embeddings: Tensor | None = None,
    ) -> Evidence:
        """Compute the evidence of demonstrations under the policy's actions, whose ``loss`` is to be minimised.

        :param policy: policy whose samples are the actions.
        :param batch: sequences of demonstrations, without actions.
        :param noise: source of standard normal noise.
        :param starts: latent features and actions of every record of the demonstrations, which sequences continue from;
            ``None`` starts them from the zero state.
        :param embeddings: embeddings (T, B, E) of the sequences, where they are known already.
        """
        model, initial, first = self.world_model, None, None
        if starts is not None:
            first = starts.prev_actions[batch.rows[0]]
            before = starts.features[(batch.rows[0] - 1).clamp_min(0)] * ~batch.is_first[:, None]
            initial = State(*before.split([model.config.deter, model.config.stoch], dim=-1))
        source = PolicyActions(policy, noise(*batch.valid.shape, model.action_size), first)
        return model.evidence(
            batch.observations,
            source,
            noise(*batch.valid.shape, model.config.stoch),
            initial=initial,
            valid=batch.valid,
            regularize=False,
            embeddings=embeddings,
        )


class PolicyUpdates:
    """Updates of a policy by the evidence of demonstrations, through a frozen world model.

    What sequences start from is filtered anew from time to time: the latent state at a record depends on the actions
    that led there, which are the policy's.

    :param demos: demonstrations, without actions.
    """

    def __init__(
        self,
        inference: ActionInference,
        policy: LatentPolicy,
        demos: TrajectoryDataset,
        config: InferenceConfig,
        noise: Noise,
        generator: torch.Generator,
    ) -> None:
        self.inference, self.policy, self.demos, self.noise = inference, policy, demos, noise
        self.continue_latents = config.continue_latents
        self.sampler = SequenceSampler(
            demos,
            sequence_length=config.sequence_length,
            batch_size=config.batch_size,
            generator=generator,
            start_fraction=config.demo_start_fraction,
        )
        self.optimizer = Optimizer(
            [policy],
            config.policy_learning_rate,
            matrix_learning_rate=config.policy_matrix_learning_rate,
            max_grad_norm=config.max_grad_norm,
            decay_updates=config.policy_updates if config.decay_learning_rate else None,
        )
        self.updates = 0
        #: Embeddings (N, E) of all records, unless they are too large: the world model does not change.
        self.embeddings = embed_all(inference.world_model, demos)
        #: Policy that the starts were filtered with, as its weights.
        self.filtering: dict[str, Tensor] = {}
        self.starts: FilteredLatents | None = None

    def update(self) -> Metrics:
        """Make one update."""
        if self.continue_latents and self.updates % _FILTER_INTERVAL == 0:
            self._filter(self.policy)
        batch = self.sampler.sample()
        evidence = self.inference.evidence(
            self.policy,
            batch,
            self.noise,
            starts=self.starts,
            embeddings=None if self.embeddings is None else self.embeddings[batch.rows],
        )
        self.updates += 1
        return evidence.metrics | {"gradient_norm": self.optimizer.step(evidence.loss)}

    def _filter(self, policy: LatentPolicy) -> None:
        model = self.inference.world_model
        self.filtering = {name: weights.clone() for name, weights in policy.state_dict().items()}
        self.starts = filter_trajectories(model, self.demos, policy_source(policy, model.action_size))

    def state_dict(self) -> dict[str, Any]:
        """Return all that [`update`][] changes."""
        return {"optimizer": self.optimizer.state_dict(), "updates": self.updates, "filtering": self.filtering}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        if state["filtering"]:
            policy = copy.deepcopy(self.policy)
            policy.load_state_dict(state["filtering"])
            self._filter(policy)
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]


@torch.no_grad()
def embed_all(model: WorldModel, dataset: TrajectoryDataset) -> Tensor | None:
    """Return the embeddings (N, E) of all records, or ``None`` where they take more than ``_MAX_BYTES``."""
    if 4 * len(dataset) * model.embedding_size > _MAX_BYTES:
        return None
    rows = torch.arange(len(dataset), device=dataset.device)
    return by_pieces(model, lambda piece: model.embed(standardized(model, dataset, piece)), rows)


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
            "pretrain it again, or go without: warm_start=False"
        )
