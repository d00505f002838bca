import numpy as np
import pytest
import torch

from aime_gym.serialization import read_archive, write_archive
from aime_gym.training.checkpoint import snapshot
from aime_gym.training.replay import EpisodeReplayBuffer
from aime_gym.types import Trajectory, sensors

DTYPES = ("float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")


def episode(dtype="float32", actions="float32", steps=4, **changes):
    """A few steps of noise."""
    values = np.random.default_rng(steps).normal(size=(steps + 1, 3)) * 10
    given = {
        "observations": values.astype(dtype),
        "actions": None if actions is None else values[:-1, :2].astype(actions),
        "rewards": values[:-1, 0].astype(np.float32),
        "truncated": True,
    }
    return Trajectory(**given | changes)


def arrays(trajectory):
    named = sensors(trajectory.observations) | {"actions": trajectory.actions, "rewards": trajectory.rewards}
    return {name: values for name, values in named.items() if values is not None}


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert (one.terminated, one.truncated) == (other.terminated, other.truncated)
        assert isinstance(one.observations, dict) == isinstance(other.observations, dict)
        assert list(arrays(one)) == list(arrays(other))
        for name, values in arrays(one).items():
            assert values.dtype == arrays(other)[name].dtype
            np.testing.assert_array_equal(values, arrays(other)[name])


@pytest.mark.parametrize(
    "trajectories",
    [
        [],
        *([episode(dtype)] for dtype in DTYPES),
        [episode(actions=np.float64), episode(actions=np.int64, steps=7), episode(terminated=True, truncated=False)],
        [episode(actions=None), episode(rewards=None)],
        [episode(observations={"b": np.zeros((5, 2), np.float32), "a": np.zeros((5, 4, 4, 3), np.uint8)})],
        [episode(observations={"alone": np.zeros((5, 2))})],
        [episode(observations=np.asfortranarray(np.arange(10.0).reshape(5, 2)))],
        [episode(observations=np.broadcast_to(np.float32(1), (5, 2)))],  # read-only
    ],
)
def test_a_file_keeps_it(trajectories, tmp_path):
    replay, loaded = EpisodeReplayBuffer(), EpisodeReplayBuffer()
    loaded.add([episode(steps=9)])
    for trajectory in trajectories:
        replay.add([trajectory])
    write_archive(tmp_path / "file", replay.state_dict())
    loaded.load_state_dict(read_archive(tmp_path / "file"))
    assert_same(loaded.trajectories, trajectories)
    for one in (replay, loaded):
        one.add([episode(steps=2)])
    write_archive(tmp_path / "again", loaded.state_dict())
    loaded.load_state_dict(read_archive(tmp_path / "again"))
    assert_same(loaded.trajectories, replay.trajectories)


def test_a_state_stays_as_it_was():
    replay = EpisodeReplayBuffer()
    replay.add([episode()])
    taken, kept = replay.state_dict(), snapshot(replay.state_dict())
    replay.add([episode(steps=6)])
    for state in (taken, kept):
        replay.load_state_dict(state)
        assert_same(replay.trajectories, [episode()])


def test_states_and_snapshots_share_the_memory():
    replay = EpisodeReplayBuffer()
    replay.add([episode()])
    (trajectory,) = replay.trajectories
    for state in (replay.state_dict(), snapshot(replay.state_dict())):
        (document,) = state["trajectories"]
        assert np.shares_memory(document["observations"].numpy(), trajectory.observations)


def test_a_snapshot_copies_what_is_not_frozen():
    weights = torch.zeros(2)
    kept = snapshot({"weights": [weights]})
    weights += 1
    assert torch.equal(kept["weights"][0], torch.zeros(2))


def test_the_same_trajectory_twice(tmp_path):
    replay = EpisodeReplayBuffer()
    replay.add([episode()])
    replay.add(replay.trajectories)
    write_archive(tmp_path / "file", {"start": snapshot(replay.state_dict()), "now": replay.state_dict()})
    assert_same(replay.trajectories, [episode(), episode()])
