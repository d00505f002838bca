import numpy as np
import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from aime_gym.wrappers import SeededMetaWorld
from aime_gym.wrappers.tables import METAWORLD_POSITIONS, METAWORLD_TASKS


def make(name):
    return SeededMetaWorld(ALL_V3_ENVIRONMENTS[name]())


def rollout(env, seed, steps=5):
    """Return the observations of an episode of fixed actions."""
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, 4)).astype(np.float32)
    return np.stack([env.reset(seed=seed)[0], *(env.step(action)[0] for action in actions)])


def check_seeding(name):
    first, second = make(name), make(name)
    np.random.seed(1)  # noqa: NPY002 - what the simulator would read
    one = rollout(first, seed=3)
    next_one = first.reset()[0]
    np.random.seed(2)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    second.reset(seed=8)
    second.step(np.ones(4, dtype=np.float32))
    np.testing.assert_array_equal(one, rollout(second, seed=3))
    np.testing.assert_array_equal(next_one, second.reset()[0])
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    assert not np.array_equal(one[0], rollout(first, seed=4)[0])
    assert not np.array_equal(one[0], next_one)


def check_first_frame(name):
    """Check that observations lie in the space, with the simulator's goal, and that the first two frames agree."""
    env = make(name)
    for seed in range(3):
        first, _ = env.reset(seed=seed)
        second = env.step(np.zeros(4, dtype=np.float32))[0]
        for observation in (first, second):
            assert observation in env.observation_space
            np.testing.assert_allclose(observation[-3:], env.unwrapped._target_pos, atol=1e-9)
        assert np.any(first[-3:] != 0)
        np.testing.assert_array_equal(first[:18], first[18:36])
        np.testing.assert_array_equal(first[:18], second[18:36])
        np.testing.assert_allclose(first[4:7], second[4:7], atol=0.02)


@pytest.mark.parametrize("name", ["reach-v3", "window-open-v3", "peg-insert-side-v3"])
def test_a_seed_decides_the_episode(name):
    check_seeding(name)


@pytest.mark.parametrize("name", ["reach-v3", "window-open-v3", "window-close-v3", "lever-pull-v3"])
def test_first_frame(name):
    check_first_frame(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", METAWORLD_TASKS)
def test_every_task(name):
    check_seeding(name)
    check_first_frame(name)


def test_positions_do_not_show_the_previous_frame():
    env = make("reach-v3")
    env.reset(seed=0)
    env.step(np.ones(4, dtype=np.float32))
    simulator = env.unwrapped
    observations = []
    for previous in (np.zeros(18), np.ones(18)):
        simulator._prev_obs = previous
        observations.append(simulator._get_obs())
    assert not np.array_equal(*observations)
    np.testing.assert_array_equal(*(observation[list(METAWORLD_POSITIONS)] for observation in observations))


def test_papers_camera():
    """Check that corner4 is the moved corner2."""
    model = make("reach-v3").unwrapped.model
    moved, ours = model.camera("corner2"), model.camera("corner4")
    np.testing.assert_allclose(ours.pos, [0.75, 0.075, 0.7])
    np.testing.assert_array_equal(moved.quat, ours.quat)
    np.testing.assert_array_equal(moved.fovy, ours.fovy)
