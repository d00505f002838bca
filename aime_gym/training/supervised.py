"""Regression of actions with held-out trajectories and early stopping: how BC and BCO train their networks."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from aime_gym.data import TrajectoryDataset
from aime_gym.models.stacked import StackedNetwork, joined
from aime_gym.training.fit import Finished, Fit
from aime_gym.training.optimizer import Optimizer
from aime_gym.training.ranges import check_ranges
from aime_gym.types import Metrics

#: Rows of one piece of the validation pass.
_VALIDATION_BATCH = 8192


@dataclass(frozen=True)
class StackedConfig:
    """Hyper-parameters of agents that regress actions on a stack of observations.

    :param stack: observations k that make up a state; 1 where one observation holds the velocities, 5 in the AIME paper
        where it does not.
    :param train_fraction: share of the trajectories to learn from; the others decide when to stop.
    :param min_epochs: epochs before training may stop.
    :param min_updates: updates before training may stop.
    :param max_epochs: epochs after which it stops in any case, once past ``min_updates``.
    :param patience: epochs without a better validation error after which training stops.
    :param batch_size: windows per update.
    :param learning_rate: of Adam.
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
        check_ranges(
            self,
            stack=(1, None),
            train_fraction=(0, 1),
            min_epochs=(0, None),
            min_updates=(1, None),
            max_epochs=(1, None),
            patience=(0, None),
            batch_size=(1, None),
            learning_rate=(0, None),
        )


def regress_actions(
    network: StackedNetwork,
    dataset: TrajectoryDataset,
    actions: Tensor,
    *,
    lag: int,
    config: StackedConfig,
    generator: torch.Generator,
    phase: str,
    fit: Fit,
) -> bool:
    """Fit the action that led to each record, and leave the network with its best weights on held-out trajectories.

    :param actions: encoded pre-actions (N, A) of all records.
    :param lag: 0 shows the network the frames up to the record (an inverse model), 1 those before it (a policy).
    :return: whether training ran to its end; the weights are the best ones either way.
    """
    observations = joined(dataset.observations)
    train, held_out = dataset.split_rows(config.train_fraction, generator)

    def error(rows: Tensor) -> Tensor:
        return network.error(dataset.stacked(observations, rows - lag, network.frames), actions[rows])

    optimizer = Optimizer([network], config.learning_rate, clip=None)
    steps = math.ceil(len(train) / config.batch_size)
    may_stop = max(config.min_epochs * steps, config.min_updates)
    best_error, best_weights = math.inf, copy.deepcopy(network.state_dict())
    validation_error = float("nan")
    updates = stale = 0
    batches: list[Tensor] = []

    def validate() -> None:
        nonlocal best_error, best_weights, stale, validation_error
        with torch.no_grad():
            errors = [float(error(part)) * len(part) for part in held_out.split(_VALIDATION_BATCH)]
        validation_error = sum(errors) / len(held_out)
        stale += 1
        if validation_error < best_error:
            best_error, best_weights, stale = validation_error, copy.deepcopy(network.state_dict()), 0

    def update() -> Metrics:
        nonlocal updates, batches
        if not batches:
            validate()
            if stale >= config.patience and updates >= may_stop:
                raise Finished
            batches = list(train[torch.randperm(len(train), generator=generator)].split(config.batch_size))
        updates += 1
        loss = error(batches.pop())
        return {"loss": loss.detach(), "validation_error": validation_error, "gradient_norm": optimizer.step(loss)}

    completed = fit.run(phase, max(config.max_epochs * steps, config.min_updates), update)
    if batches:  # stopped inside an epoch
        validate()
    network.load_state_dict(best_weights)
    return completed
