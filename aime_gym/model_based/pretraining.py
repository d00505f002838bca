"""Pretraining: how a world model learns from play, by updates on batches of sequences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aime_gym.config import MAX_RECORDS, MAX_ROWS, check_bounds
from aime_gym.data import SequenceSampler, TrajectoryDataset
from aime_gym.models.action_sources import RecordedActions
from aime_gym.models.config import PRESETS, WorldModelConfig
from aime_gym.models.pretrained import SUFFIX
from aime_gym.models.world_model import WorldModel
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Metrics, SequenceBatch


@dataclass(frozen=True)
class WorldModelTrainingConfig:
    """Hyper-parameters of a world model and of its updates.

    :param world_model: a preset's name ("default", "small", "aime", "dreamer") or a configuration.
    :param batch_size: sequences per update.
    :param sequence_length: records per sequence.
    :param model_learning_rate: of the world model.
    :param max_grad_norm: largest global norm of a gradient.
    :param play_start_fraction: share of play sequences that start at an episode's start.
    """

    world_model: WorldModelConfig | str = "default"
    batch_size: int = 32
    sequence_length: int = 32
    model_learning_rate: float = 1e-3
    max_grad_norm: float = 100.0
    play_start_fraction: float = 0.1

    def __post_init__(self) -> None:
        model = self.world_model
        if isinstance(model, str):
            if model not in PRESETS:
                raise ValueError(
                    f"world_model: expected one of {sorted(PRESETS)}, a WorldModelConfig, or the path of a "
                    f"{SUFFIX} file in an agent's constructor, got {model!r}"
                )
            object.__setattr__(self, "world_model", PRESETS[model])
        elif isinstance(model, dict):  # as JSON brings it back
            try:
                object.__setattr__(self, "world_model", WorldModelConfig(**model))
            except TypeError as error:
                raise ValueError(f"world_model: expected the fields of WorldModelConfig ({error})") from error
        elif not isinstance(model, WorldModelConfig):
            raise ValueError(f"world_model: expected a name or a WorldModelConfig, got {type(model).__name__}")
        check_bounds(
            self,
            batch_size=(1, MAX_ROWS),
            sequence_length=(2, MAX_RECORDS),
            model_learning_rate=(0, None),
            max_grad_norm=(0, None),
            play_start_fraction=(0, 1),
        )


@dataclass(frozen=True)
class PretrainingConfig(WorldModelTrainingConfig):
    """Hyper-parameters of a world model and of how it learns from play.

    :param model_updates: updates of the world model in ``pretrain``.
    :param decay_learning_rate: let learning rates fall linearly to zero.
    """

    model_updates: int = 4500
    decay_learning_rate: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, model_updates=(0, None))


def fit_world_model(
    world_model: WorldModel, play: TrajectoryDataset, loop: TrainingLoop, config: PretrainingConfig
) -> None:
    """Maximise the ELBO of play under its recorded actions (Eq. 4 of AIME); the model is frozen afterwards."""
    world_model.requires_grad_(True)
    world_model.fit_standardizers(play.observations)

    def loss(batch: SequenceBatch) -> tuple[Tensor, Metrics]:
        assert batch.prev_actions is not None
        noise = torch.randn(*batch.valid.shape, world_model.config.stoch, generator=loop.generator).to(play.device)
        evidence = world_model.evidence(
            batch.observations, RecordedActions(batch.prev_actions), noise, valid=batch.valid
        )
        return evidence.loss, evidence.metrics

    train_on_sequences(
        "model",
        world_model,
        loss,
        play,
        loop,
        config,
        updates=config.model_updates,
        learning_rate=config.model_learning_rate,
        start_fraction=config.play_start_fraction,
    )
    world_model.requires_grad_(False)


class SequenceConfig(Protocol):
    """What a configuration says of all updates on sequences."""

    @property
    def batch_size(self) -> int:
        """Clips per update."""

    @property
    def sequence_length(self) -> int:
        """Records per sequence."""

    @property
    def max_grad_norm(self) -> float:
        """Largest global norm of a gradient."""

    @property
    def decay_learning_rate(self) -> bool:
        """Whether the learning rate falls linearly to zero."""


def train_on_sequences(
    phase: str,
    module: nn.Module,
    loss: Callable[[SequenceBatch], tuple[Tensor, Metrics]],
    dataset: TrajectoryDataset,
    loop: TrainingLoop,
    config: SequenceConfig,
    *,
    updates: int,
    learning_rate: float,
    start_fraction: float,
) -> bool:
    """Run the updates of a module, each on new sequences.

    :param loss: scalar to minimise on a batch of sequences, such as the negative evidence, and its metrics.
    :param start_fraction: share of sequences that start where an episode starts.
    :return: whether the run came to its end.
    """
    sampler = SequenceSampler(
        dataset,
        sequence_length=config.sequence_length,
        batch_size=config.batch_size,
        generator=loop.generator,
        start_fraction=start_fraction,
    )
    optimizer = Optimizer(
        [module],
        learning_rate,
        max_grad_norm=config.max_grad_norm,
        decay_updates=updates if config.decay_learning_rate else None,
    )

    def update() -> Metrics:
        value, metrics = loss(sampler.sample())
        return metrics | {"gradient_norm": optimizer.step(value)}

    return loop.run(phase, updates, update, optimizer)
