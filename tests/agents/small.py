"""Small hyper-parameters: to run every line of an agent in a moment, or to learn the toy task in seconds."""

import functools
import tempfile
from pathlib import Path

from aime_gym.agents import AIMEAgent
from aime_gym.models.config import WorldModelConfig
from aime_gym.testing import toy

MODEL = WorldModelConfig(deter=64, stoch=8, hidden=64, decoder_hidden=64)

#: A few rounds of adversarial imitation.
ADVERSARIAL = {
    "timesteps": 64,
    "algorithm_kwargs": {"n_steps": 16, "batch_size": 16, "n_epochs": 2},
    "discriminator_hidden": 16,
    "discriminator_updates": 2,
    "batch_size": 16,
}

#: A few rounds of PatchAIL.
PATCHES = ADVERSARIAL | {"discriminator_hidden": 4, "discriminator_layers": 2}

#: A few rounds of RL on a reward that is fitted in advance.
FITTED = {
    "timesteps": 64,
    "algorithm_kwargs": {"n_steps": 16, "batch_size": 16, "n_epochs": 2},
    "hidden": 16,
    "updates": 3,
    "batch_size": 16,
}

#: A few updates of all that AIME does offline, and in imagination.
IMAGINED = {
    "world_model": WorldModelConfig(deter=8, stoch=4, hidden=8, decoder_hidden=8),
    "model_updates": 3,
    "inverse_updates": 3,
    "clone_updates": 3,
    "policy_updates": 3,
    "imagination_updates": 3,
    "imagination_warmup": 1,
    "imagination_horizon": 3,
    "imagination_starts": 16,
    "sequence_length": 8,
    "batch_size": 4,
}

#: A few updates of everything, by registered name.
TINY = {
    "aime": {
        "world_model": WorldModelConfig(deter=8, stoch=4, hidden=8, decoder_hidden=8),
        "model_updates": 3,
        "inverse_updates": 3,
        "clone_updates": 3,
        "policy_updates": 3,
        "sequence_length": 8,
        "batch_size": 4,
        "reward_updates": 3,
        "imagination_horizon": 3,
    },
    "bco": {"min_epochs": 1, "min_updates": 1, "max_epochs": 2, "batch_size": 50, "alpha": 0.01},
    "bc": {"min_epochs": 1, "min_updates": 1, "max_epochs": 2, "batch_size": 50},
    "iidm": {"model_updates": 3, "policy_updates": 3, "batch_size": 16, "hidden": 8, "layers": 1},
    "gaifo": ADVERSARIAL,
    "gail": ADVERSARIAL,
    "patch-ail": PATCHES,
    "mbbc": {
        "world_model": WorldModelConfig(deter=8, stoch=4, hidden=8, decoder_hidden=8),
        "model_updates": 3,
        "clone_updates": 3,
        "sequence_length": 8,
        "batch_size": 4,
    },
    "ditto": IMAGINED,
    "d-gail": IMAGINED,
    "imrl": FITTED,
    "pmi-il": FITTED,
    "ilpo": {"updates": 3, "batch_size": 16, "timesteps": 80},
}

#: Toy environments of agents that do not support all action or observation spaces.
TOY_CLASSES = {"ilpo": toy.DiscretePointMass, "patch-ail": toy.PixelPointMass}

#: A world model and an inverse model that are good for something.
PRETRAINING = {
    "world_model": MODEL,
    "model_updates": 200,
    "inverse_updates": 300,
    "batch_size": 32,
    "sequence_length": 16,
}
#: Agents that learn the toy task with the file of `world_model`, which all of them would learn in the same way.
WORLD_MODEL_AGENTS = ("aime", "mbbc", "ditto", "d-gail")
_FOLDER = tempfile.TemporaryDirectory()


@functools.cache
def world_model(task=toy.PointMass) -> Path:
    """Return the file of a world model of a toy task, which is learnt once for all tests."""
    env, play, _ = toy.task(task, play=60, demos=10)
    path = Path(_FOLDER.name) / f"{task.__name__}.safetensors"
    AIMEAgent(env, seed=0, **PRETRAINING).pretrain(play, progress_bar=False).save_world_model(path)
    return path


#: Policies that are inferred and cloned in few updates, and improved in imagination.
LEARNING_IMAGINED = {
    "clone_updates": 200,
    "policy_updates": 10,
    "imagination_updates": 120,
    "imagination_warmup": 60,
    "imagination_starts": 32,
    "batch_size": 32,
    "sequence_length": 16,
}

#: Enough updates to be better than chance on the toy task, by registered name; `None` skips that test.
LEARNING = {
    "aime": {"clone_updates": 150, "policy_updates": 20, "batch_size": 32, "sequence_length": 16},
    "bco": {"min_epochs": 5, "max_epochs": 15, "min_updates": 500, "batch_size": 32},
    "bc": {"min_epochs": 5, "max_epochs": 15, "min_updates": 500},
    "iidm": {"model_updates": 500, "policy_updates": 300, "batch_size": 128, "hidden": 64},
    # Tens of thousands of environment steps: test_adversarial_agents.py and test_pixel_agents.py have other tests.
    "gaifo": None,
    "gail": None,
    "patch-ail": None,
    "mbbc": {"clone_updates": 150, "batch_size": 32, "sequence_length": 16},
    "ditto": LEARNING_IMAGINED,
    "d-gail": LEARNING_IMAGINED,
    "imrl": None,
    "pmi-il": None,
    # Its latent actions explain changes by one observation, and the toy hides the velocity: test_ilpo.py has another.
    "ilpo": None,
}
