"""Contract of every registered agent."""

import small

from aime_gym.agents import list_agents
from aime_gym.testing import AgentContract
from aime_gym.testing.callbacks import EachCallbackContract
from aime_gym.testing.environments import EachEnvironmentContract

#: Agents that imitate from data alone, and in their environment.
KINDS = ("bco", "gaifo")


class SharedWorldModel(AgentContract):
    """Contract of an agent that learns the toy task from a world model that others have learnt."""

    def learner(self, env):
        return self.make(env, **self.learning, world_model=small.world_model(type(env)))


BUDGETS = small.TINY.keys() & small.LEARNING.keys()

# A class of tests for each agent, which pytest finds by its name.
for name in list_agents():
    if name in BUDGETS:
        test_class = f"Test{name.title().replace('_', '').replace('-', '')}"
        budgets = {"agent": name, "tiny": small.TINY[name], "learning": small.LEARNING[name]}
        budgets |= {"toy_class": small.TOY_CLASSES[name]} if name in small.TOY_CLASSES else {}
        contract = SharedWorldModel if name in small.WORLD_MODEL_AGENTS else AgentContract
        bases = (contract, *([EachCallbackContract, EachEnvironmentContract] if name in KINDS else []))
        globals()[test_class] = type(test_class, bases, {"__module__": __name__, **budgets})


def test_every_agent_has_its_budgets():
    missing = set(list_agents()) - BUDGETS
    assert not missing, f"tests/agents/small.py lacks the budgets TINY and LEARNING of {sorted(missing)}"
