"""Regression with held-out trajectories and early stopping: how BC, BCO and the paper's IIDM train their networks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from aime_gym.config import MAX_LAYERS, MAX_ROWS, check_bounds
from aime_gym.data import TrajectoryDataset
from aime_gym.models.stacked import StackedNetwork, StackEncoder
from aime_gym.training.loop import RunComplete, UpdateRunner
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Metrics

#: Rows of one piece of a pass over data.
ROWS_AT_ONCE = 2048
#: Plain numbers in the state of a regression.
_COUNTERS = ("best_error", "validation_error", "updates", "validated_updates", "stale")


@dataclass(frozen=True)
class StackedConfig:
    """Hyper-parameters of agents that regress actions on a stack of observations.

    :param stack: number k of observations that make up a state; 1 where one observation holds the velocities, 5 in the
        AIME paper where it does not.
    :param train_fraction: share of the trajectories to learn from; the others decide when to stop.
    :param min_epochs: number of epochs before training may stop.
    :param min_updates: number of updates before training may stop.
    :param max_epochs: number of epochs after which it stops in any case, once past ``min_updates``.
    :param patience: number of epochs without a better validation error after which training stops.
    :param batch_size: windows per update.
    :param learning_rate: Adam's learning rate.
    """

    stack: int = 5
    train_fraction: float = 0.7
    min_epochs: int = 50
    min_updates: int = 5000
    max_epochs: int = 200
    patience: int = 3
    batch_size: int = 50
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        check_bounds(
            self,
            stack=(1, MAX_LAYERS),
            train_fraction=(0, 1),
            min_epochs=(0, None),
            min_updates=(1, None),
            max_epochs=(1, None),
            patience=(0, None),
            batch_size=(1, MAX_ROWS),
            learning_rate=(0, None),
        )


def encode_windows(encoder: StackEncoder, dataset: TrajectoryDataset, rows: Tensor) -> Tensor:
    """Return the features (N, frames, E) of the windows that end at rows (N,); a record is encoded once for all."""
    records, places = dataset.window_rows(rows, encoder.frames).unique(return_inverse=True)
    return encoder.encode(dataset.observed(records))[places]


@torch.no_grad()
def act_on_windows(network: StackedNetwork, dataset: TrajectoryDataset, rows: Tensor) -> Tensor:
    """Return a network's outputs (N, A) for the windows that end at rows (N,).

    Piece by piece, since features of images need a thousand times the memory of actions.
    """
    return torch.cat([network.act(encode_windows(network, dataset, piece)) for piece in rows.split(ROWS_AT_ONCE)])


def regress_actions(
    network: StackedNetwork,
    dataset: TrajectoryDataset,
    actions: Tensor,
    train_mask: Sequence[bool],
    *,
    lag: int,
    config: StackedConfig,
    name: str,
    runner: UpdateRunner,
    generator: torch.Generator,
    refit: bool = False,
) -> float:
    """Fit the action that led to each record, and leave the network with its best weights on held-out trajectories.

    :param actions: encoded previous actions (N, A) of all records.
    :param train_mask: mask of the trajectories to learn from; the others are held out.
    :param lag: 0 shows the network the frames up to the record (an inverse model), 1 those before it (a policy).
    :return: the validation error of the best weights.

    Further arguments are those of [`fit_until_stale`][].
    """

    def loss(rows: Tensor) -> Tensor:
        return network.loss(dataset.windows(rows - lag, network.frames), actions[rows])

    def error(rows: Tensor) -> Tensor:
        return network.error(act_on_windows(network, dataset, rows - lag), actions[rows])

    return fit_until_stale(
        network,
        loss,
        error,
        dataset.split_rows(train_mask, config.train_fraction),
        config=config,
        name=name,
        runner=runner,
        generator=generator,
        refit=refit,
    )


def fit_until_stale(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    error: Callable[[Tensor], Tensor],
    rows: tuple[Tensor, Tensor],
    *,
    config: StackedConfig,
    name: str,
    runner: UpdateRunner,
    generator: torch.Generator,
    refit: bool = False,
) -> float:
    """Minimise a loss until the error on held-out rows improves no more, and leave the network with its best weights.

    :param loss: scalar to minimise, of some rows (M,) to learn from.
    :param error: scalar error of the held-out rows, without a gradient.
    :param rows: rows to learn from and held-out ones.
    :param name: name of the run in the log.
    :param runner: loop, or round of rollouts, that runs the updates; an error there leaves the best weights too.
    :param generator: source of the order of the rows.
    :param refit: whether the network was fitted before, to other data or labels. It has weights to start from, so the
        least number of epochs and updates does not hold: training stops once the validation error has not improved for
        ``patience`` epochs. Those weights are no candidate for the best: data that grows slowly would hardly ever beat
        them in a few epochs, each refit would start from them again, and nothing would ever be learnt.
    :return: the validation error of the best weights.
    """
    if refit:
        config = replace(config, min_epochs=0, min_updates=1)
    regression = _Regression(network, loss, error, rows, config, generator, refit=refit)
    try:
        runner.run(name, regression.max_updates, regression.update, regression)
    finally:
        regression.finish()
    return regression.best_error


class _Regression:
    """Epochs over the training rows, and the best weights so far on the held-out ones.

    :param refit: whether the first weights were fitted before, to something else, and are no candidate for the best.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[Tensor], Tensor],
        error: Callable[[Tensor], Tensor],
        rows: tuple[Tensor, Tensor],
        config: StackedConfig,
        generator: torch.Generator,
        *,
        refit: bool,
    ) -> None:
        self.network, self.loss, self.error, self.config = network, loss, error, config
        self.generator, self.refit = generator, refit
        self.train, self.held_out = rows
        self.steps_per_epoch = math.ceil(len(self.train) / config.batch_size)
        self.optimizer = Optimizer([network], config.learning_rate, max_grad_norm=None)
        self.best_error = math.inf
        self.best_weights = copy.deepcopy(network.state_dict())
        self.validation_error = math.nan
        self.updates = 0
        #: Updates behind the weights that were validated last; -1 before that.
        self.validated_updates = -1
        #: Epochs since the best error.
        self.stale = 0
        #: Rows that are left of the epoch.
        self.rows = self.train[:0]

    @property
    def max_updates(self) -> int:
        """Number of updates after which training stops in any case."""
        return max(self.config.max_epochs * self.steps_per_epoch, self.config.min_updates)

    def update(self) -> Metrics:
        config = self.config
        if not len(self.rows):
            if self.updates or not self.refit:
                self._validate()
            may_stop = max(config.min_epochs * self.steps_per_epoch, config.min_updates)
            if self.stale >= config.patience and self.updates >= may_stop:
                raise RunComplete
            order = torch.randperm(len(self.train), generator=self.generator)
            self.rows = self.train[order.to(self.train.device)]
        self.updates += 1
        batch = self.rows[: config.batch_size]
        self.rows = self.rows[config.batch_size :]
        loss = self.loss(batch)
        return {
            "loss": loss.detach(),
            "validation_error": self.validation_error,
            "gradient_norm": self.optimizer.step(loss),
        }

    def finish(self) -> None:
        """Leave the network with its best weights."""
        if self.updates != self.validated_updates:
            self._validate()
        self.network.load_state_dict(self.best_weights)

    @torch.no_grad()
    def _validate(self) -> None:
        self.validation_error = float(self.error(self.held_out))
        self.validated_updates = self.updates
        self.stale += 1
        if self.validation_error < self.best_error:
            self.best_error = self.validation_error
            self.best_weights = copy.deepcopy(self.network.state_dict())
            self.stale = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "best_weights": self.best_weights,
            "rows": self.rows,
            **{name: getattr(self, name) for name in _COUNTERS},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.best_weights = state["best_weights"]
        self.rows = state["rows"].to(self.train.device)
        for name in _COUNTERS:
            setattr(self, name, state[name])
