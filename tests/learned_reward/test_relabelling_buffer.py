"""What an off-policy algorithm learns from: true transitions, at the rewards of the moment."""

import numpy as np
import torch
from gymnasium import spaces

from aime_gym.learned_reward.relabelling_buffer import RelabellingReplayBuffer
from aime_gym.learned_reward.transitions import Transitions


def buffer(pay, standardize=lambda rows: rows, size=64):
    box = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    latest = []
    made = RelabellingReplayBuffer(
        size, box, spaces.Box(-1, 1, (1,), np.float32), "cpu", 2,
        latest=lambda: latest[-1], standardize=standardize, pay=pay,
    )  # fmt: skip
    for step in range(size // 4):
        obs = torch.tensor([[float(step)], [100.0 + step]])
        latest.append(Transitions(obs, None, obs + 1, torch.tensor([step % 3 == 0, False])))
        wrong = np.full((2, 1), -9.0, np.float32)  # what the algorithm saw, and what it was paid: both of another time
        infos = [{}, {"TimeLimit.truncated": True}]
        made.add(wrong, wrong, np.zeros((2, 1), np.float32), wrong[:, 0], np.array([step % 3 == 0, True]), infos)
    return made


def test_rewards_are_those_of_the_moment():
    scale = [1.0]
    replay = buffer(lambda transitions: (scale[0] * transitions.next_obs[:, 0]).numpy())
    for scale[0] in (1.0, -3.0):
        sample = replay.sample(50)
        torch.testing.assert_close(sample.rewards, scale[0] * sample.next_observations)
        torch.testing.assert_close(sample.next_observations, sample.observations + 1)


def test_observations_are_standardised_as_of_now():
    shift, seen = [0.0], []

    def pay(transitions):
        seen.append(transitions)
        return np.zeros(len(transitions), np.float32)

    replay = buffer(pay, lambda rows: rows - shift[0])
    shift[0] = 1000.0
    sample = replay.sample(50)
    torch.testing.assert_close(sample.observations + 1000, seen[0].obs)  # the reward sees them as they were
    torch.testing.assert_close(sample.next_observations + 1000, seen[0].next_obs)


def test_a_time_limit_is_no_termination():
    seen = []
    replay = buffer(lambda transitions: seen.append(transitions) or np.zeros(len(transitions), np.float32))
    sample = replay.sample(200)
    of_first = sample.observations[:, 0] < 100
    assert torch.equal(seen[0].terminated, of_first & (sample.observations[:, 0] % 3 == 0))
    assert torch.equal(sample.dones[:, 0] > 0, seen[0].terminated)
