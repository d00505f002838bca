"""Phase 2 of AIME: the evidence of demonstrations under a policy's actions.

Actions in [-1, 1] are samples of the policy, along which the gradient of the evidence is taken ([`PolicyUpdates`][]).
Of one-hot actions there are few, so what each of them explains is computed, and the gradient is exact
([`aime_gym.model_based.one_hot_evidence`][]). A straight-through gradient would be the slope of the model at an action,
where it has only learnt values: it points to wrong actions often enough to undo a good clone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aime_gym.config import check_bounds
from aime_gym.data import SequenceSampler, TrajectoryDataset
from aime_gym.model_based.filtering import (
    FilteredLatents,
    RowSource,
    by_pieces,
    filter_trajectories,
    input_changes,
    standardized,
)
from aime_gym.model_based.latent_regression import clone_actions
from aime_gym.model_based.one_hot_evidence import OneHotEvidence
from aime_gym.model_based.pretraining import PretrainingConfig
from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.policies import CategoricalPolicy, LatentPolicy
from aime_gym.models.rssm import InverseActions, PolicyActions, State
from aime_gym.models.world_model import Evidence, WorldModel, per_sequence
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.mixed_precision import mixed_precision
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Metrics, SequenceBatch

#: Source of standard normal noise of a shape.
Noise = Callable[..., Tensor]

#: Updates of the policy between two passes that filter what sequences start from. A pass costs as much as ten updates.
_FILTER_INTERVAL = 250
#: Weight of a batch in the average distance of actions from a belief.
_DISTANCE_RATE = 0.02
#: Memory of the embeddings of all demonstrations.
_MAX_BYTES = 2**29


@dataclass(frozen=True)
class InferenceConfig(PretrainingConfig):
    """Hyper-parameters of phase 1, and of a policy that explains demonstrations without actions.

    :param policy_updates: number of updates of the policy by the ELBO in ``imitate``; 0 leaves the warm start alone.
    :param policy_learning_rate: Adam's learning rate for the policy under the ELBO.
    :param policy_matrix_learning_rate: Muon's learning rate for the policy's weight matrices under the ELBO; ``None``
        leaves them to Adam. Larger rates exploit the errors of a world model that does not know the demonstrations.
    :param robust_nats: surprise of a record of a demonstration, in nats, beyond which it counts by its logarithm in the
        ELBO of ``imitate`` and ``learn``, so that what no action explains does not outweigh all else. ``None`` sums
        nats, as the papers do, and as it is for images and for a world model that learns its ``sigma``.
    :param demo_start_fraction: share of sequences of demonstrations that start at an episode's start.
    :param warm_start: whether to clone the policy from inferred actions before maximising the ELBO.
    :param inverse_updates: number of updates of the latent inverse model, at the end of ``pretrain``.
    :param clone_updates: number of updates of the cloned policy.
    :param action_prior: whether the inverse model's belief is a prior of the policy's actions in ``imitate``, at the
        records that its actions explain better; see [`aime_gym.model_based.action_inference.ActionBelief`][]. Needs
        ``warm_start``.
    :param continue_latents: whether sequences of demonstrations start from the latent state that a filter with the
        policy's actions reaches there, instead of zero.
    """

    policy_updates: int = 600
    policy_learning_rate: float = 1e-3
    policy_matrix_learning_rate: float | None = 3e-3
    robust_nats: float | None = 30.0
    demo_start_fraction: float = 0.25
    warm_start: bool = True
    inverse_updates: int = 3000
    clone_updates: int = 3000
    action_prior: bool = True
    continue_latents: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.action_prior and not self.warm_start:
            raise ValueError("action_prior: expected False without warm_start, whose inverse model it needs")
        check_bounds(
            self,
            demo_start_fraction=(0, 1),
            policy_learning_rate=(0, None),
            policy_matrix_learning_rate=(0, None),
            robust_nats=(1e-3, None),
            **dict.fromkeys(("policy_updates", "inverse_updates", "clone_updates"), (0, None)),
        )


@dataclass(frozen=True)
class ActionInference:
    """Evidence of demonstrations under a policy's actions, through a frozen world model (Eq. 8).

    :param world_model: world model, whose weights have no gradient.
    :param robust_nats: surprise of a record beyond which it counts by its logarithm; ``None`` sums nats.
    :param mixed_precision: whether to multiply matrices in bfloat16 where the device is fast at it.
    """

    world_model: WorldModel
    robust_nats: float | None
    mixed_precision: bool = False

    @classmethod
    def from_config(cls, config: InferenceConfig, world_model: WorldModel) -> ActionInference:
        """Make the evidence that a configuration asks for.

        Nats are summed for images, where there are thousands, and where sigma is learnt, so that surprise has no zero.
        """
        summed = world_model.frame_size or world_model.config.sigma is None
        return cls(world_model, None if summed else config.robust_nats, config.mixed_precision)

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
        with mixed_precision(batch.valid.device, enabled=self.mixed_precision):
            return model.evidence(
                batch.observations,
                source,
                noise(*batch.valid.shape, model.config.stoch),
                initial=initial,
                valid=batch.valid,
                regularize=False,
                robust_nats=self.robust_nats,
                embeddings=embeddings,
            )


class ActionBelief:
    """Belief of an inverse model about the actions of demonstrations: Gaussians whose variance is estimated.

    It counts at the records that its actions explain better than the policy's do: the inverse model may be right where
    the policy has not found what it knows, and is wrong where the policy explains more.

    :param filtered: demonstrations filtered with the inverse model's actions, or probabilities of one-hot ones, and
        their surprise.
    :param variance: mean squared error (A,) of the inverse model on held-out play, the least variance.
    """

    def __init__(self, filtered: FilteredLatents, variance: Tensor) -> None:
        assert filtered.surprise is not None
        self.means, self.surprise, self.variance = filtered.prev_actions, filtered.surprise, variance
        #: Moving average (A,) of the squared distance to the policy's actions; ``None`` before the first update.
        self.distance: Tensor | None = None

    def penalty(self, evidence: Evidence, batch: SequenceBatch) -> Tensor:
        """Compute the negative log-density of the policy's actions in nats per sequence, up to a constant.

        :param evidence: evidence of the batch under these actions.
        """
        actions = evidence.latents.prev_actions
        squared = (actions - self.means[batch.rows]).square()
        now = squared.detach()[batch.valid].mean(0)
        self.distance = now if self.distance is None else self.distance.lerp(now, _DISTANCE_RATE)
        variance = torch.maximum(self.distance, self.variance)
        explains_more = self.surprise[batch.rows] < evidence.surprise
        return per_sequence(explains_more * 0.5 * (squared / variance).sum(-1), batch.valid)


class PolicyUpdates:
    """Updates of a policy by the evidence of demonstrations, through a frozen world model.

    What sequences start from is filtered anew from time to time: the latent state at a record depends on the actions
    that led there, which are the policy's.

    The belief of an inverse model is a prior of the actions, where it explains more than the policy. It is as wide as
    the policy's actions are away from it on average, and no narrower than its error on held-out play.

    :param demos: demonstrations, without actions.
    :param belief: belief of an inverse model about their actions; ``None`` for no prior.
    """

    def __init__(
        self,
        world_model: WorldModel,
        policy: LatentPolicy,
        demos: TrajectoryDataset,
        config: InferenceConfig,
        noise: Noise,
        generator: torch.Generator,
        belief: ActionBelief | None = None,
    ) -> None:
        self.belief = belief
        self.world_model, self.policy, self.demos, self.noise = world_model, policy, demos, noise
        self.inference = ActionInference.from_config(config, world_model)
        self.continue_latents = config.continue_latents
        self.sampler = _sampler(demos, config, generator)
        self.optimizer = _policy_optimizer(policy, config)
        self.updates = 0
        #: Embeddings (N, E) of all records, unless they are too large: the world model does not change.
        self.embeddings = embed_all(world_model, demos)
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
        loss = evidence.loss
        if self.belief is not None:
            loss = loss + self.belief.penalty(evidence, batch)
        self.updates += 1
        return evidence.metrics | {"gradient_norm": self.optimizer.step(loss)}

    def _filter(self, policy: LatentPolicy) -> None:
        source = policy_source(policy, self.world_model.action_size)
        self.filtering = {name: weights.clone() for name, weights in policy.state_dict().items()}
        self.starts = filter_trajectories(self.world_model, self.demos, source)

    def state_dict(self) -> dict[str, Any]:
        """Return all that [`update`][] changes."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "filtering": self.filtering,
            "distance": None if self.belief is None else self.belief.distance,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        if state["filtering"]:
            policy = copy.deepcopy(self.policy)
            policy.load_state_dict(state["filtering"])
            self._filter(policy)
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]
        if self.belief is not None:
            self.belief.distance = state["distance"]


