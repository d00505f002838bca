"""Regressions of actions on the latent features of filtered trajectories: inverse model and cloned policy."""

from __future__ import annotations

import torch
from torch import Tensor

from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.filtering import FilteredLatents, filter_trajectories, input_changes
from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.policies import LatentPolicy
from aime_gym.models.rssm import RecordedActions
from aime_gym.models.world_model import WorldModel
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Metrics

#: Records of a minibatch.
_BATCH = 512
_LEARNING_RATE = 1e-3
#: Records on which the inverse model's error is measured, and the least variance that is believed.
_ERROR_SAMPLE, _MIN_VARIANCE = 8192, 1e-4


def fit_inverse_model(
    model: LatentInverseModel, world_model: WorldModel, play: TrajectoryDataset, loop: TrainingLoop, *, updates: int
) -> None:
    """Regress a_{t-1} on [h, s]_{t-1} and the change since then, and measure the error that is left.

    The latent states are those of the play data, filtered with its recorded actions. Without a single update the model
    counts as not fitted.

    :param updates: number of updates.
    """
    prev_actions = play.prev_actions
    assert prev_actions is not None
    features, _ = filter_trajectories(world_model, play, lambda rows: RecordedActions(prev_actions[rows]))
    changes = input_changes(world_model, play)
    targets = _rows_with_actions(play)
    model.standardizer.fit(changes)
    optimizer = Optimizer([model], _LEARNING_RATE, decay_updates=updates)

    def draw(count: int) -> tuple[Tensor, Tensor, Tensor]:
        rows = _draw(targets, count, loop.generator)
        return features[rows - 1], changes[rows], prev_actions[rows]

    def loss() -> tuple[Tensor, Metrics]:
        value = model.loss(*draw(_BATCH))
        return value, {"loss": value.detach()}

    updates_before = loop.updates
    loop.minimize("inverse", updates, loss, optimizer)
    model.variance.zero_()
    if loop.updates > updates_before:
        with torch.no_grad():
            *inputs, actions = draw(_ERROR_SAMPLE)
            model.variance.copy_((model(*inputs) - actions).square().mean(0).clamp_min(_MIN_VARIANCE))


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
) -> bool:
    """Clone a policy in the latent space: regress a_{t-1} of the filtered demonstrations on [h, s]_{t-1}.

    :param filtered: latent features and actions of every record of the demonstrations.
    :param name: name of the run in the log.
    :param updates: number of updates.
    :param start_fraction: share of each minibatch that comes from the first ``start_steps`` records of trajectories.
    :return: whether the run came to its end.
    """
    features, actions = filtered
    targets = _rows_with_actions(demos)
    early = targets[demos.steps()[targets] < start_steps]
    early_count = round(start_fraction * _BATCH)
    optimizer = Optimizer([policy], _LEARNING_RATE, decay_updates=updates)

    def loss() -> tuple[Tensor, Metrics]:
        rows = torch.cat(
            [_draw(early, early_count, loop.generator), _draw(targets, _BATCH - early_count, loop.generator)]
        )
        value = policy(features[rows - 1]).regression_loss(actions[rows])
        return value, {"loss": value.detach()}

    return loop.minimize(name, updates, loss, optimizer)


def _rows_with_actions(dataset: TrajectoryDataset) -> Tensor:
    """Return the rows that an action led to: all but the first one of each trajectory."""
    return (~dataset.first_rows()).nonzero().squeeze(-1)


def _draw(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw some of the rows, with replacement."""
    return rows[torch.randint(len(rows), (count,), generator=generator).to(rows.device)]
