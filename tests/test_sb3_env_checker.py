"""SB3's checker of environments has nothing against ours."""

import pytest
from stable_baselines3.common.env_checker import check_env

import aime_gym
from aime_gym.testing import toy

TOYS = [
    toy.PointMass,
    toy.ColumnPointMass,
    toy.DiscretePointMass,
    lambda: toy.DiscretePointMass(start=3),
    toy.DoublePointMass,
    toy.SensorsPointMass,
]


# Not Meta-World: SB3 takes whatever has a compute_reward for a goal environment.
@pytest.mark.parametrize("modality", ["state", "position"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # unbounded observations: advice
def test_made_environments(modality):
    env = aime_gym.make_env("walker-run", modality=modality, action_repeat=2)
    check_env(env, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("make", TOYS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_toy_tasks(make):
    check_env(make(), skip_render_check=True)
