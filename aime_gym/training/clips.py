"""Updates on clips: how a phase maximises the evidence of a dataset, in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from aime_gym.data import ClipSampler, TrajectoryDataset
from aime_gym.training.fit import Fit
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Clip, Metrics


class ClipConfig(Protocol):
    """What a configuration says of all updates on clips."""

    @property
    def batch_size(self) -> int:
        """Clips per update."""

    @property
    def horizon(self) -> int:
        """Records per clip."""

    @property
    def clip(self) -> float:
        """Largest global norm of a gradient."""

    @property
    def decay(self) -> bool:
        """Whether the learning rate falls linearly to zero."""


def train_on_clips(
    phase: str,
    module: nn.Module,
    loss: Callable[[Clip], tuple[Tensor, Metrics]],
    dataset: TrajectoryDataset,
    fit: Fit,
    config: ClipConfig,
    *,
    updates: int,
    learning_rate: float,
    start_fraction: float,
) -> bool:
    """Run the updates of a module, each on new clips.

    :param loss: scalar to minimise on a batch of clips, such as the negative evidence, and its metrics.
    :param start_fraction: share of clips that start where an episode starts.
    :return: whether the run came to its end.
    """
    sampler = ClipSampler(
        dataset,
        horizon=config.horizon,
        batch_size=config.batch_size,
        generator=fit.generator,
        start_fraction=start_fraction,
    )
    optimizer = Optimizer([module], learning_rate, clip=config.clip, decay_updates=updates if config.decay else None)

    def update() -> Metrics:
        value, metrics = loss(sampler.sample())
        return metrics | {"gradient_norm": optimizer.step(value)}

    return fit.run(phase, updates, update, optimizer)
