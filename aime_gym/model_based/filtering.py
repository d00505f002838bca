"""Passes of a world model over whole trajectories: its latent states at every record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from aime_gym.data import TrajectoryDataset
from aime_gym.models.rssm import ActionSource, Latents, RecordedActions
from aime_gym.models.world_model import WorldModel, surprise_of

#: Trajectories that are filtered side by side; fewer of images, whose embeddings take a hundred times the memory.
_EPISODES_AT_ONCE, _IMAGE_EPISODES_AT_ONCE = 128, 16
#: Frames that are embedded at once.
_FRAMES_AT_ONCE = 2048

#: Function of rows (T, B) of a dataset, from first records on, and their embeddings (T, B, E) that makes the source of
#: actions for them.
RowSource: TypeAlias = Callable[[Tensor, Tensor], ActionSource]


class FilteredBatch(NamedTuple):
    """Whole trajectories that were filtered side by side."""

    rows: Tensor  # (T, B), in their dataset
    valid: Tensor  # (T, B) bool, whether the trajectory has not ended
    latents: Latents
    embeddings: Tensor  # (T, B, E)


class FilteredLatents(NamedTuple):
    """Latent features and actions, one row for each record of a dataset."""

    features: Tensor  # (N, H + S), the latent state at the record
    prev_actions: Tensor  # (N, A), the action that led there, according to the source
    surprise: Tensor | None = None  # (N,) in nats, see Evidence


@torch.no_grad()
def filter_trajectories(
    model: WorldModel, dataset: TrajectoryDataset, source: RowSource, *, with_surprise: bool = False
) -> FilteredLatents:
    """Filter all trajectories of a dataset from their first record on, with the posterior's mode.

    :param source: function that makes the source of the actions.
    :param with_surprise: whether to decode the records too, and measure how much each surprises the model.
    """
    features = next(model.parameters()).new_zeros(len(dataset), model.feature_size)
    prev_actions = features.new_zeros(len(dataset), model.action_size)
    surprise = features.new_zeros(len(dataset)) if with_surprise else None
    for rows, valid, latents, _ in filtered_batches(model, dataset, source):
        features[rows[valid]] = latents.states.feature[valid]
        prev_actions[rows[valid]] = latents.prev_actions[valid]
        if surprise is not None:
            likelihoods = model.likelihood_terms(latents.states.feature, standardized(model, dataset, rows))
            surprise[rows[valid]] = surprise_of(latents, likelihoods)[valid]
    return FilteredLatents(features, prev_actions, surprise)


def filtered_batches(model: WorldModel, dataset: TrajectoryDataset, source: RowSource) -> Iterator[FilteredBatch]:
    """Filter batch by batch, as [`filter_trajectories`][] does."""
    for rows, valid in dataset.episodes(_IMAGE_EPISODES_AT_ONCE if model.frame_size else _EPISODES_AT_ONCE):
        embeddings = by_pieces(model, lambda piece: model.embed(standardized(model, dataset, piece)), rows)
        noise = embeddings.new_zeros(*rows.shape, model.config.stoch)
        yield FilteredBatch(rows, valid, model.rssm(embeddings, source(rows, embeddings), noise), embeddings)


def recorded_source(dataset: TrajectoryDataset) -> RowSource:
    """Make a source of the recorded actions of a dataset, to filter its trajectories with."""
    prev_actions = dataset.prev_actions
    assert prev_actions is not None
    return lambda rows, _: RecordedActions(prev_actions[rows])


def standardized(model: WorldModel, dataset: TrajectoryDataset, rows: Tensor) -> dict[str, Tensor]:
    """Return the standardised observations (..., *shape) at rows (...)."""
    return model.standardize(dataset.observed(rows))


def input_changes(model: WorldModel, dataset: TrajectoryDataset, rows: Tensor, embeddings: Tensor) -> Tensor:
    """Compute the change of the inverse model's inputs since the record before, (T, B, D); zeros for first records.

    :param rows: rows (T, B) of trajectories, from their first records on.
    :param embeddings: embeddings (T, B, E) of these records.
    """
    inputs = model.inverse_model_inputs({name: dataset.observations[name][rows] for name in model.vectors}, embeddings)
    return torch.cat([torch.zeros_like(inputs[:1]), inputs[1:] - inputs[:-1]])


def by_pieces(model: WorldModel, function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Apply a function of each row (...) -> (..., D), to a limited number of rows at once when they hold images."""
    if not model.frame_size:
        return function(rows)
    pieces = [function(piece) for piece in rows.flatten().split(_FRAMES_AT_ONCE)]
    return torch.cat(pieces).unflatten(0, rows.shape)
