"""Pretraining: how a world model learns from play, by updates on batches of sequences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aime_gym.config import MAX_RECORDS, MAX_ROWS, check_bounds
from aime_gym.data import TrajectoryDataset
from aime_gym.models.config import PRESETS, WorldModelConfig
from aime_gym.models.pretrained import SUFFIX
from aime_gym.models.rssm import RecordedActions
from aime_gym.models.world_model import WorldModel
from aime_gym.training.loop import TrainingLoop, train_on_sequences
from aime_gym.training.mixed_precision import mixed_precision
from aime_gym.types import Metrics, SequenceBatch


@dataclass(frozen=True)
class WorldModelTrainingConfig:
    """Hyper-parameters of a world model and of its updates.

    :param world_model: name of a preset ("default", "small", "aime", "dreamer", "ditto") or a configuration.
    :param batch_size: sequences per update.
    :param sequence_length: records per sequence.
    :param model_learning_rate: Adam's learning rate for the world model.
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

    :param model_updates: number of updates of the world model in ``pretrain``.
    :param matrix_learning_rate: Muon's learning rate for the world model's weight matrices; ``None`` leaves them to
        Adam. See [`aime_gym.training.muon`][].
    :param decay_learning_rate: whether learning rates fall linearly to zero.
    :param mixed_precision: whether updates on sequences multiply matrices in bfloat16 where the device is fast at it.
    """

    batch_size: int = 64
    model_updates: int = 1500
    matrix_learning_rate: float | None = 1e-2
    decay_learning_rate: bool = True
    mixed_precision: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, model_updates=(0, None), matrix_learning_rate=(0, None))


def fit_world_model(
    world_model: WorldModel, play: TrajectoryDataset, loop: TrainingLoop, config: PretrainingConfig
) -> None:
    """Maximise the ELBO of play under its recorded actions (Eq. 4 of AIME); the model is frozen afterwards."""
    part = loop.parallel.part(config.batch_size)
    world_model.requires_grad_(True)
    world_model.fit_standardizers(play.observations)

    def loss(batch: SequenceBatch) -> tuple[Tensor, Metrics]:
        assert batch.prev_actions is not None
        shape = len(batch.valid), config.batch_size, world_model.config.stoch
        noise = torch.randn(shape, generator=loop.generator)[:, part].to(play.device)
        with mixed_precision(play.device, enabled=config.mixed_precision):
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
        matrix_learning_rate=config.matrix_learning_rate,
        start_fraction=config.play_start_fraction,
    )
    world_model.requires_grad_(False)
