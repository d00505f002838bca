"""Checks of configurations: bounds and choices of their fields, and the names nearest to an unknown one."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any


def nearest_names(name: str, known: Iterable[str]) -> str:
    """``"did you mean a or b?"``, or all that is known when nothing is near."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(known)}"


def preset_config(owner: str, presets: Mapping[str, Any], preset: str, hyper_parameters: Mapping[str, Any]) -> Any:
    """Return a preset's configuration with some of its fields replaced.

    :param owner: class that the configuration is for, in errors.
    :param presets: frozen dataclasses by name.
    :raises ValueError: an unknown preset or hyper-parameter.
    """
    if preset not in presets:
        raise ValueError(f"preset: {owner} expects one of {sorted(presets)}, got {preset!r}")
    known = [field.name for field in fields(presets[preset])]
    for name in hyper_parameters:
        if name not in known:
            raise ValueError(f"{name}: unknown hyper-parameter of {owner}; {nearest_names(name, known)}")
    return replace(presets[preset], **hyper_parameters)


def check_bounds(config: Any, **ranges: tuple[float, float | None]) -> None:
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


def check_choices(config: Any, **choices: Mapping[str, Any] | tuple[str, ...]) -> None:
    """Check fields of a configuration that are names.

    :raises ValueError: another one.
    """
    for name, known in choices.items():
        if getattr(config, name) not in known:
            raise ValueError(f"{name}: expected {' or '.join(known)}, got {getattr(config, name)!r}")
