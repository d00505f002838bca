"""Every policy meets the same episodes, and what they gave is counted."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from aime_gym.data import HeldRandomPolicy, ScriptedExpert
from aime_gym.experiments.evaluation import EpisodeSeeds, evaluate, evaluation_envs
from aime_gym.tasks import TaskConfig


class Guess(gym.Env):
    """The goal is drawn at the start. Each step draws too, and a positive action ends the episode at once."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, says_success=True):
        self.says_success = says_success
        self.goals = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal, self.steps = self.np_random.uniform(-1, 1), 0
        self.goals.append(self.goal)
        return np.array([self.goal], np.float32), {}

    def step(self, action):
        self.np_random.uniform()
        self.steps += 1
        done = bool(action[0] > 0) or self.steps == 4
        info = {"is_success": bool(action[0] > 0 and self.goal > 0)} if self.says_success else {}
        return np.array([self.goal], np.float32), self.goal, done, False, info


def always(value):
    return lambda observation: np.array([value], np.float32)


def test_success_return_and_length_are_those_of_the_episodes():
    env = Guess()
    score = evaluate(always(1.0), env, 20, seed=3)
    goals = env.goals[:20]
    assert score.returns == pytest.approx(goals, abs=1e-5)
    assert score.lengths == (1,) * 20
    assert score.successes == tuple(goal > 0 for goal in goals)
    assert score.success_rate == np.mean([goal > 0 for goal in goals])
    assert (score.mean, score.std) == pytest.approx((np.mean(goals), np.std(goals)), abs=1e-5)


def test_every_policy_meets_the_same_goals():
    quick, slow = Guess(), Guess()
    evaluate(always(1.0), quick, 10, seed=3)
    evaluate(always(-1.0), slow, 10, seed=3)
    assert quick.goals[:10] == slow.goals[:10]
    assert len(set(quick.goals)) == len(quick.goals)


def test_another_seed_gives_other_goals():
    one, two = Guess(), Guess()
    evaluate(always(1.0), one, 5, seed=3)
    evaluate(always(1.0), two, 5, seed=300)
    assert not set(one.goals) & set(two.goals)


def test_a_task_that_knows_no_success_reports_none():
    score = evaluate(always(1.0), Guess(says_success=False), 3, seed=0)
    assert score.successes is None
    assert score.success_rate is None


class Always:
    """Model with ``predict``: the same action in each row, which counts its calls."""

    def __init__(self, value):
        self.value, self.rows = value, []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.rows.append(len(observation))
        return np.full((len(observation), 1), self.value, np.float32), None


@pytest.mark.parametrize("value", [1.0, -1.0])
def test_copies_run_the_episodes_of_one(value):
    one, copies = Always(value), Always(value)
    scores = evaluate(one, Guess(), 7, seed=3), evaluate(copies, [Guess() for _ in range(3)], 7, seed=3)
    assert replace(scores[0], seconds=None) == replace(scores[1], seconds=None)
    assert set(copies.rows) == {3}
    assert len(copies.rows) * 2 < len(one.rows)


def test_there_are_no_more_copies_than_episodes():
    model = Always(1.0)
    with evaluation_envs(TaskConfig("Pendulum-v1", "state", max_episode_steps=3), 2) as envs:
        assert len(evaluate(model, envs, 2, seed=0).returns) == len(envs) == 2
        assert len(evaluate(model, envs, 1, seed=0).returns) == 1
    assert model.rows == [2] * 3 + [1] * 3


def test_the_seed_of_an_episode_is_its_number():
    env = EpisodeSeeds(Guess(), 5)
    for _ in range(3):
        env.reset()
    expected = Guess()
    for number in range(3):
        expected.reset(seed=5 + number)
    assert env.unwrapped.goals == expected.goals


def test_same_seed_same_score_with_a_random_policy():
    task = TaskConfig("Pendulum-v1", "state")
    scores = []
    for _ in range(2):
        with task.make() as env:
            scores.append(evaluate(HeldRandomPolicy(env.action_space, seed=1), env, 2, seed=7))
    assert scores[0].returns == scores[1].returns


def test_the_scripted_expert_succeeds():
    with TaskConfig("reach-v3").make() as env:
        score = evaluate(ScriptedExpert(env), env, 2, seed=0)
    assert score.success_rate == 1.0
    assert score.lengths == (100, 100)
