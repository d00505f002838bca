"""Episodes of a policy, as they happened."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym.testing import toy
from aime_gym.training.rollouts import collect_episodes


class StepCounter(gym.Env):
    """Shows which episode it is and how many steps it took; the action comes back as the reward."""

    action_space = spaces.Box(-9, 9, (1,), np.float32)

    def __init__(self, length, sensors=False):
        self.length, self.sensors, self.episode = length, sensors, 0
        box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = spaces.Dict({"count": box}) if sensors else box

    def observe(self):
        value = np.array([self.episode, self.steps], np.float32)
        return {"count": value} if self.sensors else value

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.steps = 0
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        return self.observe(), float(action[0]), self.steps == self.length, False, {}


def act(observation, state, episode_start):
    """How many steps each copy has taken in its episode, by what the state remembers."""
    taken = np.where(episode_start, 0, 0 if state is None else state)
    return taken[:, None].astype(np.float32), taken + 1


def play(env, steps=1, seed=0, on_step=lambda now: True, policy=act):
    return collect_episodes(env, policy, steps=steps, seed=seed, on_step=on_step)


def seen(trajectory):
    observations = trajectory.observations
    return (observations["count"] if isinstance(observations, dict) else observations).tolist()


@pytest.mark.parametrize("sensors", [False, True])
def test_each_copy_finishes_an_episode_and_what_others_began_is_kept(sensors):
    env = DummyVecEnv([lambda: StepCounter(2, sensors), lambda: StepCounter(5, sensors)])
    episodes = play(env)
    assert [seen(episode) for episode in episodes] == [
        [[1, 0], [1, 1], [1, 2]],  # the last observation is the episode's, not the next one's first
        [[2, 0], [2, 1], [2, 2]],
        [[1, step] for step in range(6)],
        [[3, 0], [3, 1]],  # when the other was done
    ]
    assert [(episode.terminated, episode.truncated) for episode in episodes] == [(True, False)] * 3 + [(False, True)]
    for episode in episodes:  # the state starts anew with each
        assert episode.actions[:, 0].tolist() == episode.rewards.tolist() == list(range(len(episode)))


def test_a_copy_that_begins_nothing_adds_nothing():
    episodes = play(DummyVecEnv([lambda: StepCounter(3)]))
    assert [seen(episode) for episode in episodes] == [[[1, 0], [1, 1], [1, 2], [1, 3]]]


@pytest.mark.parametrize(("steps", "lengths"), [(1, [3]), (3, [3]), (4, [3, 1]), (6, [3, 3])])
def test_it_goes_on_until_enough_steps_are_taken(steps, lengths):
    assert [len(episode) for episode in play(DummyVecEnv([lambda: StepCounter(3)]), steps)] == lengths


def test_a_time_limit_is_no_termination():
    (cut,) = play(DummyVecEnv([lambda: TimeLimit(StepCounter(9), 4)]))
    assert (len(cut), cut.terminated, cut.truncated) == (4, False, True)
    (both,) = play(DummyVecEnv([lambda: TimeLimit(StepCounter(4), 4)]))
    assert (len(both), both.terminated, both.truncated) == (4, True, False)


def test_the_same_seed_plays_the_same_episodes():
    def once(seed):
        return play(DummyVecEnv([toy.PointMass] * 2), seed=seed, policy=lambda o, state, start: (np.sin(9 * o), None))

    for one, other in zip(once(3), once(3), strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
    first, second = once(3)
    assert not np.array_equal(first.observations, second.observations)  # the copies differ
    assert not np.array_equal(first.observations, once(4)[0].observations)


def test_a_round_knows_nothing_of_the_one_before():
    """Whatever the environment went through: a checkpoint holds none of it."""
    used = DummyVecEnv([toy.PointMass])
    used.reset()
    for _ in range(7):
        used.step(np.ones((1, 2), np.float32))
    for one, other in zip(play(used, seed=5), play(DummyVecEnv([toy.PointMass]), seed=5), strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)


def test_a_step_is_told_of_and_may_be_the_last():
    told = []

    def on_step(now):
        told.append(now)
        return len(told) < 4

    first, second = play(DummyVecEnv([lambda: StepCounter(3)] * 2), steps=100, on_step=on_step)[2:]
    assert len(told) == 4
    assert [len(first), len(second)] == [1, 1]
    assert first.truncated
    assert told[2]["dones"].tolist() == [True, True]
    assert told[2]["new_obs"].tolist() == [[2, 0]] * 2  # as SB3 shows it
    assert told[2]["infos"][0]["terminal_observation"].tolist() == [1, 3]
    assert told[2]["rewards"].tolist() == [2, 2]


def test_actions_of_a_discrete_space():
    episodes = play(
        DummyVecEnv([lambda: toy.DiscretePointMass(start=3)]), policy=lambda o, state, start: (np.full(len(o), 4), None)
    )
    assert episodes[0].actions.tolist() == [4] * toy.STEPS
