"""The agents: AIME and the systems it is compared with, on one interface."""

from aime_gym.agents.aime import AIMEAgent
from aime_gym.agents.base import ImitationAgent
from aime_gym.agents.bc import BCAgent
from aime_gym.agents.bco import BCOAgent
from aime_gym.agents.gaifo import GAIfOAgent
from aime_gym.agents.gail import GAILAgent
from aime_gym.agents.iidm import IIDMAgent
from aime_gym.agents.ilpo import ILPOAgent
from aime_gym.agents.imrl import IMRLAgent
from aime_gym.agents.mbbc import MBBCAgent
from aime_gym.agents.patch_ail import PatchAILAgent
from aime_gym.agents.pmi_il import PMIILAgent
from aime_gym.agents.registry import list_agents, load_agent, make_agent, register_agent

__all__ = [
    "AIMEAgent",
    "BCAgent",
    "BCOAgent",
    "GAILAgent",
    "GAIfOAgent",
    "IIDMAgent",
    "ILPOAgent",
    "IMRLAgent",
    "ImitationAgent",
    "MBBCAgent",
    "PMIILAgent",
    "PatchAILAgent",
    "list_agents",
    "load_agent",
    "make_agent",
    "register_agent",
]
