import numpy as np
import pytest

import aime_gym
from aime_gym.wrappers.custom_tasks import CUSTOM_TASKS

TASKS = [f"{domain}-{task}" for domain, tasks in CUSTOM_TASKS.items() for task in tasks]
# A task of the suite with the same body, but for walker not the one that the tasks are made of.
BODIES = {"cheetah": "cheetah-run", "walker": "walker-walk"}


def reward_of(physics, task, stand=1.0):
    domain, _, name = task.partition("-")
    return CUSTOM_TASKS[domain][name].reward(physics, stand)


def physics_at(domain, velocities):
    """Return the body as its model draws it, upright and straight, with velocities of its root."""
    physics = aime_gym.make_env(BODIES[domain]).unwrapped.physics
    physics.reset()
    for joint, velocity in velocities.items():
        physics.named.data.qvel[joint] = velocity
    physics.forward()
    return physics


def angular_momentum(physics, rate):
    """Return the momentum of the whole body that turns as one about the y axis, from the inertia of its parts."""
    mass = physics.model.body_mass[1:]
    offset = physics.data.xipos[1:] - np.average(physics.data.xipos[1:], axis=0, weights=mass)
    rotation = physics.data.ximat[1:].reshape(-1, 3, 3)
    own = np.einsum("bi,bi->b", rotation[:, 1] ** 2, physics.model.body_inertia[1:])
    return rate * (own + mass * (offset[:, 0] ** 2 + offset[:, 2] ** 2)).sum()


@pytest.mark.parametrize(
    ("task", "velocities", "reward"),
    [
        ("cheetah-runbackward", {"rootx": -4.0}, 0.4),
        ("cheetah-runbackward", {"rootx": -40.0}, 1.0),
        ("cheetah-runbackward", {"rootx": 4.0}, 0.0),
        ("cheetah-runbackward", {"rootz": -4.0}, 0.0),
        ("walker-walkbackward", {"rootx": -0.5}, (5 * 0.5 + 1) / 6),
        ("walker-walkbackward", {"rootx": -3.0}, 1.0),
        ("walker-walkbackward", {"rootx": 3.0}, 1 / 6),
        ("walker-walkbackward", {"rootz": -3.0}, 1 / 6),
        ("walker-runbackward", {"rootx": -4.0}, (5 * 0.5 + 1) / 6),
        ("walker-runbackward", {"rootx": -8.0}, 1.0),
        ("walker-jump", {"rootz": 0.5}, 0.25),
        ("walker-jump", {"rootz": 3.0}, 1.0),
        ("walker-jump", {"rootz": -3.0}, 0.0),
        ("walker-jump", {"rootx": 3.0}, 0.0),
    ],
)
def test_speed_of_the_whole_body_is_rewarded(task, velocities, reward):
    domain = task.partition("-")[0]
    assert reward_of(physics_at(domain, velocities), task) == pytest.approx(reward)


@pytest.mark.parametrize("domain", BODIES)
@pytest.mark.parametrize("rate", [0.5, -0.5])
def test_angular_momentum_is_rewarded(domain, rate):
    physics = physics_at(domain, {"rooty": rate, "rootx": 3.0, "rootz": 2.0})
    momentum = angular_momentum(physics, rate)
    assert 0 < abs(momentum) < 5
    for task, sign in (("flip", 1), ("flipbackward", -1)):
        assert reward_of(physics, f"{domain}-{task}") == pytest.approx(max(0.0, sign * momentum / 5))


def test_flipping_forwards_lowers_the_front():
    physics = physics_at("cheetah", {"rooty": 1.0, "rootz": 0.0})
    assert reward_of(physics, "cheetah-flip") > 0
    before = physics.named.data.geom_xpos["head", "z"]
    physics.step(5)
    assert physics.named.data.geom_xpos["head", "z"] < before - 0.02


@pytest.mark.parametrize(("task", "joint", "velocity"), [("walkbackward", "rootx", -1.0), ("jump", "rootz", 2.0)])
def test_the_walker_has_to_stand_as_well(task, joint, velocity):
    env = aime_gym.make_env("walker-stand")
    physics = physics_at("walker", {joint: velocity})
    stand = [env.unwrapped.task.get_reward(physics)]
    physics.named.data.qpos["rooty"] = np.pi / 2
    physics.named.data.qpos["rootz"] = -1.0
    physics.forward()
    stand.append(env.unwrapped.task.get_reward(physics))
    assert stand[1] < 0.3 < stand[0] == 1
    assert [reward_of(physics, f"walker-{task}", value) for value in stand] == pytest.approx(stand)


@pytest.mark.parametrize("task", TASKS)
def test_only_the_reward_differs(task):
    """Compare an episode of the same seed and actions with one of the suite's own task."""
    domain = task.partition("-")[0]
    custom = aime_gym.make_env(task, action_repeat=1, max_episode_steps=60)
    original = aime_gym.make_env(BODIES[domain], action_repeat=1, max_episode_steps=60)
    standing = aime_gym.make_env("walker-stand").unwrapped.task if domain == "walker" else None
    assert custom.observation_space == original.observation_space
    assert custom.action_space == original.action_space
    assert custom.metadata == original.metadata
    np.testing.assert_array_equal(custom.reset(seed=5)[0], original.reset(seed=5)[0])
    generator = np.random.default_rng(0)
    rewards = []
    truncated = False
    while not truncated:
        action = generator.uniform(-1, 1, custom.action_space.shape).astype(np.float32)
        observation, reward, terminated, truncated, _ = custom.step(action)
        expected, _, *ends, _ = original.step(action)
        np.testing.assert_array_equal(observation, expected)
        assert [terminated, truncated] == ends
        physics = original.unwrapped.physics
        stand = 0.0 if standing is None else standing.get_reward(physics)
        assert reward == reward_of(physics, task, stand)
        rewards.append(reward)
    assert len(rewards) == 60
    assert 0 <= min(rewards) < max(rewards) <= 1
