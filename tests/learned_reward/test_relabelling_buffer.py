"""Samples of an off-policy algorithm: true transitions, with the rewards of the moment."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from aime_gym.learned_reward.relabelling_buffer import RelabellingReplayBuffer
from aime_gym.training.checkpoint import snapshot


def zeros(transitions):
    return np.zeros(len(transitions), np.float32)


def make_buffer(relabel, augment=lambda observation: observation, size=64, steps=16):
    space = spaces.Dict({"count": spaces.Box(-np.inf, np.inf, (1,), np.float32)})
    made = RelabellingReplayBuffer(
        size, space, spaces.Box(-1, 1, (1,), np.float32), "cpu", 2, relabel=relabel, augment=augment
    )  # fmt: skip
    for step in range(steps):
        obs = np.array([[step], [100 + step]], np.float32)
        stale = np.full(2, -9.0, np.float32)  # the reward of another time
        infos = [{}, {"TimeLimit.truncated": True}]
        dones = np.array([step % 3 == 0, True])
        made.add({"count": obs}, {"count": obs + 1}, np.zeros((2, 1), np.float32), stale, dones, infos)
    return made


def test_rewards_are_those_of_the_moment():
    scale = [1.0]
    replay = make_buffer(lambda transitions: (scale[0] * transitions.next_obs["count"][:, 0]).numpy())
    for scale[0] in (1.0, -3.0):
        sample = replay.sample(50)
        torch.testing.assert_close(sample.rewards, scale[0] * sample.next_observations["count"])
        torch.testing.assert_close(sample.next_observations["count"], sample.observations["count"] + 1)


def test_the_reward_sees_observations_as_they_were():
    rewarded = []

    def relabel(transitions):
        rewarded.append(transitions)
        return zeros(transitions)

    replay = make_buffer(relabel, lambda observation: {name: values - 1000 for name, values in observation.items()})
    sample = replay.sample(50)
    torch.testing.assert_close(sample.observations["count"] + 1000, rewarded[0].obs["count"])
    torch.testing.assert_close(sample.next_observations["count"] + 1000, rewarded[0].next_obs["count"])


def test_a_time_limit_is_no_termination():
    rewarded = []
    replay = make_buffer(lambda transitions: rewarded.append(transitions) or zeros(transitions))
    sample = replay.sample(200)
    counts = sample.observations["count"][:, 0]
    assert torch.equal(rewarded[0].terminated, (counts < 100) & (counts % 3 == 0))
    assert torch.equal(sample.dones[:, 0] > 0, rewarded[0].terminated)


@pytest.mark.parametrize("steps", [0, 16, 32, 40])
def test_a_buffer_of_a_state_continues_as_the_other_does(steps):
    """Empty, filled in part, full, and written over: two environments fill 64 transitions in 32 steps."""
    replay = make_buffer(zeros, steps=steps)
    state = snapshot(replay.state_dict())
    assert all(len(values) == min(steps, 32) for values in state["stored"].values())
    other = make_buffer(zeros, steps=0)
    other.load_state_dict(state)
    for buffer in (replay, other):
        last = {"count": np.full((2, 1), 7.0, np.float32)}
        buffer.add(last, last, np.ones((2, 1), np.float32), np.ones(2, np.float32), np.zeros(2), [{}, {}])
    samples = []
    for buffer in (replay, other):
        np.random.seed(0)  # noqa: NPY002  # SB3 draws from it
        samples.append(buffer.sample(100))
    torch.testing.assert_close(samples[0]._asdict(), samples[1]._asdict(), rtol=0, atol=0)
