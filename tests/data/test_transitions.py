"""Transitions end to end: what goes in comes out, and every episode ends."""

import numpy as np
import pytest

from aime_gym.data import load_trajectories, save_transitions
from aime_gym.types import Trajectory


def episode(steps, seed, **fields):
    random = np.random.default_rng(seed)
    return Trajectory(random.random((steps + 1, 2), np.float32), random.random((steps, 1), np.float32), **fields)


@pytest.mark.parametrize("rewards", [True, False])
def test_round_trip(rewards, tmp_path):
    written = [
        episode(3, 0, rewards=np.arange(3.0) if rewards else None, terminated=True),
        episode(5, 1, rewards=np.arange(5.0), truncated=True),
        episode(1, 2, rewards=np.arange(1.0)),
    ]
    path = save_transitions(tmp_path / "new" / "data", written)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["observations"].shape == arrays["next_observations"].shape == (9, 2)
        assert np.flatnonzero(arrays["terminals"]).tolist() == [2]
        assert np.flatnonzero(arrays["timeouts"]).tolist() == [7, 8]
        assert ("rewards" in arrays) == rewards
    for one, other in zip(written, load_trajectories(path), strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
        assert other.terminated == one.terminated
        assert other.truncated != other.terminated


@pytest.mark.parametrize(
    ("name", "trajectories", "message"),
    [
        ("a.npz", [], "^trajectories: expected at least one, got none"),
        ("a.npz", [episode(2, 0).without_actions()], r"^trajectories\[0\].actions: expected one action"),
        (
            "a.npz",
            [Trajectory({"a": np.zeros((2, 1))}, np.zeros((1, 1)))],
            "expected one array, got one for each sensor",
        ),
        ("a.hdf5", [episode(2, 0)], "^path: expected a file that ends in .npz, got .*a.hdf5"),
    ],
)
def test_what_cannot_be_written_is_named(name, trajectories, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_transitions(tmp_path / name, trajectories)
    assert list(tmp_path.iterdir()) == []
