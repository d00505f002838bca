"""Checks of configurations: bounds and choices of their fields, and the names nearest to an unknown one."""

from __future__ import annotations

import difflib
import importlib
import inspect
import numbers
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np

#: Greatest values of what is allocated: units of a layer, layers of a network, rows of a batch, records of a sequence.
#: They are far above what trains, and keep a file or a slip from taking all memory.
MAX_UNITS, MAX_LAYERS, MAX_ROWS, MAX_RECORDS = 2**14, 64, 2**24, 2**20
#: Greatest value of every other number.
MAX_NUMBER = 10**12
#: Bounds that the classes of configurations have checked their fields by.
_DECLARED: dict[type, dict[str, tuple[float, float | None]]] = {}


def import_extra(name: str, extra: str, need: str) -> Any:
    """Import a module of an optional dependency.

    :param extra: extra of this package that installs it.
    :param need: beginning of the error: who needs the module.
    :raises ImportError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise type(error)(f"{need} ({error}): pip install 'aime-gym[{extra}]'", name=error.name) from error


def nearest_names(name: str, known: Iterable[str]) -> str:
    """Return ``"did you mean a or b?"``, or all that is known when nothing is near."""
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
    """Check fields of a configuration, and that its flags are flags.

    :param ranges: least and greatest value for each name; ``None`` for any number up to ``MAX_NUMBER``.
    :raises ValueError: a value outside, by name.
    """
    _DECLARED.setdefault(type(config), {}).update(ranges)
    types = {field.name: getattr(field.type, "__name__", str(field.type)) for field in fields(config)}
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if value is not None or "None" not in types[name]:
            check_number(name, value, least, most, whole=types[name].startswith("int"))
    for name, kind in types.items():
        if kind == "bool" and not isinstance(getattr(config, name), bool | np.bool_):
            raise ValueError(f"{name}: expected True or False, got {getattr(config, name)!r}")


def declared_bounds(config: Any) -> Mapping[str, tuple[float, float | None]]:
    """Return the bounds that a configuration has been checked by, as [`check_bounds`][] takes them."""
    return _DECLARED.get(type(config), {})


def check_number(name: str, value: Any, least: float, most: float | None = None, *, whole: bool) -> None:
    """Check an argument that is a number: NumPy's are fine, NaN is outside of everything.

    :param most: greatest value; ``None`` for ``MAX_NUMBER``.
    :raises ValueError: something else than a number, or a number outside, by name.
    """
    kind: Any = numbers.Integral if whole else numbers.Real
    if not isinstance(value, kind) or isinstance(value, bool) or value != value:  # NaN
        raise ValueError(f"{name}: expected a {'whole ' * whole}number, got {value!r}")
    greatest = MAX_NUMBER if most is None else most
    if not least <= value <= greatest:
        # Bounds against a slip, rather than of what makes sense, are named where they are passed.
        by_meaning = value >= least or greatest < MAX_LAYERS
        expected = f"{least} to {greatest}" if by_meaning else f"at least {least}"
        raise ValueError(f"{name}: expected {expected}, got {value}")


def check_seed(seed: Any, most: int = 2**32 - 1) -> int | None:
    """Return a seed as a Python integer, or ``None`` for no seed.

    :param most: greatest seed; NumPy's global random numbers take no more than the default.
    :raises ValueError: anything but ``None`` and a whole number in these bounds.
    """
    if seed is None:
        return None
    check_number("seed", seed, 0, most, whole=True)
    return int(seed)


def read_config(config_class: type[Any], stored: Any) -> Any:
    """Make a configuration of what a file holds: its fields, which are checked, and nothing else.

    :raises ValueError: something else than fields of that configuration.
    """
    if not isinstance(stored, Mapping):
        raise ValueError(f"config: expected the fields of {config_class.__name__}, got {type(stored).__name__}")
    known = {field.name for field in fields(config_class)}
    if unknown := sorted(set(stored) - known):
        raise ValueError(f"config: expected fields of {config_class.__name__}, got {unknown[0]!r}")
    return config_class(**stored)


def check_choices(config: Any, **choices: Mapping[str, Any] | tuple[str, ...]) -> None:
    """Check fields of a configuration that are names.

    :raises ValueError: another one.
    """
    for name, known in choices.items():
        value = getattr(config, name)
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{name}: expected {' or '.join(known)}, got {value!r}")


class ConfigField(NamedTuple):
    """Field of a configuration, as its class declares it: type and meaning are texts."""

    name: str
    type: str
    default: Any
    meaning: str


def describe_fields(config: Any) -> list[ConfigField]:
    """Return the fields of a configuration in the order of their declaration, with the values that it has."""
    texts: dict[str, str] = {}
    for owner in reversed(type(config).__mro__):  # a field may be described where it is inherited from
        texts |= parameter_texts(owner)
    return [
        ConfigField(
            field.name,
            getattr(field.type, "__name__", str(field.type)),
            getattr(config, field.name),
            texts.get(field.name, ""),
        )
        for field in fields(config)
    ]


def constructor_signature(bases: Iterable[type], config: Any) -> inspect.Signature:
    """Return the signature of a constructor that hands its options on: an environment, keywords, a configuration.

    :param bases: classes whose ``__init__`` names the keywords, the first one's first.
    :param config: configuration whose fields are the other keywords.
    """
    parameters = {"env": inspect.Parameter("env", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)}
    for base in bases:
        for name, parameter in inspect.signature(base.__init__).parameters.items():  # type: ignore[misc]
            if parameter.kind is parameter.KEYWORD_ONLY and not name.startswith("_"):
                parameters.setdefault(name, parameter)
    for field in fields(config):
        parameters[field.name] = inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=getattr(config, field.name), annotation=field.type
        )
    return inspect.Signature(list(parameters.values()))


def parameter_texts(described: Any) -> dict[str, str]:
    """Return what the docstring of a class or a function says of each parameter, without its markup."""
    docstring = inspect.cleandoc(described.__doc__ or "")
    found = re.findall(r"^:param (\w+): (.*?)(?=\n:|\n\n|\Z)", docstring, re.DOTALL | re.MULTILINE)
    return {name: plain_text(text) for name, text in found}


def plain_text(markdown: str) -> str:
    """Return a docstring's Markdown on one line, without the marks of code and references."""
    return re.sub(r"\[(`[^`]*`)\]\[[^\]]*\]", r"\1", " ".join(markdown.split())).replace("`", "")
