"""Machinery of training: phases, loops of updates and of environment steps, checkpoints, callbacks, optimizers."""
