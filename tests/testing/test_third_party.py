"""Contract of agents of other packages, which broken agents fail."""

import contextlib
import pickle
import subprocess
import sys
import warnings

import pytest
import third_party
from linear import LinearAgent
from stable_baselines3 import PPO

from aime_gym.agents.registry import AGENTS, register_agent
from aime_gym.testing import AgentContract
from aime_gym.testing.environments import EnvironmentContract
from aime_gym.testing.predict import PredictContract
from aime_gym.testing.save_load import PLANTED_PICKLES, pickle_payload

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Register the agents for these tests only, since others go through all registered agents."""
    monkeypatch.setattr("aime_gym.agents.registry.AGENTS", AGENTS.copy())
    register_agent("linear", LinearAgent)
    register_agent("stateless", third_party.StatelessAgent)


class TestLinear(AgentContract):
    agent = "linear"
    tiny = {"updates": 4}
    learning = {"updates": 1000}


class TestStateless(PredictContract, EnvironmentContract):
    """Contract of an agent without a state."""

    agent = "stateless"
    tiny = {"updates": 4}


BROKEN = {
    third_party.IgnoresStarts: "test_a_started_row_has_forgotten",
    third_party.DrawsGlobally: "test_sampled_actions_follow_the_seed_alone",
    third_party.ForgetsAModule: "test_parameters_are_all_that_acts",
    third_party.ForgetsItsOptimizer: "test_a_resumed_run_equals_an_uninterrupted_one",
    third_party.GoesOnFromTheOldPolicy: "test_a_second_imitate_is_a_new_policy",
    third_party.CountsNothing: "test_phases_count_updates_and_environment_steps",
    third_party.TouchesTheWorldOfOthers: "test_global_randomness_is_left_alone",
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_agent_is_found_out(kind, pytester):
    register_agent("broken", kind)
    pytester.makepyfile(
        """
        from aime_gym.testing import AgentContract

        class TestBroken(AgentContract):
            agent = "broken"
            tiny = {"updates": 4}
        """
    )
    result = pytester.runpytest_inprocess("-k", BROKEN[kind], "-p", "no:cacheprovider")
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) > 0
    assert "errors" not in outcomes


def test_failures_show_their_values(pytester):
    """Run pytest in a new process, where nothing is imported yet, and without any configuration."""
    pytester.makepyfile(
        """
        from aime_gym.testing import AgentContract
        from aime_gym.testing.base import assert_identical
        import torch

        def test_values():
            assert_identical({"one": torch.zeros(1)}, {"another": torch.zeros(1)})
        """
    )
    result = pytester.runpytest_subprocess("-W", "error::pytest.PytestAssertRewriteWarning")
    result.stdout.fnmatch_lines(["*dict_keys(*'one'*) == dict_keys(*'another'*)*"])


def test_without_pytest_the_error_says_how_to_get_it():
    code = "import sys; sys.modules['pytest'] = None; import aime_gym.testing"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'aime_gym.testing needs pytest: pip install "aime-gym[test]"' in result.stderr


def test_the_planted_pickle_is_armed(tmp_path):
    """Check that the pickle runs outside the package; otherwise the test that it never runs would prove nothing."""
    plant, _ = PLANTED_PICKLES["in a file of SB3"]
    plant(tmp_path, pickle_payload(tmp_path / "sb3"), tmp_path / "planted.zip")
    with warnings.catch_warnings(), contextlib.suppress(Exception):  # an open file is no policy
        warnings.simplefilter("ignore")
        PPO.load(tmp_path / "planted.zip")
    assert (tmp_path / "sb3").exists()
    pickle.loads(pickle_payload(tmp_path / "witness"))  # noqa: S301
    assert (tmp_path / "witness").exists()
