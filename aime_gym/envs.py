"""Environments by name: tasks of dm_control and Meta-World, and any Gymnasium id, behind one interface."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Literal, get_args

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import RepeatAction

from aime_gym.simulators import (
    Positions,
    Simulator,
    View,
    domain_and_task,
    expected_name,
    is_atari,
    list_envs,
    make_simulator,
    nearest_ids,
    register_atari,
)
from aime_gym.wrappers import OverrideSpec, OwnGLContext, SuccessLatch
from aime_gym.wrappers.modality import observe_atari, observe_pixels, observe_sensors, observe_vector
from aime_gym.wrappers.quality import QUALITIES, Quality, use_fast_rendering
from aime_gym.wrappers.rendering import require_gl

Modality = Literal["state", "position", "pixels"]

#: Entry point of the specifications of what [`make_env`][] makes.
ENTRY_POINT = "aime_gym.envs:make_task"


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
    env_kwargs: Mapping[str, Any] | None = None,
) -> gym.Env[Any, Any]:
    """Make an environment.

    Equal seeds in ``reset(seed=)`` give equal episodes. Rewards are summed over the repeats. Tasks that report success
    do it in ``info["is_success"]``, which is true once the episode has succeeded at any simulator step.

    :param id: ``"walker-walk"`` (dm_control, with the papers' tasks such as ``"walker-flip"``), ``"reach-v3"``
        (Meta-World), ``"ALE/Pong-v5"`` (Atari), or any Gymnasium id, ``"module:Id-v0"`` too.
    :param modality: ``"state"`` is everything the simulator reports, and ``"position"`` leaves the velocities out, both
        as ``float32``; ``"pixels"`` is the rendered frame, ``uint8``, ``(image_size, image_size, 3)``. Atari's state
        is the 128 bytes of the game's memory, and its frame is grey, ``(image_size, image_size, 1)``. Positions are
        known for dm_control (as in the papers, whose quadruped keeps the velocities of its joints), for Meta-World and
        for Gymnasium's MuJoCo v5 tasks; other environments need ``position_keys`` or ``position_indices``.
    :param action_repeat: simulator steps per environment step; default 2 for dm_control and Meta-World, 4 for Atari,
        otherwise 1.
    :param max_episode_steps: episode length in simulator steps, before the repeat; default 1000 for dm_control, 200 for
        Meta-World (as in AIME-v2), 108,000 for Atari, otherwise the environment's own.
    :param flatten: whether the sensors of a ``Dict`` become one vector, in the simulator's order; ``False`` keeps one
        vector per sensor.
    :param position_keys: sensors of a ``Dict`` observation that are positions.
    :param position_indices: entries of any other observation that are positions.
    :param image_size: side of the rendered frame in pixels; default 64 for ``"pixels"``, otherwise 256.
    :param camera: camera by id or name; default 0 in dm_control (2 for the quadruped), the papers' moved ``corner2``
        in Meta-World (upright), otherwise the environment's own.
    :param render_mode: render mode of Gymnasium; ``"pixels"`` always renders ``"rgb_array"``.
    :param quality: render quality: ``"default"`` is the simulator's own; ``"fast"`` (MuJoCo only) renders without
        shadows, reflections and multisampling, in a tenth of the time on a CPU. Train with the quality that the
        demonstrations were rendered in: a network tells the two apart at once.
    :param env_kwargs: further arguments of a Gymnasium environment, as ``gymnasium.make`` takes them.
    :raises ValueError: an unknown id or modality (the message names the nearest ones), numbers below 1, unknown
        positions, position options that do not fit the observation, ``quality="fast"`` without rendering or without
        MuJoCo, or arguments that the environment does not have.
    :raises ModuleNotFoundError: the simulator is not installed; the message contains the command, or says which Python
        the simulator needs.
    :raises RuntimeError: ``"pixels"`` without an OpenGL library (the message names the packages), or in a process that
        was forked from one that has rendered.
    """
    _check_arguments(
        modality, action_repeat, max_episode_steps, image_size, position_keys, position_indices, render_mode, quality
    )
    if modality == "pixels":
        render_mode = "rgb_array"
        if not is_atari(id):
            require_gl()
    # NumPy's numbers are fine, but a specification is JSON.
    action_repeat, max_episode_steps, image_size, camera = map(
        _plain_integer, (action_repeat, max_episode_steps, image_size, camera)
    )
    size = image_size or default_image_size(modality)
    simulator = make_simulator(id, View(max_episode_steps, render_mode, size, camera), env_kwargs or {})
    if quality == "fast":
        use_fast_rendering(simulator.env)
    repeat = action_repeat or default_action_repeat(id)
    if is_atari(id):
        env = observe_atari(simulator.env, repeat, size, pixels=modality == "pixels")
        simulator = simulator._replace(env=env)
    else:
        # The latch is inside the repeat, which returns the info of its last step only; the renderer is outside, so that
        # repeated steps render no frames.
        env = simulator.env if render_mode is None else OwnGLContext(simulator.env)
        env = RepeatAction(SuccessLatch(env), repeat)
    if modality == "pixels":
        env = env if is_atari(id) else observe_pixels(env, size)
    else:
        positions: Positions | None = None
        if modality == "position":
            positions = _positions(id, simulator, position_keys, position_indices)
        env = _observe_numbers(env, simulator.sensors, positions, flatten)
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
        "env_kwargs": dict(env_kwargs) if env_kwargs else None,
    }
    spec = _spec(id, modality, **{name: value for name, value in options.items() if value is not None})
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]} if modality == "pixels" else {}
    if simulator.steps_per_second is not None:
        metadata["render_fps"] = simulator.steps_per_second / repeat
    return OverrideSpec(env, spec, metadata, None if render_mode is None else quality)


def env_of_id(env_id: str) -> gym.Env[Any, Any]:
    """Make the environment that an agent's constructor is given by its id.

    :param env_id: task that [`list_envs`][] names, in the default modality, or any registered id, as it is.
    :raises ValueError: an unknown id; the message names the nearest ones.
    """
    if domain_and_task(env_id) is not None:
        return make_env(env_id)
    if is_atari(env_id):
        register_atari()
    with nearest_ids("env", env_id):
        return gym.make(env_id)


def _plain_integer(value: Any) -> Any:
    return int(value) if isinstance(value, numbers.Integral) else value


def make_task(task: str, **options: Any) -> gym.Env[Any, Any]:
    """Make a task for ``gymnasium.make`` and ``make_vec``, whose own first argument is called ``id``.

    :param task: ``id`` of [`make_env`][].
    :param options: other arguments of [`make_env`][].
    """
    return make_env(task, **options)


def register_envs() -> None:
    """Register every listed task and modality with Gymnasium, as ``aime_gym/walker-run-position-v0``.

    ``gymnasium.make`` passes the options of [`make_env`][] on, except for its own ``max_episode_steps``, which counts
    environment steps and can only shorten an episode.
    """
    for env_id in chain(*list_envs().values()):
        for modality in get_args(Modality):
            spec = _spec(env_id, modality)
            if spec.id not in gym.registry:
                gym.register(spec.id, spec.entry_point, order_enforce=False, kwargs=spec.kwargs)


def _spec(env_id: str, modality: str, **options: Any) -> EnvSpec:
    """Return the specification that rebuilds an environment; ``options`` are those that differ from the default."""
    name = env_id.replace(":", "-").replace("/", "-")
    return EnvSpec(
        id=f"aime_gym/{name}-{modality}-v0",
        entry_point=ENTRY_POINT,
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
    """Raise an error for arguments that are wrong with any simulator, before one is built."""
    names = get_args(Modality)
    if modality not in names:
        raise ValueError(f"modality: {expected_name(modality, names, f'one of {names}')}")
    counts = {"action_repeat": action_repeat, "max_episode_steps": max_episode_steps, "image_size": image_size}
    for name, value in counts.items():
        if value is not None and (not isinstance(value, numbers.Integral) or isinstance(value, bool) or int(value) < 1):
            raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
    for name, selection in {"position_keys": position_keys, "position_indices": position_indices}.items():
        if selection is not None and modality != "position":
            raise ValueError(f"{name}: expected with modality='position' only, got modality={modality!r}")
    if modality == "pixels" and render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode: expected 'rgb_array' for modality='pixels', got {render_mode!r}")
    if quality not in QUALITIES:
        raise ValueError(f"quality: {expected_name(quality, QUALITIES, f'one of {QUALITIES}')}")
    if quality != "default" and modality != "pixels" and render_mode is None:
        raise ValueError(
            f"quality: expected with modality='pixels' or a render_mode only, got modality={modality!r} without one"
        )


def default_action_repeat(env_id: str) -> int:
    """Return the simulator steps per environment step that a task has unless it is told otherwise."""
    if is_atari(env_id):
        return 4
    return 1 if domain_and_task(env_id) is None else 2


def default_image_size(modality: str) -> int:
    """Return the side of the rendered frame that a modality has unless it is told otherwise."""
    return 64 if modality == "pixels" else 256


def _positions(
    env_id: str, simulator: Simulator, keys: Sequence[str] | None, indices: Sequence[int] | None
) -> Positions:
    """Return the entries of the observation that are positions: those given, or else the simulator's default."""
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


def _observe_numbers(
    env: gym.Env[Any, Any], sensors: Sequence[str] | None, positions: Positions | None, flatten: bool
) -> gym.Env[Any, Any]:
    if sensors is None:
        assert not isinstance(positions, Mapping)
        return observe_vector(env, positions)
    assert positions is None or isinstance(positions, Mapping)
    return observe_sensors(env, dict.fromkeys(sensors) if positions is None else positions, flatten)
