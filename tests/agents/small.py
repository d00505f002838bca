"""Budgets of seconds: enough to run every line of an agent, or to learn the toy task."""

from aime_gym.models.config import WorldModelConfig

MODEL = WorldModelConfig(deter=64, stoch=8, hidden=64, decoder_hidden=64)

#: A few rounds of adversarial imitation.
ADVERSARIAL = {
    "timesteps": 64,
    "generator_kwargs": {"n_steps": 16, "batch_size": 16, "n_epochs": 2},
    "discriminator_hidden": 16,
    "discriminator_updates": 2,
    "batch_size": 16,
}

#: A few updates of everything, by registered name.
TINY = {
    "aime": {
        "world_model": WorldModelConfig(deter=8, stoch=4, hidden=8, decoder_hidden=8),
        "model_updates": 3,
        "inverse_updates": 3,
        "clone_updates": 3,
        "policy_updates": 3,
        "horizon": 8,
        "batch_size": 4,
    },
    "bco": {"min_epochs": 1, "min_updates": 1, "max_epochs": 2, "batch_size": 50},
    "bc": {"min_epochs": 1, "min_updates": 1, "max_epochs": 2, "batch_size": 50},
    "gaifo": ADVERSARIAL,
    "gail": ADVERSARIAL,
}

#: Enough to be better than chance on the toy task.
LEARNING = {
    "aime": {
        "world_model": MODEL,
        "model_updates": 500,
        "inverse_updates": 500,
        "clone_updates": 500,
        "policy_updates": 150,
        "horizon": 16,
    },
    "bco": {"min_epochs": 5, "max_epochs": 15, "min_updates": 500},
    "bc": {"min_epochs": 5, "max_epochs": 15, "min_updates": 500},
    # Tens of thousands of environment steps: test_adversarial_agents.py has a test of their own.
    "gaifo": None,
    "gail": None,
}