def _sampler(demos: TrajectoryDataset, config: InferenceConfig, generator: torch.Generator) -> SequenceSampler:
    return SequenceSampler(
        demos,
        sequence_length=config.sequence_length,
        batch_size=config.batch_size,
        generator=generator,
        start_fraction=config.demo_start_fraction,
    )


def _policy_optimizer(policy: LatentPolicy, config: InferenceConfig) -> Optimizer:
    return Optimizer(
        [policy],
        config.policy_learning_rate,
        matrix_learning_rate=config.policy_matrix_learning_rate,
        max_grad_norm=config.max_grad_norm,
        decay_updates=config.policy_updates if config.decay_learning_rate else None,
    )


def infer_policy(
    world_model: WorldModel,
    inverse_model: LatentInverseModel,
    policy: LatentPolicy,
    demos: TrajectoryDataset,
    loop: TrainingLoop,
    config: InferenceConfig,
    noise: Noise,
) -> bool:
    """Fit a fresh policy to demonstrations without actions, through a frozen world model: phase 2 of AIME.

    :param policy: policy that is fitted in place.
    :param noise: source of standard normal noise.
    :return: whether the updates came to their end.
    """
    one_hot = OneHotEvidence(world_model, demos) if isinstance(policy, CategoricalPolicy) else None
    belief = None
    if config.warm_start:
        if one_hot is not None:
            filtered = one_hot.filtered
        else:
            source = inverse_source(inverse_model, world_model, demos)
            filtered = filter_trajectories(world_model, demos, source, with_surprise=config.action_prior)
            if config.action_prior:
                belief = ActionBelief(filtered, inverse_model.variance)
        completed = clone_actions(
            policy,
            demos,
            filtered,
            loop,
            updates=config.clone_updates,
            start_fraction=config.demo_start_fraction,
            start_steps=config.sequence_length,
            fit_std=not config.policy_updates,
        )
        if not completed:
            return False
    if isinstance(policy, CategoricalPolicy) and one_hot is not None:
        sampler = _sampler(demos, config, loop.generator)

        def loss() -> tuple[Tensor, Metrics]:
            rows, valid, _ = (part.to(one_hot.surprise.device) for part in sampler.sample_rows())
            return one_hot.loss(policy, rows, valid)

        return loop.minimize("policy", config.policy_updates, loss, _policy_optimizer(policy, config))
    updates = PolicyUpdates(world_model, policy, demos, config, noise, loop.generator, belief)
    return loop.run("policy", config.policy_updates, updates.update, updates)


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
            "pretrain it again, or go without: warm_start=False, action_prior=False"
        )
