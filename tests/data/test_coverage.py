"""Shares of demonstrations that lie where play has not been."""

import numpy as np
import pytest
import small

from aime_gym.agents import BCOAgent
from aime_gym.data.coverage import sample_records, share_outside, warn_of_outside
from aime_gym.testing import toy
from aime_gym.types import Trajectory


def walks(episodes, center=0.0, seed=0, shape=(2,)):
    generator = np.random.default_rng(seed)
    return [Trajectory(center + generator.normal(size=(50, *shape)).astype(np.float32)) for _ in range(episodes)]


def share(demos, play):
    return share_outside(sample_records(demos), sample_records(play))


def test_the_share_grows_with_the_distance_and_is_a_twentieth_in_play_itself():
    play = walks(200)
    shares = [share(walks(100, center, seed=1), play) for center in (0, 2, 8)]
    assert shares[0] == pytest.approx(0.05, abs=0.02)
    assert 0.05 < shares[1] < shares[2] == 1


def test_the_share_has_no_units():
    play, demos = walks(20), walks(5, 2.0, seed=1)
    scaled = [[Trajectory(1000 * part.observations) for part in parts] for parts in (demos, play)]
    assert share(*scaled) == pytest.approx(share(demos, play), abs=0.01)


@pytest.mark.parametrize("shape", [(16, 16, 3), (3, 20, 20)])
def test_images_are_compared_by_their_blocks(shape):
    def frames(low, high, seed):
        values = np.random.default_rng(seed).integers(low, high, (6, 30, *shape))
        return [Trajectory(part.astype(np.uint8)) for part in values]

    play = frames(0, 100, 0)
    assert sample_records(play)[0].shape == (30, 3 * 8 * 8)
    assert share(frames(150, 250, 1), play) == 1
    assert share(frames(0, 100, 2), play) < 0.3


def test_large_data_is_sampled_evenly():
    lengths = [len(part) for part in sample_records(walks(100))]
    assert sum(lengths) == 1667
    assert max(lengths) - min(lengths) <= 1


def test_one_episode_of_play_is_enough():
    assert share(walks(2, 9.0), walks(1)) == 1


def test_imitate_warns_of_demonstrations_outside_of_play():
    env, play, demos = toy.task()
    far = [Trajectory(demo.observations + np.float32(3)) for demo in demos]
    agent = BCOAgent(env, seed=0, **small.TINY["bco"]).pretrain(play, progress_bar=False)
    with pytest.warns(UserWarning, match="^demos: 100% of the demonstrations' records lie where play has not been"):
        agent.imitate(far, progress_bar=False)


def test_no_play_no_warning(recwarn):
    warn_of_outside(walks(2), [], "demos")
    assert not recwarn.list
