"""Hyper-parameters that make no sense end here, instead of hours later."""

from __future__ import annotations

from typing import Any


def check_ranges(config: Any, **ranges: tuple[float, float | None]) -> None:
    """Check fields of a configuration.

    :param ranges: least and greatest value for each name; ``None`` for no greatest.
    :raises ValueError: a value outside, by name.
    """
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if value < least or (most is not None and value > most):
            expected = f"at least {least}" if most is None else f"{least} to {most}"
            raise ValueError(f"{name}: expected {expected}, got {value}")
