"""Gradient steps: Adam or Muon, clipping by the global norm, and a learning rate that decays to zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from aime_gym.models.networks import StackedLinear
from aime_gym.training.data_parallel import ONE_PROCESS, DataParallel
from aime_gym.training.muon import Muon


class Optimizer:
    """Adam over some modules, or Muon for their weight matrices and Adam for the rest.

    :param modules: networks whose weights it moves.
    :param learning_rate: Adam's learning rate, before any decay.
    :param matrix_learning_rate: Muon's learning rate for weights with two dimensions; ``None`` leaves them to Adam.
    :param max_grad_norm: largest global norm of the gradient; ``None`` never clips.
    :param decay_updates: number of updates over which the learning rate falls linearly to zero; ``None`` keeps it.
    :param parallel: processes over which gradients are averaged.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        learning_rate: float,
        *,
        matrix_learning_rate: float | None = None,
        max_grad_norm: float | None = 100.0,
        decay_updates: int | None = None,
        parallel: DataParallel = ONE_PROCESS,
    ) -> None:
        self.modules = list(modules)
        #: Parameters by their name in ``state_dict``, after the position of their module.
        self.named_parameters = {
            f"{position}.{name}": parameter
            for position, module in enumerate(self.modules)
            for name, parameter in module.named_parameters()
        }
        self.parameters = list(self.named_parameters.values())
        matrices = [] if matrix_learning_rate is None else [p for p in self.parameters if p.ndim == 2]
        others = [p for p in self.parameters if matrix_learning_rate is None or p.ndim != 2]
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(others, lr=learning_rate, fused=True)]
        if matrix_learning_rate is not None:
            layers = [layer for module in self.modules for layer in module.modules()]
            maps = {layer.weight: layer.maps for layer in layers if isinstance(layer, StackedLinear)}
            self.optimizers.append(Muon([(p, maps.get(p, 1)) for p in matrices], matrix_learning_rate))
        self.max_grad_norm = max_grad_norm
        self.parallel = parallel
        self.schedules = [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=decay_updates)
            for optimizer in self.optimizers
            if decay_updates
        ]

    def step(self, loss: Tensor) -> Tensor:
        """Take a step that minimises ``loss``, and return the gradient's norm before clipping."""
        self._zero_grad()
        loss.backward()
        return self._apply()

    def step_on(self, losses: Iterable[tuple[float, Tensor]]) -> Tensor:
        """Take a step in the direction of each loss's gradient, whatever its length, in proportion to its weight.

        For losses whose units have nothing to do with each other, where one would drown the other.

        :param losses: weight and loss of each.
        :return: the norm of the sum before clipping.
        """
        self._zero_grad()
        for weight, loss in losses:
            gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            present = [(p, g) for p, g in zip(self.parameters, gradients, strict=True) if g is not None]
            length = torch.stack([g.square().sum() for _, g in present]).sum().sqrt().clamp_min(1e-12)
            for parameter, gradient in present:
                part = gradient * (weight / length)
                parameter.grad = part if parameter.grad is None else parameter.grad + part
        return self._apply()

    def _zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def _apply(self) -> Tensor:
        self.parallel.average(p.grad for p in self.parameters if p.grad is not None)
        norm = nn.utils.clip_grad_norm_(
            self.parameters, self.max_grad_norm if self.max_grad_norm is not None else float("inf")
        )
        for optimizer in self.optimizers:
            optimizer.step()
        for schedule in self.schedules:
            schedule.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return weights, moments and learning rate: all that [`step`][] changes."""
        return {"modules": [module.state_dict() for module in self.modules], **self.progress()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over weights, moments and learning rate."""
        for module, weights in zip(self.modules, state["modules"], strict=True):
            module.load_state_dict(weights)
        self.load_progress(state)

    def progress(self) -> dict[str, Any]:
        """Return moments by parameter and learning rate, for modules whose weights are kept elsewhere.

        A parameter that never had a gradient has no moments.
        """
        states = [optimizer.state for optimizer in self.optimizers]
        return {
            "moments": {
                name: {part: value for state in states for part, value in state.get(of, {}).items()}
                for name, of in self.named_parameters.items()
            },
            "learning_rate": [group["lr"] for group in self._groups()],
            "schedule": [schedule.state_dict() for schedule in self.schedules],
        }

    def load_progress(self, state: Mapping[str, Any]) -> None:
        """Take over moments and learning rate, with the weights as they are.

        :raises ValueError: moments of other parameters.
        """
        moments = state["moments"]
        self._check_moments(moments)
        names = {parameter: name for name, parameter in self.named_parameters.items()}
        for optimizer in self.optimizers:
            (group,) = optimizer.param_groups
            own = [moments[names[parameter]] for parameter in group["params"]]
            # Copies, which PyTorch does not make: the next step writes to them, and a checkpoint may still hold them.
            by_position = {
                position: {part: value.clone() for part, value in parts.items()}
                for position, parts in enumerate(own)
                if parts
            }
            optimizer.load_state_dict(optimizer.state_dict() | {"state": by_position})
        for group, learning_rate in zip(self._groups(), state["learning_rate"], strict=True):
            group["lr"] = learning_rate
        for schedule, progress in zip(self.schedules, state["schedule"], strict=True):
            schedule.load_state_dict(dict(progress))

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def _check_moments(self, moments: Any) -> None:
        if not isinstance(moments, Mapping):
            raise ValueError(f"moments: expected them by the names of parameters, got a {type(moments).__name__}")
        differing = moments.keys() ^ self.named_parameters.keys()
        if differing:
            name = min(differing)
            kind = "none of" if name in self.named_parameters else "those of the unknown"
            raise ValueError(f"moments: expected those of the optimizer's parameters, got {kind} {name}")
        for name, parameter in self.named_parameters.items():
            for part, value in moments[name].items():
                if part != "step" and value.shape != parameter.shape:
                    raise ValueError(
                        f"moments: expected shape {tuple(parameter.shape)} for {name}, got {tuple(value.shape)}"
                    )
