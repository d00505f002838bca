"""Random shifts: whole images move, by a little."""

import numpy as np
import pytest
import torch

from aime_gym.models.augmentation import augment, largest_shift, random_shift


def images(count, shape=(3, 9, 8), seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(256, size=(count, *shape), dtype=np.uint8))


def test_no_shift_is_no_change():
    generator = torch.Generator().manual_seed(0)
    frames = images(3)
    assert torch.equal(random_shift(frames, 0, generator), frames)


@pytest.mark.parametrize(("side", "shift"), [(84, 4), (64, 3), (16, 1), (8, 0)])
def test_small_images_are_shifted_less(side, shift):
    assert largest_shift(side, side + 5) == shift


def test_a_shift_moves_the_same_pixels():
    frames = images(200, (6, 10, 12))
    moved = random_shift(frames, 2, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(frames.float(), (2, 2, 2, 2), mode="replicate").byte()
    found = set()
    for index in range(len(frames)):
        crops = {
            (y, x): padded[index, :, y : y + 10, x : x + 12] for y in range(5) for x in range(5)
        }  # all channels by the same crop
        own = [move for move, crop in crops.items() if torch.equal(crop, moved[index])]
        assert own
        found.add(own[0])
    assert len(found) == 25


def test_vectors_do_not_move():
    vectors, frames = torch.randn(50, 2), images(50, (3, 16, 16))
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(augment(vectors, generator), vectors)
    assert not torch.equal(augment(frames, generator), frames)
