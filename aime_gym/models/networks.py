"""Multi-layer perceptrons: a plain one, and one whose first layer computes part of its input in advance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


def mlp(inputs: int, outputs: int | None, hidden: int, layers: int, *, layer_norm: bool) -> nn.Sequential:
    """MLP: ``layers`` x [Linear -> activation], then a linear head unless ``outputs`` is ``None``.

    :param layer_norm: whether the activation is LayerNorm and SiLU, as since DreamerV2; otherwise ELU, as in AIME.
    """
    modules: list[nn.Module] = []
    for _ in range(layers):
        modules.append(nn.Linear(inputs, hidden))
        modules.extend(activation(hidden, layer_norm=layer_norm))
        inputs = hidden
    if outputs is not None:
        modules.append(OutputLinear(inputs, outputs))
    return nn.Sequential(*modules)


def activation(features: int, *, layer_norm: bool) -> list[nn.Module]:
    """Modules between two linear layers."""
    return [nn.LayerNorm(features), nn.SiLU()] if layer_norm else [nn.ELU()]


class OutputLinear(nn.Linear):
    """Last linear layer of a network, in the precision of its weights whatever that of the layers before it."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


class StackedLinear(nn.Linear):
    """Linear maps of one input whose outputs are concatenated, computed as one layer.

    :param inputs: size of the input.
    :param outputs: size of each map's output.
    :param maps: number of maps; optimizers of matrices treat each as one.
    """

    def __init__(self, inputs: int, outputs: int, maps: int) -> None:
        super().__init__(inputs, maps * outputs)
        self.maps = maps


class TwoPartMLP(nn.Module):
    """MLP on ``[x, context]`` that computes the context's part of the first layer for a whole sequence at once.

    In a recurrence only ``x`` is new at each step, so that half of the first layer's work is done outside the loop. The
    result is that of one MLP on the concatenation.

    :param inputs: size of ``x``.
    :param context: size of the context.
    :param outputs: size of the output.
    :param hidden: width of the hidden layers.
    :param layers: number of hidden layers.
    :param layer_norm: activation, see [`mlp`][].
    """

    def __init__(self, inputs: int, context: int, outputs: int, hidden: int, layers: int, *, layer_norm: bool) -> None:
        super().__init__()
        self.from_x = nn.Linear(inputs, hidden, bias=False)
        self.from_context = nn.Linear(context, hidden)
        bound = 1 / math.sqrt(inputs + context)  # PyTorch's default for the joint layer
        for parameter in (*self.from_x.parameters(), *self.from_context.parameters()):
            nn.init.uniform_(parameter, -bound, bound)
        self.rest = nn.Sequential(
            *activation(hidden, layer_norm=layer_norm),
            mlp(hidden, outputs, hidden, layers - 1, layer_norm=layer_norm),
        )

    def prepare(self, context: Tensor) -> Tensor:
        """Compute the context's part of the first layer: (..., context) -> (..., hidden)."""
        out: Tensor = self.from_context(context)
        return out

    def forward(self, x: Tensor, prepared: Tensor) -> Tensor:
        out: Tensor = self.rest(torch.addmm(prepared, x, self.from_x.weight.t()))
        return out


class SensorModules(nn.ModuleDict):
    """One module for each sensor, whatever the sensors are called.

    PyTorch takes neither dots nor names that its containers use themselves, such as ``keys``. Those names are written
    as ``$`` and their bytes; all others stay as they are in ``state_dict``.

    :param modules: modules by the sensors' names.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__({_module_name(name): module for name, module in modules.items()})
        self._sensors = tuple(modules)

    def __getitem__(self, name: str) -> nn.Module:
        return super().__getitem__(_module_name(name))

    def items(self) -> Iterable[tuple[str, nn.Module]]:  # type: ignore[override]  # no view
        return list(zip(self._sensors, self.values(), strict=True))


def _module_name(name: str) -> str:
    plain = name and "." not in name and not name.startswith("$") and not hasattr(nn.ModuleDict(), name)
    return name if plain else f"${name.encode().hex()}"
