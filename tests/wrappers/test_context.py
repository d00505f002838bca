"""Rendering by many environments at once, in one process and in several: frames equal those of a single one."""

import functools

import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
from wrapper_fakes import make_pixels

STEPS = 3
TASKS = ["walker-walk", "reach-v3"]


def actions(copy, space):
    return np.random.default_rng(copy).uniform(-1, 1, (STEPS, *space.shape)).astype(space.dtype)


@functools.cache
def alone(name, copy):
    """Return the frames (STEPS + 1, 32, 32, 3) of an environment without others beside it."""
    with make_pixels(name) as env:
        frames = [env.reset(seed=copy)[0]]
        frames += [env.step(action)[0] for action in actions(copy, env.action_space)]
    return np.stack(frames)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("several", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_sb3_in_one_process_and_in_several(name, several):
    makers = [functools.partial(make_pixels, name)] * 2
    vec_env = SubprocVecEnv(makers, start_method="spawn") if several else DummyVecEnv(makers)
    vec_env.seed(0)
    steps = np.stack([actions(copy, vec_env.action_space) for copy in range(2)], axis=1)
    frames = [vec_env.reset(), *(vec_env.step(action)[0] for action in steps)]
    vec_env.close()
    for copy in range(2):
        np.testing.assert_array_equal(np.stack(frames)[:, copy], alone(name, copy))


# Workers of Gymnasium start without PyTorch, in a fraction of the time of SB3's.
@pytest.mark.parametrize("name", TASKS)
def test_gymnasium_in_several_processes(name):
    vec_env = AsyncVectorEnv([functools.partial(make_pixels, name)] * 2, context="forkserver")
    steps = np.stack([actions(copy, vec_env.single_action_space) for copy in range(2)], axis=1)
    frames = [vec_env.reset(seed=[0, 1])[0].copy(), *(vec_env.step(action)[0].copy() for action in steps)]
    vec_env.close()
    for copy in range(2):
        np.testing.assert_array_equal(np.stack(frames)[:, copy], alone(name, copy))


def test_interleaved_in_one_process():
    """Mix simulators, and close an environment in between."""
    names = ["walker-walk", "reach-v3", "walker-walk"]
    envs = [make_pixels(name) for name in names]
    for copy, (name, env) in enumerate(zip(names, envs, strict=True)):
        np.testing.assert_array_equal(env.reset(seed=copy)[0], alone(name, copy)[0])
    for step in range(STEPS):
        for copy, (name, env) in enumerate(zip(names, envs, strict=True)):
            action = actions(copy, env.action_space)[step]
            np.testing.assert_array_equal(env.step(action)[0], alone(name, copy)[step + 1])
        if step == 1:
            envs.pop().close()
            names.pop()
    for env in envs:
        env.close()
