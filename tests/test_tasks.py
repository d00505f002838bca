"""The task that an environment, and an agent's file, is known to have."""

import io

import gymnasium as gym
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor

import aime_gym
from aime_gym.agents import BCAgent
from aime_gym.agents.registry import load_agent
from aime_gym.serialization import read_archive, write_archive
from aime_gym.tasks import KnownTask, TaskConfig, chosen_task, known_task, read_known_task
from aime_gym.testing import toy

KNOWN = {
    "a task of sensors": (
        lambda: Monitor(aime_gym.make_env("walker-run", modality="position")),
        KnownTask(TaskConfig("walker-run", "position", 2), ("orientations", "height")),
    ),
    "a registered task": (
        lambda: gym.make("aime_gym/reach-v3-position-v0"),
        KnownTask(TaskConfig("reach-v3", "position", 2), ()),
    ),
    "positions": (
        lambda: aime_gym.make_env("CartPole-v1", modality="position", position_indices=[0, 2]),
        KnownTask(TaskConfig("CartPole-v1", "position", 1, positions=(0, 2)), ()),
    ),
    "arguments": (
        lambda: aime_gym.make_env("Pendulum-v1", env_kwargs={"g": 5.0}),
        KnownTask(TaskConfig("Pendulum-v1", "state", 1, env_kwargs={"g": 5.0}), ()),
    ),
    "gymnasium's": (
        lambda: gym.make("Pendulum-v1", g=5.0, max_episode_steps=7, render_mode="rgb_array"),
        KnownTask(TaskConfig("Pendulum-v1", "state", 1, 7, env_kwargs={"g": 5.0}), ()),
    ),
    "a time limit": (
        lambda: gym.wrappers.TimeLimit(aime_gym.make_env("reach-v3"), 10),
        KnownTask(TaskConfig("reach-v3", "state", 2, 20), ()),
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_task_is_made_again(name):
    make, expected = KNOWN[name]
    env = make()
    assert known_task(env) == expected
    assert read_known_task(expected.as_json()) == expected
    with expected.config.make() as again:
        assert known_task(again) == expected
        assert again.observation_space == env.observation_space


@pytest.mark.parametrize(
    "make",
    [
        toy.PointMass,
        lambda: gym.make("Hopper-v5"),  # make_env shows float32
        lambda: gym.wrappers.TransformReward(gym.make("CartPole-v1"), lambda reward: -reward),
        lambda: aime_gym.make_env("walker-run", flatten=False),
        lambda: aime_gym.make_env("FrozenLake-v1", env_kwargs={"map_name": "4x4"}),  # no file may hold a text
    ],
)
def test_what_cannot_be_made_again_is_unknown(make):
    assert known_task(make()) is None


def test_an_agent_s_file_knows_its_task(tmp_path):
    task = TaskConfig("walker-walk", "position")
    agent = BCAgent(make_vec_env(task.make, n_envs=2), seed=0)
    assert agent.known_task == KnownTask(task.resolved(), ("orientations", "height"))
    agent.save(tmp_path / "agent")
    loaded = load_agent(tmp_path / "agent")
    assert loaded.known_task == agent.known_task
    loaded.set_env(TaskConfig("walker-run", "position", 2, 50).make())  # another reward
    assert loaded.known_task.config.env_id == "walker-run"
    with pytest.raises(ValueError, match="^env: expected action_repeat=2, as the agent was made with, got action_repe"):
        load_agent(tmp_path / "agent", env=TaskConfig("walker-walk", "position", 1).make())


def test_another_order_of_sensors_is_another_view():
    task = KnownTask(TaskConfig("walker-run", "position", 2), ("orientations", "height"))
    with pytest.raises(ValueError, match="^env: expected the sensors orientations, height, in this order"):
        task.check_view(KnownTask(task.config, ("height", "orientations")))


def test_options_beside_a_file():
    known = KnownTask(TaskConfig("reach-v3", "position", 2), ())
    assert chosen_task(known, {}, "a.zip") == known.config
    assert chosen_task(known, {"action_repeat": 2, "max_episode_steps": 50}, "a.zip").max_episode_steps == 50
    assert chosen_task(None, {"env_id": "push-v3"}, "a.zip") == TaskConfig("push-v3")
    with pytest.raises(ValueError, match="^modality: expected 'position', which a.zip was trained with, got 'state'"):
        chosen_task(known, {"modality": "state"}, "a.zip")
    with pytest.raises(ValueError, match="^env_id: expected one, since a.zip does not know its task"):
        chosen_task(None, {"modality": "state"}, "a.zip")


@pytest.mark.parametrize(
    "change",
    [
        {"env_id": "imported:Task-v0"},
        {"env_id": 3},
        {"env_kwargs": {"xml_file": "/etc/passwd"}},
        {"env_kwargs": {"options": {"module": 1}}},
        {"env_kwargs": [1]},
        {"action_repeat": 10**6},
        {"action_repeat": True},
        {"image_size": 10**6, "modality": "pixels"},
        {"max_episode_steps": "7"},
        {"positions": "01"},
        {"positions": None},
        {"modality": ["state"]},
        {"quality": "fast"},
        {"camera": {}, "modality": "pixels"},
        {"sensors": [1]},
        {"render_mode": "human"},
    ],
)
def test_a_file_s_task_has_declared_fields_within_bounds(change):
    file = io.BytesIO()
    BCAgent("CartPole-v1", seed=0).save(file)
    document = read_archive(file)
    for task in (document["task"] | change, [], "CartPole-v1"):
        changed = io.BytesIO()
        write_archive(changed, document | {"task": task})
        with pytest.raises(ValueError, match="^path: expected an agent's file"):
            load_agent(changed)
