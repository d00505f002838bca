"""flat observations: what is where in a row, and which frames are in a stack."""

import numpy as np
import pytest
import torch

from aime_gym.data import TrajectoryDataset
from aime_gym.models.augmentation import largest_shift, random_shift, shifted
from aime_gym.models.flat_layout import FlatLayout, FrameStacker
from aime_gym.types import Trajectory

IMAGE, FIRST = (9, 8, 3), (3, 9, 8)


def images(count, shape=IMAGE, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(256, size=(count, *shape), dtype=np.uint8))


def test_a_row_is_split_into_what_was_joined():
    layout = FlatLayout(4, [IMAGE, (5, 6, 2)])
    vectors, first, second = torch.randn(7, 4), images(7), images(7, (5, 6, 2))
    rows = layout.join(vectors, [first, second])
    assert rows.shape == (7, layout.size)
    assert rows.dtype == torch.float32
    split, (one, other) = layout.split(rows)
    assert torch.equal(split, vectors)
    assert torch.equal(one, first.float())
    assert torch.equal(other, second.float())


def test_images_alone_stay_bytes():
    layout = FlatLayout(0, [IMAGE])
    assert layout.dtype == np.uint8
    assert layout.join(None, [images(2)]).dtype == torch.uint8
    assert FlatLayout(3).dtype == FlatLayout(3, [IMAGE]).dtype == np.float32


def test_vectors_alone_are_side_by_side():
    stacked = FrameStacker({"a": (2,), "b": (1,)}, frames=3)
    observation = {"a": torch.randn(5, 2), "b": torch.randn(5, 1)}
    rows = torch.cat([observation["a"], observation["b"]], dim=-1)
    assert torch.equal(stacked.start(observation), rows)
    assert torch.equal(stacked.push(torch.zeros(5, 3), observation), rows)


@pytest.mark.parametrize("shape", [IMAGE, FIRST])
def test_a_stack_starts_with_copies_and_forgets_the_oldest(shape):
    stacked = FrameStacker({"camera": shape, "joints": (2,)}, frames=3)
    frames, joints = [images(2, shape, seed) for seed in range(4)], torch.randn(4, 2, 2)
    rows = stacked.start({"camera": frames[0], "joints": joints[0]})
    for step in range(4):
        if step:
            rows = stacked.push(rows, {"camera": frames[step], "joints": joints[step]})
        vectors, (stack,) = stacked.layout.split(rows)
        seen = [frames[max(step + back, 0)] for back in (-2, -1, 0)]
        if shape is FIRST:
            seen = [frame.movedim(1, -1) for frame in seen]
        assert torch.equal(stack.byte(), torch.cat(seen, dim=-1))
        assert torch.equal(vectors, joints[step])


@pytest.mark.parametrize("shape", [IMAGE, FIRST])
def test_recorded_stacks_are_those_of_acting(shape):
    lengths = (4, 1, 3)
    demos = [
        Trajectory({"camera": images(n + 1, shape, n).numpy(), "joints": np.random.rand(n + 1, 2).astype(np.float32)})  # noqa: NPY002
        for n in lengths
    ]
    stacked, dataset = FrameStacker({"camera": shape, "joints": (2,)}, frames=3), TrajectoryDataset(demos, None)
    expected = []
    for demo in demos:
        for step in range(len(demo.observations["camera"])):
            observation = {
                name: torch.from_numpy(values[step : step + 1]) for name, values in demo.observations.items()
            }
            expected.append(stacked.push(expected[-1], observation) if step else stacked.start(observation))
    rows = torch.arange(len(dataset))
    assert torch.equal(stacked.recorded(dataset, rows), torch.cat(expected))
    assert torch.equal(stacked.recorded_vectors(dataset, rows), torch.cat(expected)[:, :2])


def test_stacks_that_could_be_taken_for_something_else_are_refused():
    with pytest.raises(ValueError, match=r"^frame_stack: expected less for images of 9 x 30"):
        FrameStacker({"camera": (9, 30, 3)}, frames=3)


def test_no_shift_is_no_change():
    generator = torch.Generator().manual_seed(0)
    frames = images(3)
    assert torch.equal(random_shift(frames, 0, generator), frames)
    vectors = torch.randn(3, 4)
    assert torch.equal(shifted(FlatLayout(4), vectors, generator), vectors)


@pytest.mark.parametrize(("side", "shift"), [(84, 4), (64, 3), (16, 1), (8, 0)])
def test_small_images_are_shifted_less(side, shift):
    assert largest_shift(side, side + 5) == shift


def test_a_shift_moves_the_same_pixels():
    frames = images(200, (10, 12, 6))
    moved = random_shift(frames, 2, torch.Generator().manual_seed(0))
    padded = (
        torch.nn.functional.pad(frames.movedim(-1, 1).float(), (2, 2, 2, 2), mode="replicate").movedim(1, -1).byte()
    )
    found = set()
    for index in range(len(frames)):
        crops = {
            (y, x): padded[index, y : y + 10, x : x + 12] for y in range(5) for x in range(5)
        }  # all channels by the same crop
        own = [move for move, crop in crops.items() if torch.equal(crop, moved[index])]
        assert own
        found.add(own[0])
    assert len(found) == 25


def test_vectors_do_not_move():
    layout = FlatLayout(2, [(16, 16, 3)])
    rows = layout.join(torch.randn(50, 2), [images(50, (16, 16, 3))])
    moved = shifted(layout, rows, torch.Generator().manual_seed(0))
    assert torch.equal(moved[:, :2], rows[:, :2])
    assert not torch.equal(moved, rows)
