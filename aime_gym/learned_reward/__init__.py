"""Imitation by a learned reward, which one of SB3's algorithms maximises in the environment."""
