"""Tasks by name: dm_control, Meta-World and any Gymnasium environment, as one kind of Gymnasium environment."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple, get_args

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import OrderEnforcing, RepeatAction, TimeLimit

from aime_gym.wrappers import OwnContext, SeededMetaWorld, SuccessLatch, Task
from aime_gym.wrappers.modality import see_pixels, see_sensors, see_vector
from aime_gym.wrappers.quality import QUALITIES, Quality, draw_fast
from aime_gym.wrappers.rendering import choose_gl, require_gl
from aime_gym.wrappers.tables import (
    DM_CONTROL_POSITIONS,
    DM_CONTROL_TASKS,
    METAWORLD_POSITIONS,
    METAWORLD_TASKS,
    MUJOCO_POSITIONS,
)

Modality = Literal["state", "position", "pixels"]
#: Sensors of a ``Dict`` observation and how many of their leading entries, or entries of any other observation.
Positions = Mapping[str, int | None] | Sequence[int]

#: Simulator steps per episode where the user does not say: the suite's own, which its lqr tasks lack, and AIME-v2's.
DM_CONTROL_STEPS, METAWORLD_STEPS = 1000, 200


class _Simulator(NamedTuple):
    """A task before its wrappers."""

    env: gym.Env[Any, Any]
    #: Its sensors in the simulator's order, where it has sensors; a ``Dict`` space sorts them.
    sensors: Sequence[str] | None
    #: What is known to be positions.
    positions: Positions | None
    #: The default action repeat.
    repeat: int
    #: Simulator steps per second, where the simulator says.
    rate: float | None


def list_envs() -> dict[str, list[str]]:
    """Return the ids that :func:`make_env` knows by name, by family. Any other Gymnasium id works too."""
    return {
        "dm_control": [f"{domain}-{task}" for domain, tasks in DM_CONTROL_TASKS.items() for task in tasks],
        "metaworld": list(METAWORLD_TASKS),
        "mujoco": list(MUJOCO_POSITIONS),
    }


def make_env(
    id: str,  # noqa: A002 - the name that gymnasium.make gives it
    *,
    modality: Modality = "state",
    action_repeat: int | None = None,
    max_episode_steps: int | None = None,
    flatten: bool = True,
    position_keys: Sequence[str] | None = None,
    position_indices: Sequence[int] | None = None,
    image_size: int | None = None,
    camera: int | str | None = None,
    render_mode: str | None = None,
    quality: Quality = "default",
) -> gym.Env[Any, Any]:
    """Make a task.

    The same seed in ``reset(seed=)`` gives the same episode. Rewards are summed over the repeats. Tasks that report
    success do it in ``info["is_success"]``: true once the episode has succeeded at any simulator step.

    :param id: ``"walker-walk"`` (dm_control), ``"reach-v3"`` (Meta-World), or any Gymnasium id, ``"module:Id-v0"`` too.
    :param modality: ``"state"`` is everything the simulator reports, and ``"position"`` leaves the velocities out, both
        as ``float32``; ``"pixels"`` is the rendered frame, ``uint8``, ``(image_size, image_size, 3)``. Positions are
        known for dm_control (as in the papers, whose quadruped keeps the velocities of its joints), for Meta-World and
        for Gymnasium's MuJoCo v5 tasks; for others say which they are.
    :param action_repeat: simulator steps per decision; default 2 for dm_control and Meta-World, otherwise 1.
    :param max_episode_steps: episode length in simulator steps, before the repeat; default 1000 for dm_control, 200 for
        Meta-World (as in AIME-v2), otherwise the environment's own.
    :param flatten: one vector, in the simulator's order. ``False`` keeps the sensors of a ``Dict`` apart, as vectors.
    :param position_keys: the sensors of a ``Dict`` observation that are positions.
    :param position_indices: the entries of any other observation that are positions.
    :param image_size: side of the rendered frame in pixels; default 64 for ``"pixels"``, otherwise 256.
    :param camera: its id or name; default 0 in dm_control (2 for the quadruped), the moved ``corner2`` of the papers in
        Meta-World (upright), otherwise the environment's own.
    :param render_mode: Gymnasium's. ``"pixels"`` needs ``"rgb_array"``, and takes it by itself.
    :param quality: of the frames: ``"default"`` is the simulator's own; ``"fast"`` (MuJoCo only) draws without shadows,
        reflections and multisampling, which on a processor takes a tenth of the time. Train on what the demonstrations
        were rendered with: the two are told apart at a glance.
    :raises ValueError: an unknown id or modality (the nearest names are in the message), numbers below 1, no word on
        which entries are positions, position options that do not fit the observation, or ``quality="fast"`` where
        nothing is rendered or not by MuJoCo.
    :raises ModuleNotFoundError: the simulator is not installed; the message holds the command.
    :raises RuntimeError: ``"pixels"`` without an OpenGL library (the message names the packages), or in a process that
        was forked from one that has rendered.
    """
    _check_arguments(
        modality, action_repeat, max_episode_steps, image_size, position_keys, position_indices, render_mode, quality
    )
    if modality == "pixels":
        render_mode = "rgb_array"
        require_gl()
    size = image_size or (64 if modality == "pixels" else 256)
    simulator = _make_simulator(id, max_episode_steps, render_mode, size, camera)
    if quality == "fast":
        draw_fast(simulator.env)
    repeat = action_repeat or simulator.repeat
    # The latch is inside the repeat, which shows the info of its last step only; the renderer is outside, so that
    # no frame is rendered that nobody sees.
    env = simulator.env if render_mode is None else OwnContext(simulator.env)
    env = RepeatAction(SuccessLatch(env), repeat)
    if modality == "pixels":
        env = see_pixels(env, size)
    else:
        positions: Positions | None = None
        if modality == "position":
            positions = _positions(id, simulator, position_keys, position_indices)
        env = _see_numbers(env, simulator.sensors, positions, flatten)
    options = {
        "action_repeat": action_repeat,
        "max_episode_steps": max_episode_steps,
        "flatten": None if flatten else False,
        "position_keys": None if position_keys is None else list(position_keys),
        "position_indices": None if position_indices is None else [int(index) for index in position_indices],
        "image_size": image_size,
        "camera": camera,
        "render_mode": render_mode,
        "quality": None if quality == "default" else quality,
    }
    spec = _spec(id, modality, **{name: value for name, value in options.items() if value is not None})
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]} if modality == "pixels" else {}
    if simulator.rate is not None:
        metadata["render_fps"] = simulator.rate / repeat
    return Task(env, spec, metadata, None if render_mode is None else quality)


def make_task(task: str, **options: Any) -> gym.Env[Any, Any]:
    """Make a task for ``gymnasium.make`` and ``make_vec``, whose own first argument is called ``id``.

    :param task: ``id`` of :func:`make_env`.
    :param options: its other arguments.
    """
    return make_env(task, **options)


def register_envs() -> None:
    """Give every known task and modality a Gymnasium id: ``aime_gym/walker-run-position-v0``.

    ``gymnasium.make`` passes the options of :func:`make_env` on, except for its own ``max_episode_steps``, which counts
    decisions and can only shorten an episode.
    """
    for env_id in chain(*list_envs().values()):
        for modality in get_args(Modality):
            spec = _spec(env_id, modality)
            if spec.id not in gym.registry:
                gym.register(spec.id, spec.entry_point, order_enforce=False, kwargs=spec.kwargs)


def _spec(env_id: str, modality: str, **options: Any) -> EnvSpec:
    """Return what makes the same environment again; ``options`` are those that differ from the default."""
    name = env_id.replace(":", "-").replace("/", "-")
    return EnvSpec(
        id=f"aime_gym/{name}-{modality}-v0",
        entry_point="aime_gym.envs:make_task",
        # make_env orders its calls itself, below the wrappers.
        order_enforce=False,
        kwargs={"task": env_id, "modality": modality, **options},
    )


def _check_arguments(
    modality: str,
    action_repeat: int | None,
    max_episode_steps: int | None,
    image_size: int | None,
    position_keys: Sequence[str] | None,
    position_indices: Sequence[int] | None,
    render_mode: str | None,
    quality: str,
) -> None:
    """Refuse what no simulator could make sense of, before one is built."""
    names = get_args(Modality)
    if modality not in names:
        raise ValueError(f"modality: {_expected(modality, names, f'one of {names}')}")
    numbers = {"action_repeat": action_repeat, "max_episode_steps": max_episode_steps, "image_size": image_size}
    for name, value in numbers.items():
        if value is not None and (not isinstance(value, int | np.integer) or value < 1):
            raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
    for name, chosen in {"position_keys": position_keys, "position_indices": position_indices}.items():
        if chosen is not None and modality != "position":
            raise ValueError(f"{name}: expected with modality='position' only, got modality={modality!r}")
    if modality == "pixels" and render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode: expected 'rgb_array' for modality='pixels', got {render_mode!r}")
    if quality not in QUALITIES:
        raise ValueError(f"quality: {_expected(quality, QUALITIES, f'one of {QUALITIES}')}")
    if quality != "default" and modality != "pixels" and render_mode is None:
        raise ValueError(
            f"quality: expected with modality='pixels' or a render_mode only, got modality={modality!r} without one"
        )


def _expected(came: str, names: Sequence[str], otherwise: str) -> str:
    """Say what was expected instead of a name, with the nearest names first."""
    near = ", ".join(map(repr, difflib.get_close_matches(str(came), names, n=4)))
    return f"expected {otherwise}, got {came!r}" + (f"; the nearest names are {near}" if near else "")


def _make_simulator(
    env_id: str, max_episode_steps: int | None, render_mode: str | None, size: int, camera: int | str | None
) -> _Simulator:
    """Find the family of a task and make it."""
    short = env_id.removeprefix("dm_control/").removesuffix("-v0") if env_id.startswith("dm_control/") else env_id
    domain, _, task = short.partition("-")
    if task in DM_CONTROL_TASKS.get(domain, ()):
        return _make_dm_control(domain, task, max_episode_steps, render_mode, size, camera)
    if short in METAWORLD_TASKS:
        return _make_metaworld(short, max_episode_steps, render_mode, size, camera)
    return _make_gymnasium(env_id, max_episode_steps, render_mode, size, camera)


def _make_dm_control(
    domain: str, task: str, max_episode_steps: int | None, render_mode: str | None, size: int, camera: int | str | None
) -> _Simulator:
    choose_gl()
    try:
        from dm_control import suite

        from aime_gym.wrappers.dm_control import DmControl
    except ModuleNotFoundError as error:
        raise _missing(error, "dm_control and shimmy", "'dm_control>=1.0.28,<1.0.30' 'mujoco==3.3.0' shimmy") from error

    _repair_quadruped()
    # The random state decides the springs and dampers of the lqr tasks: it is fixed, or every environment would be
    # another task. The time limit is TimeLimit's, like everywhere else.
    raw = suite.load(domain, task, task_kwargs={"random": 0, "time_limit": float("inf")})
    if camera is None:
        camera = 2 if domain == "quadruped" else 0
    frame = {"height": size, "width": size, "camera_id": camera}
    _check_render_mode(render_mode)
    base = DmControl(raw, render_mode=render_mode, render_kwargs=frame)
    base.np_random = np.random.RandomState()
    env = TimeLimit(OrderEnforcing(base), max_episode_steps or DM_CONTROL_STEPS)
    sensors = list(raw.observation_spec())
    positions = {key: count for key, count in DM_CONTROL_POSITIONS[domain].items() if key in sensors}
    return _Simulator(env, sensors, positions, repeat=2, rate=1 / raw.control_timestep())


def _repair_quadruped() -> None:
    """dm_control 1.0.28 looks its sensors up with ``numpy.in1d``, which NumPy removed in 2.4."""
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


def _make_metaworld(
    name: str, max_episode_steps: int | None, render_mode: str | None, size: int, camera: int | str | None
) -> _Simulator:
    choose_gl()
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    except ModuleNotFoundError as error:
        raise _missing(error, "metaworld", "'metaworld>=3.1.1' 'mujoco==3.3.0'") from error

    _check_render_mode(render_mode)
    # corner4 is corner2 at the place (0.75, 0.075, 0.7) to which the papers move it, and as there it hangs upside down.
    view = {"camera_id": camera} if isinstance(camera, int) else {"camera_name": camera or "corner4"}
    options: dict[str, Any] = {"render_mode": render_mode, "width": size, "height": size}
    base = ALL_V3_ENVIRONMENTS[name](**options, **view)
    steps = max_episode_steps or METAWORLD_STEPS
    # The simulator refuses to go past its own limit of 500 steps.
    base.max_path_length = max(steps, base.max_path_length)
    env = TimeLimit(OrderEnforcing(SeededMetaWorld(base, flip=camera is None)), steps)
    return _Simulator(env, None, METAWORLD_POSITIONS, repeat=2, rate=1 / base.dt)


def _make_gymnasium(
    env_id: str, max_episode_steps: int | None, render_mode: str | None, size: int, camera: int | str | None
) -> _Simulator:
    known = list(chain(*list_envs().values()))
    if env_id.startswith("aime_gym/"):
        raise ValueError(
            f"id: expected a task without a modality, as {known[0]!r}, got {env_id!r}: gymnasium.make makes it"
        )
    options: dict[str, Any] = {}
    if render_mode is not None:
        choose_gl()
        if env_id in MUJOCO_POSITIONS:
            options.update(width=size, height=size)
    if camera is not None:
        options["camera_id" if isinstance(camera, int) else "camera_name"] = camera
    try:
        env = gym.make(env_id, max_episode_steps=max_episode_steps, render_mode=render_mode, **options)
    except gym.error.Error as error:
        # Gymnasium raises its bare Error for a malformed id; other errors come from the environment itself.
        if type(error) is not gym.error.Error and not isinstance(
            error, gym.error.UnregisteredEnv | gym.error.DeprecatedEnv
        ):
            raise
        names = known + [name for name in gym.registry if not name.startswith("aime_gym/")]
        expected = _expected(env_id, names, "'walker-walk' (dm_control), 'reach-v3' (Meta-World) or any Gymnasium id")
        raise ValueError(f"id: {expected}") from error
    sensors = list(env.observation_space.spaces) if isinstance(env.observation_space, spaces.Dict) else None
    return _Simulator(env, sensors, MUJOCO_POSITIONS.get(env_id), repeat=1, rate=env.metadata.get("render_fps"))


def _check_render_mode(render_mode: str | None) -> None:
    if render_mode not in (None, "rgb_array", "human"):
        raise ValueError(f"render_mode: expected None, 'rgb_array' or 'human', got {render_mode!r}")


def _missing(error: ModuleNotFoundError, name: str, packages: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"This task needs {name} ({error}): pip install {packages}", name=error.name)


def _positions(
    env_id: str, simulator: _Simulator, keys: Sequence[str] | None, indices: Sequence[int] | None
) -> Positions:
    """Decide which part of the observation is positions."""
    if simulator.sensors is not None:
        if indices is not None:
            raise ValueError(f"position_indices: {env_id} has the sensors {simulator.sensors}: use position_keys")
        if keys is not None:
            return dict.fromkeys(keys)
    else:
        if keys is not None:
            raise ValueError(f"position_keys: {env_id} has no sensors by name: use position_indices")
        if indices is not None:
            return indices
    if not simulator.positions:
        option = "position_indices (entries of" if simulator.sensors is None else "position_keys (sensors among"
        space = simulator.sensors or simulator.env.observation_space
        raise ValueError(f"modality: which entries of {env_id} are positions is unknown; expected {option} {space})")
    return simulator.positions


def _see_numbers(
    env: gym.Env[Any, Any], sensors: Sequence[str] | None, positions: Positions | None, flatten: bool
) -> gym.Env[Any, Any]:
    if sensors is None:
        assert not isinstance(positions, Mapping)
        return see_vector(env, positions)
    assert positions is None or isinstance(positions, Mapping)
    return see_sensors(env, dict.fromkeys(sensors) if positions is None else positions, flatten)
