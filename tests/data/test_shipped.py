"""The demonstrations that come with the package are what is said of them, and replay."""

import json

import gymnasium as gym
import numpy as np
import pytest

from aime_gym.data import collect, load_trajectories
from aime_gym.data.shipped import FOLDER, list_shipped, load_shipped, save_shipped
from aime_gym.envs import make_env
from aime_gym.experiments.data import load_for_task
from aime_gym.serialization import file_digest
from aime_gym.tasks import TaskConfig

NAMES = ["classic/Acrobot-v1", "classic/CartPole-v1", "classic/MountainCar-v0"]
ARM = "metaworld/reach-v3"
every_name = pytest.mark.parametrize("name", NAMES)


def about(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def test_all_are_there_and_small():
    assert list_shipped() == [*NAMES, ARM]
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 1e6


@every_name
def test_they_are_what_is_said_of_them(name):
    stated = about(name)
    demos = load_trajectories(name)
    assert file_digest(FOLDER / f"{name}.npz") == stated["digest"]
    assert [demo.episode_return for demo in demos] == stated["returns"]
    assert len(demos) == 20
    assert {"made_by", "expert", "steps", "settings", "seed", "packages"} <= stated.keys()
    expected = {"CartPole-v1": 495, "Acrobot-v1": -90, "MountainCar-v0": -115}[stated["task"]]
    assert np.mean(stated["returns"]) >= expected


@every_name
def test_they_replay_to_the_last_bit(name):
    stated = about(name)
    demos = load_trajectories(name)
    with gym.make(stated["task"]) as env:
        for index, demo in enumerate(demos):
            observation, _ = env.reset(seed=stated["seed_of_recording"] if index == 0 else None)
            np.testing.assert_array_equal(observation, demo.observations[0])
            for step, action in enumerate(demo.actions):
                observation, reward, terminated, truncated, _ = env.step(action)
                assert reward == demo.rewards[step]
                np.testing.assert_array_equal(observation, demo.observations[step + 1])
            assert (terminated, truncated) == (demo.terminated, demo.truncated)


def test_those_of_the_arm_are_an_expert_s_and_replay():
    stated = about(ARM)
    demos = load_trajectories(ARM)
    assert file_digest(FOLDER / f"{ARM}.npz") == stated["digest"]
    assert [demo.episode_return for demo in demos] == stated["returns"]
    assert len(demos) == 20
    assert np.mean(stated["returns"]) > 1800
    with make_env(stated["task"], modality=stated["modality"]) as env:
        again = collect(env, "expert", 2, seed=stated["seed_of_recording"], progress=False)
    for demo, other in zip(demos, again, strict=False):
        np.testing.assert_array_equal(demo.observations, other.observations)
        np.testing.assert_array_equal(demo.actions, other.actions)


@every_name
def test_observations_alone(name):
    demos = load_for_task(TaskConfig(name.split("/")[1], "state"), name, argument="demos", actions=False, limit=3)
    assert len(demos) == 3
    assert all(demo.actions is None for demo in demos)


def test_a_folder_of_the_user_s_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classic" / "CartPole-v1").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="expected a Minari or LeRobot dataset or"):
        load_trajectories("classic/CartPole-v1")


def test_unknown_names_are_told_the_known_ones():
    with pytest.raises(FileNotFoundError, match=r"nothing is stored at classic/CartPole-v9.*classic/CartPole-v1"):
        load_trajectories("classic/CartPole-v9")


def test_what_is_saved_is_loaded(tmp_path, monkeypatch):
    demos = load_shipped(NAMES[2], actions=True)[:3]
    path = save_shipped(tmp_path / "mine", "car", demos, {"task": "car"})
    assert json.loads(path.with_suffix(".json").read_text()) == {"task": "car", "digest": file_digest(path)}
    monkeypatch.setattr("aime_gym.data.shipped.FOLDER", tmp_path)
    for one, other in zip(demos, load_shipped("mine/car", actions=True), strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.rewards, other.rewards)
        assert (one.terminated, one.truncated) == (other.terminated, other.truncated)
    assert load_shipped("mine/car", actions=False)[0].actions is None
