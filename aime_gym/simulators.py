"""Tasks in their simulators, before any wrapper: dm_control, Meta-World, Atari, and all of Gymnasium."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import OrderEnforcing, TimeLimit, TransformReward

from aime_gym.config import import_extra
from aime_gym.wrappers import SeededMetaWorld
from aime_gym.wrappers.custom_tasks import CUSTOM_TASKS
from aime_gym.wrappers.rendering import choose_gl
from aime_gym.wrappers.tables import (
    DM_CONTROL_POSITIONS,
    DM_CONTROL_TASKS,
    METAWORLD_POSITIONS,
    METAWORLD_TASKS,
    MUJOCO_POSITIONS,
)

#: Entries of an observation that are positions: the number of leading entries of each sensor of a ``Dict`` (``None``:
#: all), or the indices of a vector.
Positions = Mapping[str, int | None] | Sequence[int]

#: Default simulator steps per episode: the suite's own (its lqr tasks have none), and those of AIME-v2.
DM_CONTROL_STEPS = 1000
METAWORLD_STEPS = 200
#: The usual limit of Atari's episodes in frames: half an hour.
ATARI_STEPS, ATARI_STEPS_PER_SECOND = 108_000, 60.0
#: Options of ``make_env`` that stand for arguments of an environment by another name.
_MEANT = {"frameskip": "action_repeat", "obs_type": "modality"}


@dataclass(frozen=True)
class View:
    """Options of a simulator: the length of its episodes, and its frames.

    :param max_episode_steps: episode length in simulator steps; ``None`` for the task's own.
    :param render_mode: render mode of Gymnasium.
    :param size: side of the rendered frame in pixels.
    :param camera: camera by id or name; ``None`` for the task's own.
    """

    max_episode_steps: int | None
    render_mode: str | None
    size: int
    camera: int | str | None


class Simulator(NamedTuple):
    """Task before its wrappers."""

    env: gym.Env[Any, Any]
    #: Names of the sensors of a ``Dict`` observation in the simulator's order, which the space itself does not keep.
    sensors: Sequence[str] | None
    #: Default of the positions; ``None`` where they are unknown.
    positions: Positions | None
    #: Simulator steps per second; ``None`` where the simulator does not tell.
    steps_per_second: float | None


def list_envs() -> dict[str, list[str]]:
    """Return the ids that ``make_env`` lists, by simulator. Any other Gymnasium id works too."""
    return {
        "dm_control": [f"{domain}-{task}" for domain, tasks in DM_CONTROL_TASKS.items() for task in tasks],
        "metaworld": list(METAWORLD_TASKS),
        "mujoco": list(MUJOCO_POSITIONS),
    }


def domain_and_task(env_id: str) -> tuple[str, str] | None:
    """Return domain and task of an id of dm_control, or ``""`` and the task of one of Meta-World."""
    short = env_id.removeprefix("dm_control/").removesuffix("-v0") if env_id.startswith("dm_control/") else env_id
    domain, _, task = short.partition("-")
    if task in DM_CONTROL_TASKS.get(domain, ()):
        return domain, task
    return ("", short) if short in METAWORLD_TASKS else None


def is_atari(env_id: str) -> bool:
    """Return whether an id is that of an Atari game, as ``"ALE/Pong-v5"``."""
    return env_id.startswith("ALE/")


def register_atari() -> None:
    """Register the games of the Arcade Learning Environment with Gymnasium.

    :raises ModuleNotFoundError: it is not installed, or OpenCV, with which Gymnasium shrinks its frames.
    """
    need = "This task needs the Arcade Learning Environment and OpenCV"
    ale_py, _ = (import_extra(name, "atari", need) for name in ("ale_py", "cv2"))
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # or each environment prints its version
    gym.register_envs(ale_py)


def make_simulator(
    env_id: str,
    view: View,
    env_kwargs: Mapping[str, Any],
) -> Simulator:
    """Find the simulator of an id and make the task in it.

    :param env_kwargs: further arguments of a Gymnasium environment.
    :raises ValueError: an unknown id, or arguments that the environment does not have.
    :raises ModuleNotFoundError: the simulator is not installed.
    """
    listed = domain_and_task(env_id)
    if listed is None:
        return _make_gymnasium(env_id, view, env_kwargs)
    if env_kwargs:
        raise ValueError(f"env_kwargs: expected with a Gymnasium id only, got {dict(env_kwargs)} for {env_id}")
    domain, task = listed
    if domain:
        return _make_dm_control(domain, task, view)
    return _make_metaworld(task, view)


def _make_gymnasium(
    env_id: str,
    view: View,
    env_kwargs: Mapping[str, Any],
) -> Simulator:
    if env_id.startswith("aime_gym/"):
        raise ValueError(
            f"id: expected a task without a modality, as 'walker-walk', got {env_id!r}: gymnasium.make makes it"
        )
    options: dict[str, Any] = {"max_episode_steps": view.max_episode_steps}
    if is_atari(env_id):
        register_atari()
        # AtariPreprocessing skips the frames, and needs to see them.
        options = {"max_episode_steps": view.max_episode_steps or ATARI_STEPS, "frameskip": 1, "obs_type": "rgb"}
    if view.render_mode is not None:  # a plain environment has no such argument
        choose_gl()
        options["render_mode"] = view.render_mode
        if env_id in MUJOCO_POSITIONS:
            options.update(width=view.size, height=view.size)
    if view.camera is not None:
        options |= _camera(view.camera)
    if taken := {*options, "render_mode"} & env_kwargs.keys():
        raise ValueError(
            f"env_kwargs: expected {_MEANT.get(name := taken.pop(), name)} as an option of make_env, got {name} among "
            f"{dict(env_kwargs)}"
        )
    if is_atari(env_id) and "repeat_action_probability" not in env_kwargs:
        options["repeat_action_probability"] = 0.0
    with nearest_ids("id", env_id):
        try:
            env = gym.make(env_id, **options, **env_kwargs)
        except TypeError as error:
            if not env_kwargs:
                raise
            given = ", ".join(f"{name}={value!r}" for name, value in env_kwargs.items())
            raise ValueError(f"env_kwargs: expected arguments of {env_id}, got {given} ({error})") from error
    sensors = list(env.observation_space.spaces) if isinstance(env.observation_space, spaces.Dict) else None
    steps_per_second = ATARI_STEPS_PER_SECOND if is_atari(env_id) else env.metadata.get("render_fps")
    return Simulator(env, sensors, MUJOCO_POSITIONS.get(env_id), steps_per_second=steps_per_second)


def _make_dm_control(domain: str, task: str, view: View) -> Simulator:
    choose_gl()
    try:
        from dm_control import suite

        from aime_gym.wrappers.dm_control import DmControl
    except ModuleNotFoundError as error:
        if sys.version_info >= (3, 13):
            raise ModuleNotFoundError(
                f"This task needs dm_control ({error}), which cannot be installed with Python 3.13: its requirement "
                f"labmaze has no wheel there. Use Python 3.11 or 3.12, or a task of Meta-World or Gymnasium",
                name=error.name,
            ) from error
        raise _missing(error, "dm_control and shimmy", "'dm_control>=1.0.28,<1.0.30' 'mujoco==3.3.0' shimmy") from error

    _repair_quadruped()
    custom = CUSTOM_TASKS.get(domain, {}).get(task)
    # The random state decides the springs and dampers of the lqr tasks, so it is fixed: otherwise every environment
    # would be another task. Episodes are cut by TimeLimit, as those of all other simulators.
    original = task if custom is None else custom.original
    raw = suite.load(domain, original, task_kwargs={"random": 0, "time_limit": float("inf")})
    camera = view.camera
    if camera is None:
        camera = 2 if domain == "quadruped" else 0
    frame = {"height": view.size, "width": view.size, "camera_id": camera}
    _check_render_mode(view.render_mode)
    base = DmControl(raw, render_mode=view.render_mode, render_kwargs=frame)
    base.np_random = np.random.RandomState()
    env = base if custom is None else TransformReward(base, lambda reward: custom.reward(raw.physics, reward))
    env = TimeLimit(OrderEnforcing(env), view.max_episode_steps or DM_CONTROL_STEPS)
    sensors = list(raw.observation_spec())
    positions = {key: count for key, count in DM_CONTROL_POSITIONS[domain].items() if key in sensors}
    return Simulator(env, sensors, positions, steps_per_second=1 / raw.control_timestep())


def _repair_quadruped() -> None:
    """Patch dm_control 1.0.28, which looks its sensors up by ``numpy.in1d``: NumPy 2.4 removed it."""
    if hasattr(np, "in1d"):
        return
    from dm_control.suite.quadruped import Physics

    def sensor_names(self: Any, *types: int) -> list[str]:
        if types not in self._sensor_types_to_names:
            (ids,) = np.where(np.isin(self.model.sensor_type, types))
            self._sensor_types_to_names[types] = [self.model.id2name(index, "sensor") for index in ids]
        names: list[str] = self._sensor_types_to_names[types]
        return names

    Physics._get_sensor_names = sensor_names


def _make_metaworld(name: str, view: View) -> Simulator:
    choose_gl()
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    except ModuleNotFoundError as error:
        raise _missing(error, "metaworld", "'metaworld>=3.1.1' 'mujoco==3.3.0'") from error

    _check_render_mode(view.render_mode)
    # corner4 is corner2 at (0.75, 0.075, 0.7), where the papers move it; as theirs, it is mounted upside down.
    options: dict[str, Any] = {"render_mode": view.render_mode, "width": view.size, "height": view.size}
    options |= _camera("corner4" if view.camera is None else view.camera)
    base = ALL_V3_ENVIRONMENTS[name](**options)
    steps = view.max_episode_steps or METAWORLD_STEPS
    # The simulator raises an error beyond its own limit of 500 steps.
    base.max_path_length = max(steps, base.max_path_length)
    env = TimeLimit(OrderEnforcing(SeededMetaWorld(base, flip=view.camera is None)), steps)
    return Simulator(env, None, METAWORLD_POSITIONS, steps_per_second=1 / base.dt)


def _camera(camera: int | str) -> dict[str, Any]:
    """Return a camera as Gymnasium's MuJoCo environments and Meta-World take it."""
    return {"camera_id" if isinstance(camera, int) else "camera_name": camera}


