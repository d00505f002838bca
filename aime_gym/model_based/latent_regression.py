"""Regressions of actions on the latent features of filtered trajectories: inverse model and cloned policy."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aime_gym.data import TrajectoryDataset, split_trajectories
from aime_gym.model_based.filtering import FilteredLatents, filtered_batches, input_changes, recorded_source
from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.policies import LatentPolicy, TanhGaussianPolicy
from aime_gym.models.world_model import WorldModel
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Metrics

#: Records of a minibatch.
_BATCH = 512
_LEARNING_RATE = 1e-3
#: Share of play that the inverse model is fitted to; its error is measured on the rest.
_TRAIN_FRACTION = 0.9
#: Memory of the transitions that it is fitted to. An image's embedding alone takes 8 kB.
_MAX_BYTES = 2**29
#: Transitions on which its error is measured, and the least variance that is believed.
_ERROR_SAMPLE, _MIN_VARIANCE = 8192, 1e-4
#: Least std of a cloned policy, before tanh. The error on the demonstrations that it was fitted to may be far below its
#: error elsewhere, and what learns from its samples needs some spread.
_MIN_STD = 0.1


class _Transitions(NamedTuple):
    """Inputs and targets of an inverse model, one row for each transition."""

    features: Tensor  # (M, H + S), the latent state before it
    changes: Tensor  # (M, D), how the inverse model's inputs change by it
    actions: Tensor  # (M, A)


def fit_inverse_model(
    model: LatentInverseModel, world_model: WorldModel, play: TrajectoryDataset, loop: TrainingLoop, *, updates: int
) -> None:
    """Regress a_{t-1} on [h, s]_{t-1} and the change since then, and measure the error on held-out episodes.

    The latent states are those of the play data, filtered with its recorded actions. Of data that is too large to keep
    them, a random part is learnt from. Of a single episode the last part is held out. Without a single update the model
    counts as not fitted.

    :param updates: number of updates.
    """
    train_mask = split_trajectories(len(play.trajectories), _TRAIN_FRACTION, loop.generator)
    train, held_out = play.split_rows(train_mask, _TRAIN_FRACTION)
    row_bytes = 4 * (world_model.feature_size + world_model.inverse_model_input_size + world_model.action_size)
    train = _random_part(train, _MAX_BYTES // row_bytes, loop.generator)
    held_out = _random_part(held_out, _ERROR_SAMPLE, loop.generator)
    fitted, unseen = _transitions(world_model, play, [train, held_out])
    model.standardizer.fit(fitted.changes)
    optimizer = Optimizer([model], _LEARNING_RATE, decay_updates=updates)

    def loss() -> tuple[Tensor, Metrics]:
        drawn = torch.randint(len(train), (_BATCH,), generator=loop.generator).to(play.device)
        value = model.loss(*(part[drawn] for part in fitted))
        return value, {"loss": value.detach()}

    updates_before = loop.updates
    loop.minimize("inverse", updates, loss, optimizer)
    model.variance.zero_()
    if loop.updates > updates_before:
        with torch.no_grad():
            errors = model(unseen.features, unseen.changes) - unseen.actions
            model.variance.copy_(errors.square().mean(0).clamp_min(_MIN_VARIANCE))


@torch.no_grad()
def _transitions(world_model: WorldModel, play: TrajectoryDataset, parts: list[Tensor]) -> list[_Transitions]:
    """Filter play with its recorded actions, and keep the transitions that lead to some rows (M,) each."""
    prev_actions = play.prev_actions
    assert prev_actions is not None
    wanted = torch.cat(parts).unique()  # a single transition is in all parts
    places = torch.full((len(play),), -1, device=play.device)
    places[wanted] = torch.arange(len(wanted), device=play.device)
    features = prev_actions.new_empty(len(wanted), world_model.feature_size)
    changes = prev_actions.new_empty(len(wanted), world_model.inverse_model_input_size)
    for rows, valid, latents, embeddings in filtered_batches(world_model, play, recorded_source(play)):
        place = places[rows[1:]]
        kept = valid[1:] & (place >= 0)
        features[place[kept]] = latents.states.feature[:-1][kept]
        changes[place[kept]] = input_changes(world_model, play, rows, embeddings)[1:][kept]
    return [_Transitions(features[places[part]], changes[places[part]], prev_actions[part]) for part in parts]


def _random_part(rows: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Return all rows, or a random part of them where there are more than ``most``."""
    if len(rows) <= most:
        return rows
    return rows[torch.randperm(len(rows), generator=generator)[:most].to(rows.device)]


def clone_actions(
    policy: LatentPolicy,
    demos: TrajectoryDataset,
    filtered: FilteredLatents,
    loop: TrainingLoop,
    *,
    name: str = "clone",
    updates: int,
    start_fraction: float,
    start_steps: int,
    fit_std: bool = True,
    entropy_weight: float = 0.0,
) -> bool:
    """Clone a policy in the latent space: regress a_{t-1} of the filtered demonstrations on [h, s]_{t-1}.

    The regression is that of the policy's mode.

    :param filtered: latent features and actions of every record of the demonstrations.
    :param name: name of the run in the log.
    :param updates: number of updates.
    :param start_fraction: share of each minibatch that comes from the first ``start_steps`` records of trajectories.
    :param fit_std: flag that gives a Gaussian policy the spread of the error that is left. Updates that learn the
        spread themselves start from the broad one of a fresh policy instead.
    :param entropy_weight: weight of the policy's distance from a broad one, added to the regression's loss.
    :return: whether the run came to its end.
    """
    features, actions = filtered.features, filtered.prev_actions
    targets = _rows_with_actions(demos)
    early = targets[demos.steps()[targets] < start_steps]
    early_count = round(start_fraction * _BATCH)
    optimizer = Optimizer([policy], _LEARNING_RATE, decay_updates=updates)

    def loss() -> tuple[Tensor, Metrics]:
        rows = torch.cat(
            [_draw(early, early_count, loop.generator), _draw(targets, _BATCH - early_count, loop.generator)]
        )
        choice = policy(features[rows - 1])
        value = choice.regression_loss(actions[rows])
        if entropy_weight:
            value = value + entropy_weight * choice.prior_kl().mean()
        return value, {"loss": value.detach()}

    completed = loop.minimize(name, updates, loss, optimizer)
    if fit_std and isinstance(policy, TanhGaussianPolicy):
        with torch.no_grad():
            policy.set_std(policy(features[targets - 1]).std_of_residual(actions[targets]).clamp_min(_MIN_STD))
    return completed


def _rows_with_actions(dataset: TrajectoryDataset) -> Tensor:
    """Return the rows that an action led to: all but the first one of each trajectory."""
    return (~dataset.first_rows()).nonzero().squeeze(-1)


def _draw(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw some of the rows, with replacement."""
    return rows[torch.randint(len(rows), (count,), generator=generator).to(rows.device)]
