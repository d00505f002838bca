import pytest

from aime_gym.testing import toy


@pytest.fixture(scope="session")
def point_mass():
    """An environment, play and demonstrations that all tests of agents share."""
    return toy.task(play=60, demos=10)
