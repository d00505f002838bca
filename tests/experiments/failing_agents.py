"""An agent for benchmarks that go wrong, in a module of its own: the processes import it too."""

import os
import signal

from aime_gym.agents import register_agent
from aime_gym.agents.bc import BCAgent


@register_agent("failing")
class FailingAgent(BCAgent):
    """Seed 1 raises an error; seed 2 takes its process along; others learn."""

    def _imitate(self, demos, loop):
        if self.seed == 1:
            raise RuntimeError("broken\non purpose")
        if self.seed == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._imitate(demos, loop)
