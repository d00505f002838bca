"""The tests that every agent passes, for agents of other packages too.

    from aime_gym.testing import AgentContract

    class TestMyAgent(AgentContract):
        agent = "mine"                      # the name in register_agent("mine", MyAgent)
        tiny = {"updates": 3}               # hyper-parameters with which everything runs in a moment
        learning = {"updates": 500}         # enough to learn the toy task; None leaves that test out

The parts of the contract can be inherited one by one as well, from the modules of this package.
"""

_MODULES = ("subject", "acting", "training", "resuming", "input", "files", "environments", "callbacks", "contract")

try:
    import pytest
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'aime_gym.testing needs pytest: pip install "aime-gym[test]"', name=error.name, path=error.path
    ) from error

# Before they are imported: a failing assertion of the contract shows its values, as one in a test file does.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))

from aime_gym.testing import toy  # noqa: E402
from aime_gym.testing.contract import AgentContract  # noqa: E402

__all__ = ["AgentContract", "toy"]
