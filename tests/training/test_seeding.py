"""Global random numbers are borrowed, and given back."""

import random

import numpy as np
import torch

from aime_gym.training.seeding import TemporaryGlobalSeed


def draw():
    return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002


def seed_others():
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)


def test_neither_side_sees_the_other():
    seed_others()
    expected = [draw(), draw(), draw()]
    seed_others()
    outside, inside = [draw()], []
    with TemporaryGlobalSeed(5, torch.device("cpu")) as global_seed:
        inside.append(draw())
        with global_seed.suspended():
            outside.append(draw())
        inside.append(draw())
    outside.append(draw())
    assert outside == expected
    with TemporaryGlobalSeed(5, torch.device("cpu")):
        assert [draw(), draw()] == inside
