import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_by_sb3
from stable_baselines3.common.env_util import make_vec_env

import aime_gym
from aime_gym.simulators import list_envs
from aime_gym.wrappers import rendering
from aime_gym.wrappers.tables import DM_CONTROL_POSITIONS

TASKS = [task for tasks in list_envs().values() for task in tasks]
SAMPLE = [
    "walker-walk",
    "walker-flip",
    "ball_in_cup-catch",
    "humanoid_CMU-run",
    "quadruped-walk",
    "lqr-lqr_2_1",
    "reach-v3",
    "window-open-v3",
    "HalfCheetah-v5",
    "Pusher-v5",
]


def check(name, modality):
    """Run Gymnasium's checker, and check the dtype and that two environments give equal rollouts."""
    options = {"image_size": 32, "quality": "fast"} if modality == "pixels" else {}
    env = gym.make(f"aime_gym/{name}-{modality}-v0", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # wrapped, unbounded: advice, not faults
        # A window cannot be opened where tests run.
        check_env(env, skip_render_check=modality != "pixels")
    assert env.observation_space.dtype == (np.uint8 if modality == "pixels" else np.float32)
    again = aime_gym.make_env(name, modality=modality, **options)
    again.reset()
    for left, right in zip(rollout(env), rollout(again), strict=True):
        np.testing.assert_array_equal(left, right)
    env.close()
    again.close()


def rollout(env, seed=3, steps=3):
    """Yield the first observation, then observation and reward of each step."""
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)
    yield env.reset(seed=seed)[0]
    for action in actions:
        observation, reward, *_ = env.step(action)
        yield observation
        yield reward


@pytest.mark.parametrize("modality", ["state", "position"])
@pytest.mark.parametrize("name", SAMPLE)
def test_checked(name, modality):
    check(name, modality)