def _check_render_mode(render_mode: str | None) -> None:
    if render_mode not in (None, "rgb_array", "human"):
        raise ValueError(f"render_mode: expected None, 'rgb_array' or 'human', got {render_mode!r}")


def _missing(error: ModuleNotFoundError, name: str, packages: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"This task needs {name} ({error}): pip install {packages}", name=error.name)


@contextmanager
def nearest_ids(argument: str, env_id: str) -> Iterator[None]:
    """Name the ids that are nearest to one that Gymnasium does not know.

    :param argument: name of the id for the user, which the error starts with.
    :raises ValueError: an unknown or malformed id.
    """
    try:
        yield
    except gym.error.Error as error:
        # Gymnasium raises its bare Error for a malformed id; other errors come from the environment itself.
        if type(error) is not gym.error.Error and not isinstance(
            error, gym.error.UnregisteredEnv | gym.error.DeprecatedEnv
        ):
            raise
        names = list(gym.registry)  # with a modality, or tasks without one
        if not env_id.startswith("aime_gym/"):
            names = [*chain(*list_envs().values()), *(name for name in names if not name.startswith("aime_gym/"))]
        expected = expected_name(
            env_id, names, "'walker-walk' (dm_control), 'reach-v3' (Meta-World) or any Gymnasium id"
        )
        raise ValueError(f"{argument}: {expected}") from error


def expected_name(given: str, names: Sequence[str], expectation: str) -> str:
    """Return an error message for an unknown name, with the names that are nearest to it."""
    near = ", ".join(map(repr, difflib.get_close_matches(str(given), names, n=4)))
    return f"expected {expectation}, got {given!r}" + (f"; the nearest names are {near}" if near else "")
