"""An expert that sees velocities is recorded as an observer without them sees it."""

import numpy as np
import pytest
from stable_baselines3 import SAC

from aime_gym.experiments.experts import prepare_expert, record_demonstrations
from aime_gym.tasks import TaskConfig

POSITION = TaskConfig("Pendulum-v1", "position", positions=(0, 1))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("expert") / "model.zip"
    SAC("MlpPolicy", POSITION.with_state().make(), policy_kwargs={"net_arch": [8]}, seed=0).save(path)
    return path


def test_the_modality_changes_what_is_seen_and_nothing_else(model_file):
    expert = prepare_expert(f"sac:{model_file}", POSITION, seed=0)
    assert expert.task == POSITION.with_state()
    seen = record_demonstrations(expert, POSITION, 2, seed=4, progress=False)
    full = record_demonstrations(expert, expert.task, 2, seed=4, progress=False)
    for part, whole in zip(seen, full, strict=True):
        np.testing.assert_array_equal(part.observations, whole.observations[:, :2])
        np.testing.assert_array_equal(part.actions, whole.actions)
        np.testing.assert_array_equal(part.rewards, whole.rewards)
        assert part.truncated


def test_processes_take_the_same_actions_again(model_file, in_processes):
    expert = prepare_expert(f"sac:{model_file}", POSITION, seed=0)
    one, two = (record_demonstrations(expert, POSITION, 3, seed=4, progress=False, workers=n) for n in (1, 2))
    for left, right in zip(one, two, strict=True):
        np.testing.assert_array_equal(left.observations, right.observations)
        np.testing.assert_array_equal(left.actions, right.actions)


def test_an_environment_that_does_not_follow_its_seed_is_found(model_file, monkeypatch):
    expert = prepare_expert(f"sac:{model_file}", POSITION, seed=0)
    make = TaskConfig.make

    def moody(task, **options):
        env = make(task, **options)
        if task == POSITION:
            reset = env.reset
            env.reset = lambda *, seed=None, options=None: reset(seed=99)
        return env

    monkeypatch.setattr(TaskConfig, "make", moody)
    with pytest.raises(RuntimeError, match="does not repeat"):
        record_demonstrations(expert, POSITION, 1, seed=4, progress=False)


def test_an_expert_is_trained_for_its_steps():
    expert = prepare_expert("ppo:1", TaskConfig("CartPole-v1", "state"), seed=0)
    assert expert.model.num_timesteps == 0
    assert expert.train(progress=False) > 0
    assert expert.model.num_timesteps == 2048  # ppo's rollout is its smallest step
    assert prepare_expert(None, TaskConfig("reach-v3"), seed=0).train() is None


def test_dreamer_is_an_expert_that_remembers(tmp_path):
    expert = prepare_expert("dreamer:1", POSITION, seed=0)
    assert expert.train(progress=False) > 0
    assert expert.model.num_timesteps == 200  # its whole episodes
    expert.model.save(tmp_path / "dreamer.zip")
    again = prepare_expert(f"dreamer:{tmp_path / 'dreamer.zip'}", POSITION, seed=1)
    (one,), (other,) = (record_demonstrations(who, POSITION, 1, seed=4, progress=False) for who in (expert, again))
    np.testing.assert_array_equal(one.actions, other.actions)
    assert one.observations.shape == (201, 2)


@pytest.mark.parametrize(
    ("task", "name", "message"),
    [
        ("Pendulum-v1", None, "expert: there is no script for Pendulum-v1; expected 'scripted'.*'sac:20000'"),
        ("Pendulum-v1", "scripted", "expert: there is no script"),
        ("Pendulum-v1", "dqn:5", "expert: expected .* got 'dqn:5'"),
        ("Pendulum-v1", "sac", "expert: expected .* got 'sac'"),
        ("Pendulum-v1", "sac:0", "expert: expected at least 1 step"),
        ("CartPole-v1", "sac:100", "expert: sac does not fit CartPole-v1"),
    ],
)
def test_what_is_no_expert_is_named(task, name, message):
    with pytest.raises(ValueError, match=message):
        prepare_expert(name, TaskConfig(task, "state"), seed=0)


def test_a_model_that_is_missing_broken_or_of_another_task(tmp_path, model_file):
    with pytest.raises(FileNotFoundError, match=r"expert: .*none\.zip"):
        prepare_expert(f"sac:{tmp_path / 'none.zip'}", POSITION, seed=0)
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"expert: expected a sac model.*broken\.zip"):
        prepare_expert(f"sac:{broken}", POSITION, seed=0)
    with pytest.raises(ValueError, match="expert: expected a sac model"):
        prepare_expert(f"sac:{model_file}", TaskConfig("MountainCarContinuous-v0", "state"), seed=0)
