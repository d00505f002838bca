"""Gradient steps: Adam, clipping by the global norm, and a learning rate that ends at zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

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
        self.modules = list(modules)
        self.parameters = [parameter for module in self.modules for parameter in module.parameters()]
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

    def state_dict(self) -> dict[str, Any]:
        """The weights too: with the moments and the learning rate, all that :meth:`step` changes."""
        moments = self.adam.state_dict()["state"]
        return {
            "modules": [module.state_dict() for module in self.modules],
            "moments": [moments[index] for index in sorted(moments)],
            "learning_rate": [group["lr"] for group in self.adam.param_groups],
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        for module, weights in zip(self.modules, state["modules"], strict=True):
            module.load_state_dict(weights)
        self.adam.load_state_dict(self.adam.state_dict() | {"state": dict(enumerate(state["moments"]))})
        for group, learning_rate in zip(self.adam.param_groups, state["learning_rate"], strict=True):
            group["lr"] = learning_rate
        if self.schedule is not None:
            self.schedule.load_state_dict(dict(state["schedule"]))
