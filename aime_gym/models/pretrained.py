"""A pretrained world model as a file of its own: learnt once from play, it serves every task of the same body.

One ``.safetensors`` file holds the weights of a world model and of its inverse model. Its metadata, which any reader of
the format shows, says what they are: configuration, sensors with their sizes, size of an action and whether it is
one-hot. Reading it runs no code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aime_gym.config import read_config
from aime_gym.models.config import WorldModelConfig
from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.world_model import WorldModel
from aime_gym.serialization import AllocationLimit, atomically, decode_tensors, digest, encode_tensors
from aime_gym.types import SensorShape, is_image

SUFFIX = ".safetensors"
#: Folder of the world models that come with the package, and how their names start.
SHIPPED = Path(__file__).resolve().parent / "pretrained_files"
SHIPPED_PREFIX = "pretrained/"
_FORMAT = "aime_gym world model 1"
_DESCRIPTION = ("configuration", "sensors", "action_size", "discrete")
_MODULES = ("world_model", "inverse_model")


@dataclass(frozen=True)
class PretrainedWorldModel:
    """Contents of a world model's file.

    :param sensors: shape of each sensor.
    :param discrete: whether actions are one-hot.
    :param weights: tensors of both modules, by ``world_model.`` or ``inverse_model.`` and the name in the module.
    :param digest: equal for equal contents.
    """

    path: Path
    config: WorldModelConfig
    sensors: dict[str, SensorShape]
    action_size: int
    discrete: bool
    weights: Mapping[str, Tensor]
    digest: str

    def restore(
        self, world_model: WorldModel, inverse_model: LatentInverseModel | None = None, *, discrete: bool = False
    ) -> None:
        """Give models for an environment's body the file's weights.

        :param inverse_model: inverse model of the world model; ``None`` for an agent without one.
        :param discrete: whether the environment's actions are one-hot, where no inverse model says so.
        :raises ValueError: a file for other sensors or actions, or one whose weights are not what its configuration
            says.
        """
        discrete = discrete if inverse_model is None else inverse_model.discrete
        body = _body(world_model.sensors, world_model.action_size, discrete)
        found = _body(self.sensors, self.action_size, self.discrete)
        if found != body:
            raise ValueError(f"world_model: expected the environment's {body}, got {found} in {self.path}")
        for name, module in zip(_MODULES, (world_model, inverse_model), strict=True):
            if module is None:
                continue
            prefix = f"{name}."
            weights = {key.removeprefix(prefix): part for key, part in self.weights.items() if key.startswith(prefix)}
            try:
                module.load_state_dict(weights)
            except RuntimeError as error:
                raise _unreadable(self.path, error) from error


def imported_world_model(options: dict[str, Any], known: Any) -> PretrainedWorldModel | None:
    """Read the file that the hyper-parameter ``world_model`` names, and put its configuration there.

    It names a file by its path, or as ``"pretrained/reach-v3"`` one that comes with the package.

    :param options: hyper-parameters of an agent.
    :param known: configuration of the agent.
    :return: the file; ``None`` for a configuration, the name of a preset, or an agent without a world model.
    :raises FileNotFoundError: no such file.
    :raises ValueError: a damaged file, or one of something else.
    """
    value = options.get("world_model")
    if isinstance(value, str) and value.startswith(SHIPPED_PREFIX) and not value.endswith(SUFFIX):
        value = _shipped_path(value.removeprefix(SHIPPED_PREFIX))
    is_path = isinstance(value, os.PathLike) or (isinstance(value, str) and value.endswith(SUFFIX))
    if value is None or not is_path or not hasattr(known, "world_model"):
        return None
    imported = read_world_model(value)
    options["world_model"] = imported.config
    return imported


def _shipped_path(name: str) -> Path:
    """Return the file of a world model that comes with the package."""
    names = sorted(path.stem for path in SHIPPED.glob(f"*{SUFFIX}"))
    if name not in names:
        known = ", ".join(f"{SHIPPED_PREFIX}{name}" for name in names)
        raise FileNotFoundError(f"world_model: expected one of {known}, got {SHIPPED_PREFIX}{name}")
    return SHIPPED / f"{name}{SUFFIX}"


def write_world_model(path: str | os.PathLike[str], world_model: WorldModel, inverse_model: LatentInverseModel) -> None:
    """Write both models to a file, in one piece or not at all.

    :param path: gets the suffix ``.safetensors`` if it has none.
    :raises ValueError: another suffix.
    """
    path = Path(path)
    path = path if path.suffix else path.with_suffix(SUFFIX)
    if path.suffix != SUFFIX:
        raise ValueError(f"world_model: expected a path ending in {SUFFIX}, got {path}")
    weights = {
        f"{name}.{key}": tensor
        for name, module in zip(_MODULES, (world_model, inverse_model), strict=True)
        for key, tensor in module.state_dict().items()
    }
    values = asdict(world_model.config), _stored(world_model.sensors), world_model.action_size, inverse_model.discrete
    description = dict(zip(_DESCRIPTION, map(json.dumps, values), strict=True))
    metadata = {"format": _FORMAT, **description, "digest": _digest(description, weights)}
    with atomically(path) as file:
        file.write(encode_tensors(weights, metadata))


def read_world_model(path: str | os.PathLike[str]) -> PretrainedWorldModel:
    """Read what [`write_world_model`][] wrote.

    :raises FileNotFoundError: no such file.
    :raises ValueError: a damaged file, of another format, or of something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"world_model: expected a world model's file, found none at {path}")
    try:
        weights, metadata = decode_tensors(path.read_bytes())
    except ValueError as error:
        raise _unreadable(path, error) from error
    found = metadata.get("format")
    if found != _FORMAT:
        raise ValueError(f"world_model: expected a file of the format {_FORMAT!r}, got {found!r} in {path}")
    try:
        description = {name: metadata[name] for name in _DESCRIPTION if name in metadata}
        if _digest(description, weights) != metadata["digest"]:
            raise ValueError("its contents do not match their digest")
        values = {name: json.loads(value) for name, value in description.items()}
        model = PretrainedWorldModel(
            path,
            read_config(WorldModelConfig, values["configuration"]),
            {name: tuple(np.atleast_1d(shape).tolist()) for name, shape in values["sensors"].items()},
            values["action_size"],
            values.get("discrete", False),  # the first files do not say so
            weights,
            metadata["digest"],
        )
        # Its configuration decides how large an agent's model is; on the meta device this one has no memory at all.
        with torch.device("meta"), AllocationLimit(weights):
            WorldModel(model.config, model.sensors, model.action_size)
        return model
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise _unreadable(path, error) from error


def _stored(sensors: Mapping[str, SensorShape]) -> dict[str, Any]:
    """Return sensors as JSON: a vector's size, an image's shape."""
    return {name: list(shape) if is_image(shape) else shape[0] for name, shape in sensors.items()}


def _body(sensors: Mapping[str, SensorShape], action_size: int, discrete: bool) -> str:
    """Describe what a model and an environment have to agree on."""
    return f"sensors {_stored(sensors)} and {action_size} {'one-hot ' if discrete else ''}actions"


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(f"world_model: expected a world model's file, got {path} ({type(error).__name__}: {reason})")


def _digest(description: Mapping[str, str], weights: Mapping[str, Tensor]) -> str:
    """Return a digest that is equal for equal contents, in whatever order a file has them."""
    parts: list[str | Tensor] = [json.dumps(description, sort_keys=True)]
    for name in sorted(weights):
        parts += [name, weights[name]]
    return digest(parts)
