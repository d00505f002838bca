"""Stacks of frames: which frames are in them, and what SB3 takes them for."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

from aime_gym.data import TrajectoryDataset
from aime_gym.learned_reward.frame_stack import FrameStack, observation_bytes
from aime_gym.types import Trajectory

LAST, FIRST = (12, 11, 3), (3, 12, 11)


def images(count, shape=LAST, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(256, size=(count, *shape), dtype=np.uint8))


def test_vectors_stay_alone():
    frame_stack = FrameStack({"a": (2,), "b": (1,)}, frames=3)
    observation = {"a": torch.randn(5, 2), "b": torch.randn(5, 1)}
    for stacked in (frame_stack.reset(observation), frame_stack.append({}, observation)):
        assert all(torch.equal(stacked[name], values) for name, values in observation.items())
    assert frame_stack.space["a"].shape == (2,)


@pytest.mark.parametrize("shape", [LAST, FIRST])
def test_a_stack_is_an_image_of_sb3(shape):
    space = FrameStack({"camera": shape, "joints": (2,)}, frames=3).space
    assert isinstance(space, spaces.Dict)
    assert is_image_space(space["camera"])
    assert is_image_space_channels_first(space["camera"])
    assert space["camera"].shape == (9, 12, 11)
    assert observation_bytes(space) == 9 * 12 * 11 + 2 * 4  # images stay bytes beside vectors


@pytest.mark.parametrize("shape", [LAST, FIRST])
def test_a_stack_starts_with_copies_and_forgets_the_oldest(shape):
    frame_stack = FrameStack({"camera": shape, "joints": (2,)}, frames=3)
    frames, joints = [images(2, shape, seed) for seed in range(4)], torch.randn(4, 2, 2)
    stacked = frame_stack.reset({"camera": frames[0], "joints": joints[0]})
    for step in range(4):
        if step:
            stacked = frame_stack.append(stacked, {"camera": frames[step], "joints": joints[step]})
        expected = [frames[max(step + back, 0)] for back in (-2, -1, 0)]
        if shape is LAST:
            expected = [frame.movedim(-1, 1) for frame in expected]
        assert torch.equal(stacked["camera"], torch.cat(expected, dim=1))
        assert torch.equal(stacked["joints"], joints[step])


@pytest.mark.parametrize("shape", [LAST, FIRST])
def test_recorded_stacks_are_those_of_acting(shape):
    lengths = (4, 1, 3)
    demos = [
        Trajectory({"camera": images(n + 1, shape, n).numpy(), "joints": np.random.rand(n + 1, 2).astype(np.float32)})  # noqa: NPY002
        for n in lengths
    ]
    frame_stack, dataset = FrameStack({"camera": shape, "joints": (2,)}, frames=3), TrajectoryDataset(demos, None)
    expected = []
    for demo in demos:
        for step in range(len(demo.observations["camera"])):
            observation = {
                name: torch.from_numpy(values[step : step + 1]) for name, values in demo.observations.items()
            }
            expected.append(frame_stack.append(expected[-1], observation) if step else frame_stack.reset(observation))
    recorded = frame_stack.of_records(dataset, torch.arange(len(dataset)))
    for name, values in recorded.items():
        assert torch.equal(values, torch.cat([stacked[name] for stacked in expected]))
    vectors = frame_stack.vectors_of_records(dataset, torch.arange(len(dataset)))
    assert vectors.keys() == {"joints"}
    assert torch.equal(vectors["joints"], recorded["joints"])


@pytest.mark.parametrize("shape", [(9, 30, 3), (8, 8, 3), (3, 8, 8)])
def test_stacks_that_could_be_taken_for_something_else_are_refused(shape):
    height, width = shape[1:] if shape[0] == 3 else shape[:2]
    with pytest.raises(ValueError, match=rf"^frame_stack: expected less for images of {height} x {width}"):
        FrameStack({"camera": shape}, frames=3)
