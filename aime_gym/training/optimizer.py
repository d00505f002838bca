"""Gradient steps: Adam, clipping by the global norm, and a learning rate that ends at zero."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Optimizer:
    """Adam over some modules.

    :param learning_rate: at the start.
    :param clip: largest global norm of the gradient; ``None`` never clips.
    :param decay_updates: number of updates over which the learning rate falls linearly to zero; ``None`` keeps it.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        learning_rate: float,
        *,
        clip: float | None = 100.0,
        decay_updates: int | None = None,
    ) -> None:
        self.parameters = [parameter for module in modules for parameter in module.parameters()]
        self.adam = torch.optim.Adam(self.parameters, lr=learning_rate)
        self.clip = clip
        self.schedule = (
            torch.optim.lr_scheduler.LinearLR(self.adam, 1.0, 0.0, total_iters=decay_updates) if decay_updates else None
        )

    def step(self, loss: Tensor) -> Tensor:
        """Minimise ``loss``; returns the gradient's norm before clipping."""
        self.adam.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip if self.clip is not None else float("inf"))
        self.adam.step()
        if self.schedule is not None:
            self.schedule.step()
        return norm
