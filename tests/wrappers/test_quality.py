import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from wrapper_fakes import Counter

import aime_gym
from aime_gym.wrappers import rendering_of
from aime_gym.wrappers.quality import holds_images, mujoco_model

TASKS = ["walker-walk", "reach-v3", "HalfCheetah-v5"]


def frames(name, steps=2, **options):
    with aime_gym.make_env(name, modality="pixels", image_size=32, **options) as env:
        yield env.reset(seed=0)[0]
        for _ in range(steps):
            yield env.step(np.full(env.action_space.shape, 0.5, env.action_space.dtype))[0]


@pytest.mark.parametrize("name", TASKS)
def test_fast_frames_are_others_of_the_same_scene(name):
    default, fast = (list(frames(name, quality=quality)) for quality in ("default", "fast"))
    assert not np.array_equal(default, fast)
    assert np.abs(np.subtract(default, fast, dtype=float)).mean() < 30
    np.testing.assert_array_equal(fast, list(frames(name, quality="fast")))


@pytest.mark.parametrize("name", TASKS)
def test_fast_leaves_the_simulation_alone(name):
    with (
        aime_gym.make_env(name) as default,
        aime_gym.make_env(name, render_mode="rgb_array", quality="fast", image_size=32) as fast,
    ):
        fast.reset(seed=1)
        fast.render()
        np.testing.assert_array_equal(default.reset(seed=0)[0], fast.reset(seed=0)[0])
        for _ in range(3):
            action = np.full(default.action_space.shape, 0.5, default.action_space.dtype)
            left, right = default.step(action), fast.step(action)
            np.testing.assert_array_equal(left[0], right[0])
            assert left[1] == right[1]
            fast.render()


def test_the_same_as_switched_off_in_the_scene():
    """Compare the settings of the model with MuJoCo's own flags of a scene."""
    import mujoco

    flags = mujoco.mjtRndFlag
    off = {flags.mjRND_SHADOW: False, flags.mjRND_REFLECTION: False}
    with aime_gym.make_env("walker-walk", render_mode="rgb_array", quality="fast", image_size=32) as env:
        env.reset(seed=0)
        frame, physics = env.render(), env.unwrapped.physics
        reflectances = mujoco_model(aime_gym.make_env("walker-walk")).mat_reflectance
        assert reflectances.any()
        physics.model.mat_reflectance[:] = reflectances
        by_flags = physics.render(height=32, width=32, camera_id=0, render_flag_overrides=off)
        np.testing.assert_array_equal(frame, by_flags)


@pytest.mark.parametrize("quality", ["default", "fast"])
def test_the_camera_that_stays_draws_what_dm_control_draws(quality):
    with aime_gym.make_env("walker-walk", render_mode="rgb_array", quality=quality, image_size=32) as env:
        for seed in range(2):
            env.reset(seed=seed)
            kept = [env.render()]
            for _ in range(2):
                env.step(np.ones(6))
                kept.append(env.render())
                theirs = env.unwrapped.physics.render(height=32, width=32, camera_id=0)
                np.testing.assert_array_equal(kept[-1], theirs)
            assert not np.array_equal(kept[0], kept[-1])  # a frame is not the buffer of the next one


def test_the_option_is_in_the_specification():
    with aime_gym.make_env("walker-walk", modality="pixels", quality="fast") as env:
        assert env.spec.kwargs["quality"] == "fast"
        with gym.make(env.spec) as again:
            assert rendering_of(again) == "fast"
    with aime_gym.make_env("walker-walk", render_mode="rgb_array") as env:
        assert "quality" not in env.spec.kwargs


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("CartPole-v1", {"render_mode": "rgb_array"}, "expected 'default' for CartPole-v1, which does not .*MuJoCo"),
        ("walker-walk", {}, "expected with modality='pixels' or a render_mode only, got modality='state'"),
        ("walker-walk", {"modality": "pixels", "quality": "fats"}, "expected one of .*'fats'.*names are 'fast'"),
    ],
)
def test_wrong_quality(name, options, message):
    with pytest.raises(ValueError, match=f"^quality: {message}"):
        aime_gym.make_env(name, **{"quality": "fast", **options})


def test_rendering_of():
    for options, expected in (
        ({"modality": "pixels"}, "default"),
        ({"modality": "pixels", "quality": "fast"}, "fast"),
        ({"render_mode": "rgb_array", "quality": "fast"}, None),
        ({}, None),
    ):
        with aime_gym.make_env("HalfCheetah-v5", **options) as env:
            assert rendering_of(env) == expected
    with aime_gym.make_env("HalfCheetah-v5", render_mode="rgb_array", quality="fast") as env:
        env.reset()
        assert rendering_of(gym.wrappers.AddRenderObservation(env)) == "fast"  # images by the user's own wrapper
    assert rendering_of(Counter()) is None


def test_attributes_of_others_are_no_quality():
    env = Counter()
    env.observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    assert rendering_of(env) is None
    env.rendering = True
    assert rendering_of(env) is None


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Box(0, 255, (8, 8, 3), np.uint8), True),
        (spaces.Box(0, 255, (4, 8, 8, 3), np.uint8), True),
        (spaces.Box(0, 255, (8,), np.uint8), False),
        (spaces.Box(0, 1, (8, 8, 3), np.float32), False),
        (spaces.Dict({"a": spaces.Box(0, 1, (2,)), "image": spaces.Box(0, 255, (8, 8, 3), np.uint8)}), True),
        (spaces.Dict({"a": spaces.Box(0, 1, (2,))}), False),
    ],
)
def test_images(space, expected):
    assert holds_images(space) == expected
