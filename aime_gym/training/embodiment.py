"""Phase 1 of every agent with a world model: what play teaches about the body."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aime_gym.data import TrajectoryDataset
from aime_gym.models.config import PRESETS, WorldModelConfig
from aime_gym.models.pretrained import SUFFIX
from aime_gym.models.sources import RecordedActions
from aime_gym.models.world_model import WorldModel
from aime_gym.training.clips import train_on_clips
from aime_gym.training.fit import Fit
from aime_gym.training.ranges import check_ranges
from aime_gym.types import Clip, Metrics


@dataclass(frozen=True)
class ModelConfig:
    """Hyper-parameters of a world model and of its updates.

    :param world_model: a preset's name ("default", "small", "aime", "dreamer") or a configuration.
    :param batch_size: clips per update.
    :param horizon: records per clip.
    :param model_learning_rate: of the world model.
    :param clip: largest global norm of a gradient.
    :param play_start_fraction: share of play clips that start at an episode's start.
    """

    world_model: WorldModelConfig | str = "default"
    batch_size: int = 32
    horizon: int = 32
    model_learning_rate: float = 1e-3
    clip: float = 100.0
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
        check_ranges(
            self,
            batch_size=(1, None),
            horizon=(2, None),
            model_learning_rate=(0, None),
            clip=(0, None),
            play_start_fraction=(0, 1),
        )


@dataclass(frozen=True)
class EmbodimentConfig(ModelConfig):
    """Hyper-parameters of a world model and of how it learns from play.

    :param model_updates: updates of the world model in ``pretrain``.
    :param decay: let learning rates fall linearly to zero.
    """

    model_updates: int = 4500
    decay: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, model_updates=(0, None))


def fit_world_model(world_model: WorldModel, play: TrajectoryDataset, fit: Fit, config: EmbodimentConfig) -> None:
    """Maximise the ELBO of play under its recorded actions (Eq. 4 of AIME); the model is frozen afterwards."""
    world_model.requires_grad_(True)
    world_model.fit_standardizers(play.observations)

    def loss(clip: Clip) -> tuple[Tensor, Metrics]:
        assert clip.pre_actions is not None
        noise = torch.randn(*clip.valid.shape, world_model.config.stoch, generator=fit.generator).to(play.device)
        evidence = world_model.evidence(clip.observations, RecordedActions(clip.pre_actions), noise, valid=clip.valid)
        return evidence.loss, evidence.metrics

    train_on_clips(
        "model",
        world_model,
        loss,
        play,
        fit,
        config,
        updates=config.model_updates,
        learning_rate=config.model_learning_rate,
        start_fraction=config.play_start_fraction,
    )
    world_model.requires_grad_(False)
