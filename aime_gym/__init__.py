"""Imitation from demonstrations without actions, in any Gymnasium environment."""

from aime_gym.envs import make_env, register_envs

register_envs()

__all__ = ["make_env", "register_envs"]
