"""Contract tests that every agent passes, for agents of other packages too.

    from aime_gym.testing import AgentContract

    class TestMyAgent(AgentContract):
        agent = "mine"                      # the name in register_agent("mine", MyAgent)
        tiny = {"updates": 3}               # hyper-parameters for a fraction of a second of training
        learning = {"updates": 500}         # enough to learn the toy task; None skips that test

The parts of the contract can be inherited one by one as well, from the modules of this package.
"""

_MODULES = ("base", "predict", "training", "resuming", "input", "save_load", "environments", "callbacks", "contract")

try:
    import pytest
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'aime_gym.testing needs pytest: pip install "aime-gym[test]"', name=error.name, path=error.path
    ) from error

# A failing assertion of the contract then shows its values, as in a test file; pytest wants this before the import.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))

from aime_gym.testing import toy  # noqa: E402
from aime_gym.testing.contract import AgentContract  # noqa: E402

__all__ = ["AgentContract", "toy"]
