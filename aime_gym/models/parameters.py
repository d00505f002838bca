"""Checks of weights that are to replace a module's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Parameters = Mapping[str, Mapping[str, Any]]


def check_parameters(parameters: Parameters, own: Parameters, *, exact_match: bool) -> None:
    """Make sure that weights fit, before any of them is taken.

    :param parameters: weights of each module by name.
    :param own: weights that they are to replace.
    :param exact_match: whether every module and tensor has to be there.
    :raises ValueError: other modules or tensors, by name.
    """
    if not parameters.keys() <= own.keys() or (exact_match and parameters.keys() != own.keys()):
        raise ValueError(f"parameters: expected the modules {sorted(own)}, got {sorted(parameters)}")
    for module, state in parameters.items():
        expected = _shapes(own[module])
        found = _shapes(state)
        compared = expected.keys() | found.keys() if exact_match else expected.keys() & found.keys()
        for name in sorted(compared):
            if expected.get(name) != found.get(name):  # None stands for a tensor that is missing
                raise ValueError(
                    f"parameters: expected {name} of {module} with shape {expected.get(name)}, got {found.get(name)}"
                )


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}
