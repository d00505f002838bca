"""The settings that RL Zoo keeps beside a trained agent, read without running code.

RL Zoo reads them with YAML's unsafe loader, evaluates ``normalize`` and imports the modules of wrappers. A run's folder
may come from somebody else: here its files hold values alone.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import yaml

#: Packages whose wrappers a run may name.
_WRAPPERS = ("gymnasium", "stable_baselines3", "sb3_contrib", "rl_zoo3", "aime_gym")


class _SettingsLoader(yaml.SafeLoader):
    """YAML with the two types of Python that RL Zoo writes; an object of any other is read as its tag, and not made."""


def _pairs(loader: yaml.SafeLoader, node: Any) -> dict[Any, Any]:
    (pairs,) = loader.construct_sequence(node, deep=True)
    return {key: value for key, value in pairs}  # noqa: C416 - pairs of any length are refused


_PYTHON = "tag:yaml.org,2002:python/"
_SettingsLoader.add_multi_constructor(_PYTHON, lambda loader, suffix, node: f"!!python/{suffix}")
_SettingsLoader.add_constructor(f"{_PYTHON}object/apply:collections.OrderedDict", _pairs)
_SettingsLoader.add_constructor(
    f"{_PYTHON}tuple", lambda loader, node: tuple(loader.construct_sequence(node, deep=True))
)


@contextmanager
def safe_settings(modules: Iterable[Any], packages: Iterable[str], *, keep_normalize: bool) -> Iterator[None]:
    """Let modules of RL Zoo read settings without running code.

    :param modules: each with ``yaml`` as a name.
    :param packages: further packages whose wrappers a run may name.
    :param keep_normalize: read the statistics of ``VecNormalize``, which are a pickle.
    :raises ValueError: in the block, for settings that name code.
    """

    class SafeYAML:
        UnsafeLoader = None

        @staticmethod
        def load(stream: Any, Loader: Any = None) -> Any:
            try:
                settings = yaml.load(stream, Loader=_SettingsLoader)
            except (yaml.YAMLError, ValueError, TypeError) as error:
                raise ValueError(f"{stream.name}: expected settings of RL Zoo, got {error}") from error
            return _checked(settings, stream.name, (*_WRAPPERS, *packages), keep_normalize)

    before: list[tuple[Any, Callable[..., Any]]] = [(module, module.yaml) for module in modules]
    for module, _ in before:
        module.yaml = SafeYAML
    try:
        yield
    finally:
        for module, own in before:
            module.yaml = own


def _checked(settings: Any, place: str, packages: Iterable[str], keep_normalize: bool) -> dict[str, Any]:
    if not isinstance(settings, dict):
        raise ValueError(f"{place}: expected settings by name, got {settings!r}")
    if not keep_normalize:  # our agents normalise by themselves
        settings.pop("normalize", None)
    normalize = settings.get("normalize")
    if isinstance(normalize, str):
        try:
            settings["normalize"] = ast.literal_eval(normalize)
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"{place}: normalize: expected a dict of values, got {normalize!r}") from error
    for key in ("env_wrapper", "vec_env_wrapper"):
        given = settings.get(key) or []
        for wrapper in given if isinstance(given, list) else [given]:
            for name in wrapper if isinstance(wrapper, dict) else [wrapper]:
                if str(name).partition(".")[0] not in packages:
                    raise ValueError(
                        f"{place}: {key}: expected wrappers of {', '.join(packages)} (--gym-packages adds to them), "
                        f"got {name!r}"
                    )
    return settings
