"""Contract of all agents, in one class of tests."""

from __future__ import annotations

from aime_gym.testing.callbacks import CallbackContract
from aime_gym.testing.environments import EnvironmentContract
from aime_gym.testing.input import InputContract
from aime_gym.testing.predict import PredictContract
from aime_gym.testing.resuming import ResumingContract
from aime_gym.testing.save_load import SaveLoadContract
from aime_gym.testing.training import TrainingContract


class AgentContract(
    TrainingContract,
    ResumingContract,
    PredictContract,
    InputContract,
    SaveLoadContract,
    EnvironmentContract,
    CallbackContract,
):
    """Behaviour of every agent; see [`aime_gym.testing.base.ContractBase`][] for the class attributes.

    Override a test that an agent fails for a good reason in the subclass, and state the reason there.
    """