# Not Meta-World: SB3 takes every environment with a compute_reward for a goal environment.
@pytest.mark.parametrize("modality", ["state", "position"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # unbounded observations: advice
def test_checked_by_sb3(modality):
    env = aime_gym.make_env("walker-run", modality=modality, action_repeat=2)
    check_env_by_sb3(env, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("name", ["walker-walk", "reach-v3", "HalfCheetah-v5"])
def test_checked_pixels(name):
    check(name, "pixels")


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["state", "position"])
@pytest.mark.parametrize("name", TASKS)
def test_checked_all(name, modality):
    check(name, modality)


@pytest.mark.parametrize(
    ("name", "modality", "size"),
    [
        ("walker-walk", "state", 24),
        ("walker-walk", "position", 15),
        ("cartpole-swingup", "position", 3),
        ("dm_control/walker-walk-v0", "position", 15),
        ("walker-flip", "position", 15),
        ("cheetah-runbackward", "position", 8),
        ("finger-turn_easy", "position", 9),
        ("quadruped-fetch", "position", 81),
        ("humanoid-run_pure_state", "position", 28),
        ("reach-v3", "state", 39),
        ("reach-v3", "position", 21),
        ("CartPole-v1", "state", 4),
    ],
)
def test_size_of_the_observation(name, modality, size):
    env = aime_gym.make_env(name, modality=modality)
    assert env.observation_space.shape == (size,)
    assert env.reset(seed=0)[0] in env.observation_space


def test_sensors_are_in_the_simulators_order():
    """Check the order of dm_control's recordings, which Gymnasium's own flattening changes."""
    apart = aime_gym.make_env("walker-walk", flatten=False).reset(seed=0)[0]
    together = aime_gym.make_env("walker-walk").reset(seed=0)[0]
    assert {name: value.shape for name, value in apart.items()} == {
        "orientations": (14,),
        "height": (1,),
        "velocity": (9,),
    }
    np.testing.assert_array_equal(np.concatenate(list(apart.values())), together)


@pytest.mark.parametrize("task", list_envs()["dm_control"])
def test_dm_control_positions_hold_no_velocity_by_name(task):
    """Check that no sensor of velocities is among the positions, by its name."""
    kept = DM_CONTROL_POSITIONS[task.partition("-")[0]]
    assert not [name for name in kept if "vel" in name or "inertial" in name]


@pytest.mark.parametrize("task", ["walker-walk", "acrobot-swingup", "fish-swim", "stacker-stack_2", "dog-fetch"])
def test_dm_control_positions_do_not_depend_on_velocities(task):
    env = aime_gym.make_env(task, modality="position", flatten=False)
    env.reset(seed=0)
    physics = env.unwrapped.physics
    seen = []
    for velocity in (0.0, 1.0):
        physics.data.qvel[:] = velocity
        physics.forward()
        raw = env.unwrapped.task.get_observation(physics)
        selecting = env.env
        seen.append(selecting.observation(raw))
    # Forces at the feet and fingers do: a contact pushes back harder the faster it is met.
    for name in set(seen[0]) - {"foot_forces", "touch_sensors", "touch"}:
        np.testing.assert_array_equal(seen[0][name], seen[1][name], err_msg=name)


def test_lqr_is_one_task():
    """Compare the springs of two environments, which are sampled when they are made and not at a reset."""
    stiffness = [aime_gym.make_env("lqr-lqr_2_1").unwrapped.physics.model.jnt_stiffness.copy() for _ in range(2)]
    np.testing.assert_array_equal(*stiffness)


def test_resets_without_a_seed_differ():
    for name, modality in (("walker-walk", "state"), ("reach-v3", "position"), ("HalfCheetah-v5", "pixels")):
        assert not np.array_equal(*(aime_gym.make_env(name, modality=modality).reset()[0] for _ in range(2)))


@pytest.mark.parametrize(
    ("name", "options", "decisions"),
    [
        ("reach-v3", {}, 100),
        ("reach-v3", {"action_repeat": 3, "max_episode_steps": 10}, 4),
        ("walker-walk", {"max_episode_steps": 20}, 10),
        ("walker-walk", {"action_repeat": 10, "max_episode_steps": 1010}, 101),
        ("walker-jump", {"action_repeat": 50}, 20),
        ("reach-v3", {"action_repeat": 50, "max_episode_steps": 600}, 12),
        ("HalfCheetah-v5", {"action_repeat": 4, "max_episode_steps": 40}, 10),
    ],
)
def test_length_of_an_episode(name, options, decisions):
    env = aime_gym.make_env(name, **options)
    env.reset(seed=0)
    steps, terminated, truncated = 0, False, False
    while not (terminated or truncated):
        *_, terminated, truncated, info = env.step(np.zeros(env.action_space.shape, dtype=np.float32))
        steps += 1
    assert (steps, terminated, truncated) == (decisions, False, True)
    assert ("is_success" in info) == (name == "reach-v3")


def test_rewards_are_summed():
    once = aime_gym.make_env("walker-walk", action_repeat=1)
    thrice = aime_gym.make_env("walker-walk", action_repeat=3)
    once.reset(seed=0)
    thrice.reset(seed=0)
    action = np.full(6, 0.5, dtype=np.float32)
    assert sum(once.step(action)[1] for _ in range(3)) == pytest.approx(thrice.step(action)[1])


@pytest.mark.parametrize(
    ("name", "options", "rate"),
    [
        ("walker-walk", {}, 20.0),
        ("cartpole-swingup", {"action_repeat": 1}, 100.0),
        ("reach-v3", {}, 40.0),
        ("HalfCheetah-v5", {"action_repeat": 2}, 10.0),
    ],
)
def test_frame_rate(name, options, rate):
    env = aime_gym.make_env(name, **options)
    aime_gym.make_env("pendulum-swingup")  # dm_control's metadata are shared
    assert env.metadata["render_fps"] == pytest.approx(rate)


# ---- rendering ----


@pytest.mark.parametrize("name", ["walker-walk", "cheetah-flip", "quadruped-walk", "HalfCheetah-v5"])
def test_pixels(name):
    env = aime_gym.make_env(name, modality="pixels", image_size=48)
    observation, _ = env.reset(seed=0)
    assert (observation.shape, observation.dtype) == ((48, 48, 3), np.uint8)
    assert observation.std() > 5
    assert all(stride > 0 for stride in observation.strides)
    env.close()


def test_frames_of_a_numeric_environment():
    env = aime_gym.make_env("reach-v3", render_mode="rgb_array", image_size=32)
    env.reset(seed=0)
    assert env.render().shape == (32, 32, 3)
    env.close()


def test_several_renderers_do_not_disturb_each_other():
    names = ["walker-walk", "reach-v3", "door-open-v3", "HalfCheetah-v5", "walker-walk"]
    options = {"modality": "pixels", "image_size": 32, "quality": "fast"}
    alone = {}
    for name in set(names):
        with aime_gym.make_env(name, **options) as env:
            alone[name] = env.reset(seed=0)[0]
    together = [aime_gym.make_env(name, **options) for name in names]
    while together:
        # Once with all of them, and then with fewer and fewer: closing one frees nothing of the others.
        for name, env in zip(names, together, strict=True):
            np.testing.assert_array_equal(env.reset(seed=0)[0], alone[name], err_msg=name)
        together.pop(0).close()
        names.pop(0)


def test_closing_twice():
    env = aime_gym.make_env("HalfCheetah-v5", modality="pixels")
    env.close()
    env.close()


def test_without_gl_numbers_work_and_pixels_name_the_packages(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(rendering, "_BACKENDS", {"egl": lambda: False, "osmesa": lambda: False})
    with pytest.raises(RuntimeError, match="libegl1 libgl1 libosmesa6"):
        aime_gym.make_env("walker-walk", modality="pixels")
    # make_vec_env always asks for frames, also where nobody looks at them.
    env = aime_gym.make_env("walker-walk", render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="libegl1 libgl1 libosmesa6"):
        env.render()


def test_a_machine_without_gl_trains_on_numbers():
    """Hide the libraries from the whole process, the imports of dm_control and MuJoCo included."""
    code = """
import ctypes, ctypes.util
loads, finds = ctypes.CDLL, ctypes.util.find_library
class CDLL(loads):
    def __init__(self, name, *rest, **options):
        if any(part in str(name) for part in ("libEGL", "libGL", "libOSMesa", "libOpenGL")):
            raise OSError(name)
        super().__init__(name, *rest, **options)
ctypes.CDLL = CDLL
ctypes.util.find_library = lambda name: None if name in ("EGL", "GL", "OpenGL", "OSMesa") else finds(name)
import aime_gym
for name in ("walker-walk", "reach-v3"):
    env = aime_gym.make_env(name, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(env.action_space.sample())
aime_gym.make_env("reach-v3", modality="pixels")
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "DISPLAY")}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1]
    )
    assert (
        result.stderr.strip()
        .splitlines()[-1]
        .startswith("aime_gym.wrappers.rendering.RenderingError: Rendering without a screen needs EGL")
    )


# ---- registration ----


def test_every_task_and_modality_has_an_id():
    registered = {name for name in gym.registry if name.startswith("aime_gym/")}
    assert registered == {f"aime_gym/{task}-{see}-v0" for task in TASKS for see in ("state", "position", "pixels")}


@pytest.mark.parametrize("prefix", ["", "aime_gym:"])
def test_made_by_gymnasium(prefix):
    env = gym.make(f"{prefix}aime_gym/walker-run-position-v0", action_repeat=4)
    assert env.observation_space.shape == (15,)
    assert env.metadata["render_fps"] == pytest.approx(10.0)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert env.spec.id == "aime_gym/walker-run-position-v0"


def test_made_by_sb3():
    env = make_vec_env("aime_gym/reach-v3-position-v0", n_envs=2, seed=0)
    observations = env.reset()
    assert observations.shape == (2, 21)
    assert not np.array_equal(observations[0], observations[1])
    for _ in range(100):
        _, _, dones, infos = env.step(np.zeros((2, 4), dtype=np.float32))
    assert dones.all()
    assert [info["is_success"] for info in infos] == [False, False]
    assert all("episode" in info for info in infos)
    env.close()


def test_specification_makes_the_same_environment():
    options = {"action_repeat": np.int64(2), "max_episode_steps": np.uint8(50), "image_size": np.int32(32)}
    env = aime_gym.make_env("CartPole-v1", modality="position", position_indices=np.array([0, 2]), **options)
    json.loads(env.spec.to_json())
    again = gym.make(env.spec)
    assert again.observation_space == env.observation_space
    np.testing.assert_array_equal(env.reset(seed=1)[0], again.reset(seed=1)[0])
    assert again.spec.kwargs == env.spec.kwargs


# ---- wrong input ----


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("walker-wlak", "'walker-walk'"),
        ("walker_walk", "'walker-walk'"),
        ("cheetah-run-backward", "'cheetah-runbackward'"),
        ("reach-v2", "'reach-v3'"),
        ("HalfCheeta-v5", "'HalfCheetah-v5'"),
        ("cart pole", ""),
        ("CartPole-v9", "'CartPole-v1'"),
        ("nowhere/Nothing-v0", ""),
    ],
)
def test_unknown_id(name, nearest):
    with pytest.raises(ValueError, match="^id: expected") as error:
        aime_gym.make_env(name)
    assert nearest in str(error.value)
    assert repr(name) in str(error.value)


def test_registered_id():
    with pytest.raises(ValueError, match="gymnasium.make makes it"):
        aime_gym.make_env("aime_gym/walker-walk-position-v0", modality="position")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("walker-walk", {"modality": "positions"}, "modality: expected .*'positions'.*nearest names are 'position'"),
        ("walker-walk", {"action_repeat": 0}, "action_repeat: expected an integer of at least 1, got 0"),
        ("walker-walk", {"max_episode_steps": 1.5}, "max_episode_steps: expected an integer"),
        ("walker-walk", {"position_keys": ["height"]}, "position_keys: expected with modality='position'"),
        ("walker-walk", {"modality": "position", "position_indices": [0]}, "use position_keys"),
        ("walker-walk", {"modality": "position", "position_keys": ["hight"]}, r"expected names among .*\['hight'\]"),
        ("walker-walk", {"modality": "pixels", "render_mode": "human"}, "render_mode: expected 'rgb_array'"),
        ("reach-v3", {"render_mode": "rgb"}, "render_mode: expected None, 'rgb_array' or 'human', got 'rgb'"),
        ("reach-v3", {"modality": "position", "position_keys": ["hand"]}, "use position_indices"),
        ("reach-v3", {"modality": "position", "position_indices": [39]}, r"entries of 0\.\.38"),
        (
            "CartPole-v1",
            {"modality": "position"},
            "which entries of CartPole-v1 are positions is unknown.*position_ind",
        ),
    ],
)
def test_wrong_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        aime_gym.make_env(name, **options)


def test_stepping_before_the_first_reset():
    for name in ("walker-walk", "reach-v3"):
        env = aime_gym.make_env(name)
        with pytest.raises(gym.error.ResetNeeded):
            env.step(env.action_space.sample())


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_make_vec_makes_what_make_makes(mode):
    spec = aime_gym.make_env("reach-v3", modality="position").spec
    for made in ("aime_gym/reach-v3-position-v0", spec):
        envs = gym.make_vec(made, num_envs=2, vectorization_mode=mode, action_repeat=4)
        assert envs.reset(seed=0)[0].shape == (2, *gym.make(spec).observation_space.shape)
        envs.close()


def test_arguments_of_a_gymnasium_environment():
    env = aime_gym.make_env("Pendulum-v1", env_kwargs={"g": 5.0})
    assert env.unwrapped.g == 5.0
    assert gym.make(env.spec).unwrapped.g == 5.0
    for name, kwargs, message in (
        ("Pendulum-v1", {"gravity": 5.0}, "expected arguments of Pendulum-v1, got gravity=5.0"),
        ("Pendulum-v1", {"render_mode": "human"}, "expected render_mode as an option of make_env"),
        ("reach-v3", {"g": 5.0}, "expected with a Gymnasium id only, got {'g': 5.0} for reach-v3"),
    ):
        with pytest.raises(ValueError, match=f"^env_kwargs: {message}"):
            aime_gym.make_env(name, env_kwargs=kwargs)


class Plain(gym.Env):
    """An environment that has no ``render_mode``."""

    observation_space = action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}


def test_a_plain_environment_of_ones_own():
    gym.register("Plain-v0", Plain, max_episode_steps=3)
    assert aime_gym.make_env("Plain-v0").reset()[0].shape == (1,)


@pytest.mark.parametrize(
    ("version", "message"),
    [((3, 12), "pip install 'dm_control"), ((3, 13), "Use Python 3.11 or 3.12, or a task of Meta-World or Gymnasium")],
)
def test_a_task_of_dm_control_without_it(version, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control", None)
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(ModuleNotFoundError, match=f"^This task needs dm_control.*{message}"):
        aime_gym.make_env("walker-run")
