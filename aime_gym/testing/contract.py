"""All that an agent promises, in one class of tests."""

from __future__ import annotations

from aime_gym.testing.acting import ActingContract
from aime_gym.testing.callbacks import CallbackContract
from aime_gym.testing.environments import EnvironmentContract
from aime_gym.testing.files import FileContract
from aime_gym.testing.input import InputContract
from aime_gym.testing.resuming import ResumingContract
from aime_gym.testing.training import TrainingContract


class AgentContract(
    TrainingContract,
    ResumingContract,
    ActingContract,
    InputContract,
    FileContract,
    EnvironmentContract,
    CallbackContract,
):
    """What every agent does, whatever its algorithm; see :class:`~aime_gym.testing.subject.Subject` for the budgets.

    A test that an agent has good reason to fail is overridden in the subclass, with the reason.
    """
