"""Passes of a world model over whole trajectories: what it believes at every record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from aime_gym.data import TrajectoryDataset
from aime_gym.models.rssm import ActionSource, Latents
from aime_gym.models.world_model import WorldModel

#: Trajectories that are filtered side by side.
_EPISODES_AT_ONCE = 128

#: Makes the source of actions for some rows (T, B) of a dataset.
RowSource: TypeAlias = Callable[[Tensor], ActionSource]


class Filtered(NamedTuple):
    """One row for each record of a dataset."""

    features: Tensor  # (N, H + S), the latent state at the record
    pre_actions: Tensor  # (N, A), what led there according to the source


@torch.no_grad()
def filter_trajectories(model: WorldModel, dataset: TrajectoryDataset, source: RowSource) -> Filtered:
    """Filter all trajectories of a dataset from their first record on, with the posterior's mean.

    :param source: where the actions come from.
    """
    embeddings = model.embed(model.standardize(dataset.observations))
    features = embeddings.new_zeros(len(dataset), model.feature_size)
    pre_actions = embeddings.new_zeros(len(dataset), model.action_size)
    for rows, valid, latents in filtered_batches(model, dataset, embeddings, source):
        features[rows[valid]] = latents.states.feature[valid]
        pre_actions[rows[valid]] = latents.pre_actions[valid]
    return Filtered(features, pre_actions)


def filtered_batches(
    model: WorldModel, dataset: TrajectoryDataset, embeddings: Tensor, source: RowSource
) -> Iterator[tuple[Tensor, Tensor, Latents]]:
    """The same pass, batch by batch, with all that it leaves behind.

    :param embeddings: of all records, (N, E).
    :return: rows (T, B), their validity (T, B), and the latents.
    """
    for rows, valid in dataset.episodes(_EPISODES_AT_ONCE):
        noise = embeddings.new_zeros(*rows.shape, model.config.stoch)
        yield rows, valid, model.rssm(embeddings[rows], source(rows), noise)
