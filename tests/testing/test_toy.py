"""Toy task: returns of chance and expert, variants, and images."""

import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env

from aime_gym.testing import toy

TASKS = [toy.PointMass, toy.ColumnPointMass, toy.DiscretePointMass, toy.DoublePointMass, toy.SensorsPointMass]
TASKS += [toy.PixelPointMass, toy.MixedPointMass, toy.DiscretePixelPointMass]


@pytest.mark.parametrize("make", [*TASKS, lambda: toy.DiscretePointMass(start=3)])
@pytest.mark.filterwarnings("ignore::UserWarning")  # unbounded observations: advice
def test_checked_by_sb3(make):
    check_env(make(), skip_render_check=True)


@pytest.mark.parametrize("make", TASKS)
def test_the_expert_is_far_better_than_chance(make):
    env = make()
    assert toy.mean_return(env, toy.expert(env)) > 0.5 * toy.mean_return(env, "random")
    assert toy.mean_return(env, toy.expert(env)) > -15


def test_all_variants_are_one_task():
    """Check that equal seeds give equal pushes and positions in all variants."""
    plain, column = toy.PointMass(), toy.ColumnPointMass()
    left, right = toy.demonstrations(plain, 2), toy.demonstrations(column, 2)
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(one.observations, other.observations, atol=1e-5)
        np.testing.assert_allclose(one.actions, 2 * other.actions[..., 0], atol=1e-5)


def test_data_is_recorded_once():
    assert toy.task() is toy.task(toy.PointMass)
    assert toy.task() is not toy.task(play=2)
    env, play, demos = toy.task()
    assert len(play) == 12
    assert len(demos) == 6
    assert all(len(trajectory) == toy.STEPS for trajectory in play)
    assert env.unwrapped is env


def test_the_image_shows_where_the_point_is():
    env = toy.PixelPointMass()
    env.reset(seed=0)
    centres = []
    for position in ([0.0, 0.0], [1.5, 0.0], [0.0, -1.5], [-0.75, 9.0]):
        env.position = np.array(position)
        image = env.observe()
        assert env.observation_space.contains(image)
        light = image[..., 0].astype(float)
        centres.append([(light.sum(axis) * np.arange(16)).sum() / light.sum() for axis in (0, 1)])
    centre, right, above, corner = centres
    np.testing.assert_allclose(centre, 7.5, atol=0.1)
    assert right[0] > 14
    assert above[1] < 1
    assert corner[0] == pytest.approx(3.75, abs=0.2)
    assert corner[1] > 14
