import numpy as np
import pytest
from gymnasium import spaces
from wrapper_fakes import Counter, Robot

from aime_gym.wrappers import SelectSensors


def test_sensors_become_float32_vectors_in_the_given_order():
    env = SelectSensors(Robot(), {"velocity": None, "height": None, "arm": None, "nothing": None})
    observation, _ = env.reset()
    assert list(env.observation_space.spaces) == list(observation) == ["velocity", "height", "arm"]
    assert {name: value.shape for name, value in observation.items()} == {"velocity": (2,), "height": (1,), "arm": (6,)}
    assert observation in env.observation_space
    np.testing.assert_array_equal(env.observation_space["height"].high, np.float32([2.0]))


def test_leading_entries_only():
    env = SelectSensors(Robot(), {"arm": 4})
    observation, _ = env.reset()
    np.testing.assert_array_equal(observation["arm"], np.float32([0, 1, 2, 3]))
    assert observation in env.observation_space


def test_observations_are_copies():
    env = SelectSensors(Robot(), {"velocity": None})
    before, _ = env.reset()
    env.step(0)
    np.testing.assert_array_equal(before["velocity"], np.float32([0, 1]))


@pytest.mark.parametrize("sensors", [{"speed": None}, {"nothing": None}, {}])
def test_wrong_choice(sensors):
    with pytest.raises(ValueError, match="sensors: expected"):
        SelectSensors(Robot(), sensors)


def test_needs_sensors():
    assert isinstance(Counter().observation_space, spaces.Box)
    with pytest.raises(ValueError, match="Dict observations"):
        SelectSensors(Counter(), {"velocity": None})
