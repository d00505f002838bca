import pytest
import toy


@pytest.fixture(scope="session")
def point_mass():
    """An environment, play and demonstrations that all tests of agents share."""
    env = toy.PointMass()
    return env, toy.play_data(env), toy.demonstrations(env)
