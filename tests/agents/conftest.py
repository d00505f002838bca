import pytest

from aime_gym.testing import toy


@pytest.fixture(scope="session")
def toy_task():
    """Environment, play and demonstrations that all tests of agents share."""
    return toy.task(play=60, demos=10)
