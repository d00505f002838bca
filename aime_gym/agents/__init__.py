"""The agents: AIME and the systems it is compared with, on one interface."""

from aime_gym.agents.aime import AIMEAgent
from aime_gym.agents.base import ImitationAgent
from aime_gym.agents.bc import BCAgent
from aime_gym.agents.bco import BCOAgent, BCOConfig
from aime_gym.agents.d_gail import DGAILAgent
from aime_gym.agents.ditto import DITTOAgent
from aime_gym.agents.gaifo import GAIfOAgent
from aime_gym.agents.gail import GAILAgent
from aime_gym.agents.iidm import IIDMAgent, IIDMConfig
from aime_gym.agents.ilpo import ILPOAgent, ILPOConfig
from aime_gym.agents.imrl import IMRLAgent, IMRLConfig
from aime_gym.agents.mbbc import MBBCAgent, MBBCConfig
from aime_gym.agents.patch_ail import PatchAILAgent, PatchAILConfig
from aime_gym.agents.pmi_il import PMIILAgent, PMIILConfig
from aime_gym.agents.registry import list_agents, load_agent, make_agent, register_agent
from aime_gym.learned_reward.discriminator_reward import AdversarialConfig
from aime_gym.model_based.config import AIMEConfig
from aime_gym.model_based.imagined_imitation import ImaginedImitationConfig
from aime_gym.models.config import WorldModelConfig
from aime_gym.training.supervised import StackedConfig

__all__ = [
    "AIMEAgent",
    "AIMEConfig",
    "AdversarialConfig",
    "BCAgent",
    "BCOAgent",
    "BCOConfig",
    "DGAILAgent",
    "DITTOAgent",
    "GAILAgent",
    "GAIfOAgent",
    "IIDMAgent",
    "IIDMConfig",
    "ILPOAgent",
    "ILPOConfig",
    "IMRLAgent",
    "IMRLConfig",
    "ImaginedImitationConfig",
    "ImitationAgent",
    "MBBCAgent",
    "MBBCConfig",
    "PMIILAgent",
    "PMIILConfig",
    "PatchAILAgent",
    "PatchAILConfig",
    "StackedConfig",
    "WorldModelConfig",
    "list_agents",
    "load_agent",
    "make_agent",
    "register_agent",
]
