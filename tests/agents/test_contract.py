"""Every registered agent keeps the contract."""

import small

from aime_gym.agents import list_agents
from aime_gym.testing import AgentContract

BUDGETS = small.TINY.keys() & small.LEARNING.keys()

# A class of tests for each agent, which pytest finds by its name.
for name in list_agents():
    if name in BUDGETS:
        kind = f"Test{name.title().replace('_', '').replace('-', '')}"
        budgets = {"agent": name, "tiny": small.TINY[name], "learning": small.LEARNING[name]}
        budgets |= {"point_mass": small.TOYS[name]} if name in small.TOYS else {}
        globals()[kind] = type(kind, (AgentContract,), {"__module__": __name__, **budgets})


def test_every_agent_has_its_budgets():
    missing = set(list_agents()) - BUDGETS
    assert not missing, f"tests/agents/small.py lacks the budgets TINY and LEARNING of {sorted(missing)}"
