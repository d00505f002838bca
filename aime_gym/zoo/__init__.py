"""The agents in RL Zoo (``rl_zoo3``): ``python -m aime_gym.zoo train | enjoy``.

What rl_zoo3's own ``train`` and ``enjoy`` do, they do here, with the registered agents among the algorithms. Needs
``pip install "aime-gym[zoo]"``.
"""

from aime_gym.zoo.registration import register_agents

__all__ = ["register_agents"]
