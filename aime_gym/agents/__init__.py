"""The agents: AIME and the systems it is compared with, on one interface."""

from aime_gym.agents.aime import AIMEAgent
from aime_gym.agents.base import ImitationAgent
from aime_gym.agents.bc import BCAgent
from aime_gym.agents.bco import BCOAgent
from aime_gym.agents.gaifo import GAIfOAgent
from aime_gym.agents.gail import GAILAgent
from aime_gym.agents.registry import list_agents, load_agent, make_agent, register_agent

__all__ = [
    "AIMEAgent",
    "BCAgent",
    "BCOAgent",
    "GAILAgent",
    "GAIfOAgent",
    "ImitationAgent",
    "list_agents",
    "load_agent",
    "make_agent",
    "register_agent",
]
