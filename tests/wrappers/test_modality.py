import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import RepeatAction
from wrapper_fakes import Counter

from aime_gym.wrappers.custom_tasks import CUSTOM_TASKS
from aime_gym.wrappers.modality import observe_pixels, observe_vector
from aime_gym.wrappers.tables import DM_CONTROL_POSITIONS, DM_CONTROL_TASKS, METAWORLD_TASKS, MUJOCO_POSITIONS

ACTION = np.zeros(1, dtype=np.float32)


def test_repeat_sums_the_rewards_and_stops_at_the_end():
    env = RepeatAction(Counter(end_at=5), 3)
    env.reset()
    assert env.step(ACTION)[1:4] == (1 + 2 + 3, False, False)
    assert env.step(ACTION)[1:4] == (4 + 5, True, False)


def test_frames_are_rendered_once_per_decision():
    env = observe_pixels(RepeatAction(Counter(), 3), 8)
    env.reset()
    env.unwrapped.frames = 0
    frame = env.step(ACTION)[0]
    assert env.unwrapped.frames == 1
    np.testing.assert_array_equal(frame, np.full((8, 8, 3), 3, dtype=np.uint8))


def test_frames_of_another_size_need_no_further_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    env = observe_pixels(Counter(), 4)
    frame, _ = env.reset()
    assert env.observation_space.shape == frame.shape == (4, 4, 3)
    assert frame.dtype == np.uint8


def test_entries_of_a_vector():
    env = observe_vector(Counter(), [1])
    observation, _ = env.reset()
    assert observation.shape == (1,)
    assert observation.dtype == env.observation_space.dtype == np.float32


@pytest.mark.parametrize("indices", [[2], [-1], [], [[0]], [0.5]])
def test_wrong_entries(indices):
    with pytest.raises(ValueError, match=r"position_indices: expected entries of 0\.\.1"):
        observe_vector(Counter(), indices)


def test_discrete_observations_become_a_vector():
    env = observe_vector(gym.make("FrozenLake-v1"))
    observation, _ = env.reset(seed=0)
    assert observation.dtype == np.float32
    np.testing.assert_array_equal(observation, np.eye(16)[0])


def test_images_stay_images():
    image = spaces.Box(0, 255, (8, 8, 3), dtype=np.uint8)
    env = gym.wrappers.TransformObservation(Counter(), lambda _: np.zeros((8, 8, 3), np.uint8), image)
    assert observe_vector(env) is env


def test_task_tables_are_those_of_the_simulators():
    from dm_control import suite
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    ours = {(domain, task) for domain, tasks in DM_CONTROL_TASKS.items() for task in tasks}
    custom = {(domain, task) for domain, tasks in CUSTOM_TASKS.items() for task in tasks}
    assert ours - custom == set(suite.ALL_TASKS)
    assert custom < ours
    assert set(METAWORLD_TASKS) == set(ALL_V3_ENVIRONMENTS)
    assert len(set(METAWORLD_TASKS)) == len(METAWORLD_TASKS) == 50
    assert DM_CONTROL_POSITIONS.keys() == DM_CONTROL_TASKS.keys()


def test_every_mujoco_task_of_gymnasium_has_its_positions():
    v5 = {name for name, spec in gym.registry.items() if "mujoco" in str(spec.entry_point) and name.endswith("-v5")}
    assert v5 == set(MUJOCO_POSITIONS)


@pytest.mark.parametrize("name", list(MUJOCO_POSITIONS))
def test_mujoco_positions_do_not_depend_on_velocities(name):
    env = gym.make(name).unwrapped
    env.reset(seed=0)
    positions = list(MUJOCO_POSITIONS[name])
    qpos, qvel = env.data.qpos.copy(), env.data.qvel.copy()
    observations = []
    for velocity in (qvel, qvel + 0.5):
        env.set_state(qpos, velocity)
        observations.append(env._get_obs())
    np.testing.assert_array_equal(*(observation[positions] for observation in observations))
    rest = np.delete(np.arange(len(observations[0])), positions)
    assert np.any(observations[0][rest] != observations[1][rest])
    # And all that moves with the joints alone, of those entries that move at all, is there.
    env.set_state(qpos + 0.01, qvel)
    assert np.any(env._get_obs()[positions] != observations[0][positions])
