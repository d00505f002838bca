import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from aime_gym.agents.environments import check_copies_agree, rendering_of_copies


class Drawn(gym.Env):
    """Shows images, and says how they are drawn, or does not."""

    observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def __init__(self, rendering=None):
        if rendering is not None:
            self.rendering = rendering

    def reset(self, *, seed=None, options=None):
        return np.zeros((8, 8, 3), np.uint8), {}

    def step(self, action):
        return np.zeros((8, 8, 3), np.uint8), 0.0, True, False, {}


def copies(*renderings, of=DummyVecEnv):
    return of([lambda rendering=rendering: Drawn(rendering) for rendering in renderings])


@pytest.mark.parametrize("rendering", ["default", "fast"])
def test_copies_of_one_quality(rendering):
    assert rendering_of_copies(copies(rendering, rendering)) == rendering


def test_copies_that_do_not_say():
    assert rendering_of_copies(copies(None, None)) is None
    assert rendering_of_copies(copies("realistic")) is None


def test_workers_survive_the_question():
    env = copies(None, of=SubprocVecEnv)
    assert rendering_of_copies(env) is None
    env.reset()
    env.close()


def test_copies_of_several_qualities():
    with pytest.raises(ValueError, match="^env: expected copies that agree on quality, 'fast' .* 'default' in copy 1"):
        check_copies_agree(copies("fast", "default"))
