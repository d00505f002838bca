"""A video shows policies beside each other, in the same episode."""

import imageio.v3 as imageio
import numpy as np
import pytest

from aime_gym.data.captions import LINE
from aime_gym.experiments.experts import prepare_expert
from aime_gym.experiments.video import SIZE, VideoPolicy, record_video
from aime_gym.tasks import TaskConfig

REACH = TaskConfig("reach-v3", max_episode_steps=12)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "both.mp4"
    expert = prepare_expert(None, REACH, seed=0)
    still = VideoPolicy("still", REACH, lambda env: lambda observation: np.zeros(4, np.float32))
    record_video(path, [VideoPolicy("expert", REACH, expert.policy), still], episodes=2, seed=5)
    return imageio.imread(path, index=..., plugin="pyav")


def halves(frame):
    picture = frame[LINE:].astype(float)
    return picture[:, :SIZE], picture[:, SIZE:]


def test_both_halves_are_there(frames):
    assert frames.shape[1:] == (SIZE + LINE, 2 * SIZE, 3)
    assert frames.shape[0] > 2 * 7


def test_both_halves_show_one_goal(frames):
    left, right = halves(frames[0])
    assert np.abs(left - right).mean() < 2  # the codec's loss


def test_policies_act_in_their_own_half(frames):
    left, right = halves(frames[6])
    start, _ = halves(frames[0])
    assert np.abs(left - right).mean() > 2
    assert np.abs(right - start).mean() < np.abs(left - start).mean()


def test_the_second_episode_has_another_goal(frames):
    half = len(frames) // 2
    first, second = halves(frames[0])[0], halves(frames[half])[0]
    assert np.abs(first - second).max() > 60
