"""Hyper-parameters that make no sense end here, instead of hours later."""

from __future__ import annotations

import numbers
from dataclasses import fields
from typing import Any


def check_ranges(config: Any, **ranges: tuple[float, float | None]) -> None:
    """Check fields of a configuration.

    :param ranges: least and greatest value for each name; ``None`` for no greatest.
    :raises ValueError: a value outside, by name.
    """
    whole = {field.name for field in fields(config) if field.type in (int, "int", "int | None")}
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        kind: Any = numbers.Integral if name in whole else numbers.Real
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name}: expected a {'whole ' * (name in whole)}number, got {value!r}")
        if value < least or (most is not None and value > most):
            expected = f"at least {least}" if most is None else f"{least} to {most}"
            raise ValueError(f"{name}: expected {expected}, got {value}")
