"""Tasks by name: what an experiment says of its environment, and what an agent's file knows of it.

Importing this module loads no PyTorch: the command line reads its flags from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from aime_gym.config import check_number, read_config
from aime_gym.envs import ENTRY_POINT, Modality, default_action_repeat, default_image_size, make_env
from aime_gym.wrappers.quality import Quality

#: Options of images, which other modalities do not have.
_PIXELS_ONLY = ("image_size", "quality", "camera")
#: Options that decide what the numbers of an observation and an action mean.
_VIEW = ("modality", "positions", "action_repeat", *_PIXELS_ONLY)
#: Greatest values that a file may ask for.
_MOST_STEPS, _MOST_REPEATS, _LARGEST_IMAGE = 10**9, 10**4, 2**12
#: Wrappers that change nothing of a task.
_TRANSPARENT = (
    "stable_baselines3.common.monitor:Monitor",
    "gymnasium.wrappers.common:RecordEpisodeStatistics",
    "gymnasium.wrappers.rendering:RecordVideo",
)


@dataclass(frozen=True)
class TaskConfig:
    """A task by name, with the options of [`aime_gym.make_env`][] that an experiment may choose.

    :param env_id: walker-walk (dm_control), reach-v3 (Meta-World), or any Gymnasium id
    :param modality: state (the default), position (no velocities) or pixels: rendered frames
    :param action_repeat: simulator steps per decision (default: the task's own)
    :param max_episode_steps: episode length in simulator steps (default: the task's own)
    :param positions: entries (numbers) or sensors (names) that are positions, where the task's are not known
    :param image_size: side of the frames of pixels (default: 64)
    :param quality: quality of the frames of pixels: default (the simulator's own), or fast: no shadows, reflections
        and multisampling (MuJoCo). Data must be rendered as the task is
    :param camera: camera of the frames of pixels, by number or name (default: the task's own)
    :param env_kwargs: arguments of the Gymnasium environment: gravity=-5,continuous=true
    :raises ValueError: options of ``"pixels"`` in another modality.
    """

    env_id: str
    modality: Modality = "state"
    action_repeat: int | None = None
    max_episode_steps: int | None = None
    positions: tuple[int, ...] | tuple[str, ...] = ()
    image_size: int | None = None
    quality: Quality = "default"
    camera: int | str | None = None
    env_kwargs: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in _PIXELS_ONLY:
            value = getattr(self, name)
            if self.modality != "pixels" and value != getattr(TaskConfig, name):
                raise ValueError(
                    f"{name}: expected with modality='pixels' only, got {value!r} with modality={self.modality!r}"
                )

    def make(self, **options: Any) -> gym.Env:
        """Make the environment; ``options`` are further ones of [`aime_gym.make_env`][].

        :raises ValueError: an unknown task or modality, with the nearest names.
        """
        if self.positions:
            are_numbers = all(isinstance(position, int) for position in self.positions)
            options["position_indices" if are_numbers else "position_keys"] = list(self.positions)
        if self.modality == "pixels":
            options = {name: getattr(self, name) for name in _PIXELS_ONLY} | options
        return make_env(
            self.env_id,
            modality=self.modality,
            action_repeat=self.action_repeat,
            max_episode_steps=self.max_episode_steps,
            env_kwargs=self.env_kwargs,
            **options,
        )

    def with_state(self) -> TaskConfig:
        """Return this task in the modality that includes velocities."""
        return replace(self, modality="state", positions=(), image_size=None, quality="default", camera=None)

    def resolved(self) -> TaskConfig:
        """Return this task with the numbers that its defaults stand for."""
        return replace(
            self,
            action_repeat=self.action_repeat or default_action_repeat(self.env_id),
            image_size=(self.image_size or default_image_size("pixels")) if self.modality == "pixels" else None,
            env_kwargs=self.env_kwargs or None,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the options by name; those that came later stand there only where they are chosen."""
        values = asdict(self)
        return {name: value for name, value in values.items() if name not in ("camera", "env_kwargs") or value}

    def __str__(self) -> str:
        return f"{self.env_id} ({self.modality})"


def chosen_task(known: KnownTask | None, chosen: Mapping[str, Any], source: str) -> TaskConfig:
    """Return the task of an agent's file, or the one that a user chose for a file that does not know its own.

    :param chosen: options by name; of a known task they may repeat what it has, and change ``max_episode_steps``.
    :param source: the file, for errors.
    :raises ValueError: an option that differs from the task of the file, by name; no task at all.
    """
    if known is None:
        if "env_id" not in chosen:
            raise ValueError(
                f"env_id: expected one, since {source} does not know its task (no file names a module, as in "
                f"'module:Id-v0'), got none"
            )
        return TaskConfig(**chosen)
    for name, value in chosen.items():
        trained = getattr(known.config, name)
        if value != trained and name != "max_episode_steps":
            raise ValueError(f"{name}: expected {trained!r}, which {source} was trained with, got {value!r}")
    return replace(known.config, **chosen)


class KnownTask(NamedTuple):
    """Task that an agent was made for: its options, resolved, and the sensors that make up an observation's vector.

    ``sensors`` is empty where an observation has no parts with names.
    """

    config: TaskConfig
    sensors: tuple[str, ...]

    def check_view(self, other: KnownTask) -> None:
        """Check that another task observes and acts as this one does; it need not have the same reward.

        :raises ValueError: an option that differs, by name.
        """
        for name in _VIEW:
            here, there = getattr(self.config, name), getattr(other.config, name)
            if here != there:
                raise ValueError(f"env: expected {name}={here!r}, as the agent was made with, got {name}={there!r}")
        if self.sensors != other.sensors:
            raise ValueError(
                f"env: expected the sensors {', '.join(self.sensors)}, in this order, as the agent was made with, got "
                f"{', '.join(other.sensors)}"
            )

    def as_json(self) -> dict[str, Any]:
        """Return what a file holds of the task."""
        return {**asdict(self.config), "sensors": list(self.sensors)}


def known_task(env: gym.Env) -> KnownTask | None:
    """Return the task of an environment that `TaskConfig` can make again; ``None`` for any other.

    Environments of [`aime_gym.make_env`][] are known, and registered ones that show the same through it. A wrapper
    around them may change anything, so that it makes them unknown.
    """
    spec = env.spec
    if spec is None or any(wrapper.entry_point not in _TRANSPARENT for wrapper in spec.additional_wrappers):
        return None
    options = {name: value for name, value in spec.kwargs.items() if name != "render_mode"}
    if spec.entry_point == ENTRY_POINT:
        known = {"env_id": options.pop("task")} | options
        if known.pop("flatten", True) is False:
            return None
        positions = known.pop("position_keys", None) or known.pop("position_indices", None)
        if known.get("modality") != "pixels":  # they are of what is rendered for people
            known = {name: value for name, value in known.items() if name not in _PIXELS_ONLY}
        config = TaskConfig(**known, positions=tuple(positions or ())).resolved()
        steps = None if spec.max_episode_steps is None else spec.max_episode_steps * (config.action_repeat or 1)
    else:
        registered = gym.registry.get(spec.id)
        if registered is None or not _is_shown_as_it_is(env.observation_space):
            return None
        chosen = {name: value for name, value in options.items() if registered.kwargs.get(name) != value}
        config = TaskConfig(spec.id, env_kwargs=chosen).resolved()
        steps = None if spec.max_episode_steps == registered.max_episode_steps else spec.max_episode_steps
    config = config if steps is None else replace(config, max_episode_steps=steps)
    sensors = env.get_wrapper_attr("sensor_names") if env.has_wrapper_attr("sensor_names") else ()
    task = KnownTask(config, tuple(sensors))
    try:
        read_known_task(task.as_json())
    except ValueError:  # no file may hold it
        return None
    return task


def _is_shown_as_it_is(space: spaces.Space) -> bool:
    """Return whether [`aime_gym.make_env`][] shows an observation in the modality ``"state"`` as it is."""
    if not isinstance(space, spaces.Box):
        return False
    return (space.dtype, len(space.shape)) in ((np.dtype(np.float32), 1), (np.dtype(np.uint8), 3))


def read_known_task(stored: Any) -> KnownTask:
    """Make a task of what a file holds.

    A file must not decide which modules are imported or which files are read. So its id names no module, and arguments
    of its environment are numbers and flags: text could be a path, a module or another id.

    :raises ValueError: other fields, types or values.
    """
    if not isinstance(stored, Mapping):
        raise ValueError(f"task: expected the fields of TaskConfig, got {type(stored).__name__}")
    fields = dict(stored)
    sensors = fields.pop("sensors", None)
    _require("sensors", _are(sensors, str), "a list of names", sensors)
    env_id, positions, kwargs = (fields.get(name) for name in ("env_id", "positions", "env_kwargs"))
    _require("env_id", isinstance(env_id, str) and ":" not in env_id, "the id of a task, without a module", env_id)
    _require("positions", _are(positions, int) or _are(positions, str), "a list of numbers or of names", positions)
    numbers_only = isinstance(kwargs, Mapping) and _are(list(kwargs.values()), int, float)
    _require("env_kwargs", kwargs is None or numbers_only, "numbers and flags", kwargs)
    camera = fields.get("camera")
    _require("camera", camera is None or _are([camera], int, str), "a number or a name", camera)
    for name in ("modality", "quality"):
        _require(name, isinstance(fields.get(name), str), "a name", fields.get(name))
    most = {"action_repeat": _MOST_REPEATS, "max_episode_steps": _MOST_STEPS, "image_size": _LARGEST_IMAGE}
    for name, greatest in most.items():
        if fields.get(name) is not None:
            check_number(f"task[{name!r}]", fields[name], 1, greatest, whole=True)
    return KnownTask(read_config(TaskConfig, {**fields, "positions": tuple(positions or ())}), tuple(sensors))


def _are(values: Any, *kinds: type) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(value, kinds) for value in values)


def _require(name: str, condition: bool, expected: str, value: Any) -> None:
    if not condition:
        raise ValueError(f"task[{name!r}]: expected {expected}, got {value!r}")
