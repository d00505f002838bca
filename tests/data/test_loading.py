"""Arrays, other libraries' trajectories and AIME folders become the same trajectories."""

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import pytest

from aime_gym import make_env
from aime_gym.data import check_trajectories, collect, load_trajectories
from aime_gym.types import Trajectory


def episode(seed, steps=4):
    rng = np.random.default_rng(seed)
    return {
        "orientations": rng.normal(size=(steps + 1, 4)).astype(np.float32),
        "height": rng.normal(size=steps + 1).astype(np.float32),
        "velocity": rng.normal(size=(steps + 1, 2)).astype(np.float32),
        "image": rng.integers(0, 256, size=(steps + 1, 3, 3, 3), dtype=np.uint8),
        "pre_action": np.concatenate([np.zeros((1, 2)), rng.uniform(-1, 1, (steps, 2))]).astype(np.float32),
        "reward": np.concatenate([[0], rng.normal(size=steps)]).astype(np.float32),
        "is_first": np.arange(steps + 1) == 0,
        "is_last": np.arange(steps + 1) == steps,
        "is_terminal": np.zeros(steps + 1, bool),
    }


def write_hdf5(path, arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values


WRITERS = {".npz": lambda path, arrays: np.savez(path, **arrays), ".hdf5": write_hdf5}


@pytest.fixture(params=WRITERS)
def folder(request, tmp_path):
    for index in range(12):
        WRITERS[request.param](tmp_path / f"{index}{request.param}", episode(index))
    (tmp_path / "notes.txt").write_text("not a trajectory")
    return tmp_path


def test_aime_folder(folder):
    trajectories = load_trajectories(folder)
    assert len(trajectories) == 12
    for index, trajectory in enumerate(trajectories):  # numerical order: 2 before 10
        stored = episode(index)
        assert set(trajectory.observations) == {"orientations", "height", "velocity", "image"}
        np.testing.assert_array_equal(trajectory.observations["height"], stored["height"][:, None])
        np.testing.assert_array_equal(trajectory.observations["image"], stored["image"])
        assert trajectory.observations["image"].dtype == np.uint8
        np.testing.assert_array_equal(trajectory.prev_actions, stored["pre_action"])
        np.testing.assert_array_equal(trajectory.rewards, stored["reward"][1:])
        assert trajectory.truncated
        assert not trajectory.terminated


def test_sensors_are_joined_in_the_order_asked_for(folder):
    trajectory = load_trajectories(folder, sensors=["height", "orientations"])[0]
    stored = episode(0)
    np.testing.assert_array_equal(
        trajectory.observations, np.concatenate([stored["height"][:, None], stored["orientations"]], axis=1)
    )
    (image, *_) = load_trajectories(str(folder), sensors="image")
    np.testing.assert_array_equal(image.observations, stored["image"])
    (apart, *_) = load_trajectories(folder, sensors=["image", "height"], flatten=False)
    assert list(apart.observations) == ["image", "height"]


def test_aime_walker_data_fits_the_position_environment(tmp_path):
    """The authors' walker files, one array per sensor and a scalar height, against our flat observation."""
    names = ["orientations", "height", "velocity"]
    apart, flat = make_env("walker-walk", flatten=False), make_env("walker-walk", modality="position")
    (episode,) = collect(apart, "play", 1, seed=0, progress=False)
    (expected,) = collect(flat, "play", 1, seed=0, progress=False)
    stored = {name: episode.observations[name] for name in names}
    np.savez(
        tmp_path / "0.npz",
        **stored | {"height": stored["height"][:, 0]},
        pre_action=episode.prev_actions,
        reward=np.concatenate([[0], episode.rewards]),
    )
    (loaded,) = check_trajectories(
        load_trajectories(tmp_path, sensors=["orientations", "height"]),
        argument="play",
        observation_space=flat.observation_space,
        action_space=flat.action_space,
        need_actions=True,
    )
    np.testing.assert_array_equal(loaded.observations, expected.observations)
    np.testing.assert_array_equal(loaded.actions, expected.actions)


def test_wrong_sensors(folder):
    with pytest.raises(ValueError, match=r"0\.(npz|hdf5): expected sensors out of .*height.*, got \['heigth'\]"):
        load_trajectories(folder, sensors=["orientations", "heigth"])
    with pytest.raises(ValueError, match="'image' has shape"):
        load_trajectories(folder, sensors=["height", "image"])
    with pytest.raises(ValueError, match=r"demos\[0\]: expected observations with one array per sensor"):
        load_trajectories(np.zeros((2, 5, 3)), sensors=["height"], argument="demos")


@pytest.mark.parametrize("suffix", WRITERS)
def test_actions_left_out_are_not_read(tmp_path, suffix):
    arrays = episode(0)
    del arrays["pre_action"]
    WRITERS[suffix](tmp_path / f"0{suffix}", arrays)
    (trajectory,) = load_trajectories(tmp_path, actions=False)
    assert trajectory.actions is None
    with pytest.raises(ValueError, match="'pre_action'"):
        load_trajectories(tmp_path)


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("damage", ["empty", "noise", "cut"])
def test_corrupted_file_is_named(tmp_path, suffix, damage):
    path = tmp_path / f"7{suffix}"
    WRITERS[suffix](path, episode(0))
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "noise": b"noise" * 100, "cut": content[: len(content) // 2]}[damage])
    with pytest.raises(ValueError, match=f"7{suffix}: expected a readable"):
        load_trajectories(tmp_path)


def test_flipped_byte_inside_an_archive(tmp_path):
    path = tmp_path / "0.npz"
    np.savez_compressed(path, **episode(0))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"0\.npz: expected a readable"):
        load_trajectories(tmp_path)


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "0.npz", **episode(0), extra=np.array([{"any": "object"}] * 5, dtype=object))
    with pytest.raises(ValueError, match=r"0\.npz: .*holds objects"):
        load_trajectories(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_first": np.array([1, 0, 1, 0, 0])}, "one trajectory per file"),
        ({"height": np.zeros(3)}, "sensors of equal length"),
        ({"reward": np.zeros(9)}, "rewards: expected 4 entries"),
        ({"height": np.float32(3)}, "got a scalar"),
    ],
)
def test_file_that_makes_no_sense(tmp_path, change, message):
    np.savez(tmp_path / "0.npz", **(episode(0) | change))
    with pytest.raises(ValueError, match=message) as error:
        load_trajectories(tmp_path)
    assert str(tmp_path / "0.npz") in str(error.value)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"demos: nothing is stored at .*nowhere"):
        load_trajectories(tmp_path / "nowhere", argument="demos")
    with pytest.raises(FileNotFoundError, match="found none in"):
        load_trajectories(tmp_path)
    with pytest.raises(FileNotFoundError, match="no local Minari dataset"):
        load_trajectories("nobody/ever-made-this-v0")
    (tmp_path / "video.txt").write_text("")
    with pytest.raises(ValueError, match="a file ending in"):
        load_trajectories(tmp_path / "video.txt")


def test_trajectories_pass_through():
    trajectory = Trajectory(np.zeros((3, 2)), np.ones((2, 1)))
    assert load_trajectories(trajectory) == [trajectory]
    assert load_trajectories((trajectory, trajectory)) == [trajectory, trajectory]
    assert load_trajectories([trajectory], actions=False)[0].actions is None
    assert load_trajectories([]) == []


def test_arrays():
    stacked = np.arange(2 * 4 * 3.0).reshape(2, 4, 3)
    np.testing.assert_array_equal(load_trajectories(stacked)[1].observations, stacked[1])
    ragged = [np.zeros((4, 3)), np.zeros((6, 3))]
    assert [len(trajectory) for trajectory in load_trajectories(ragged)] == [3, 5]
    with pytest.raises(ValueError, match=r"\(episodes, T\+1, ...\), got shape \(4, 3\)"):
        load_trajectories(stacked[0])
    with pytest.raises(ValueError, match=r"demos\[1\]: .*at least 2 observations, got 1"):
        load_trajectories([np.zeros((4, 3)), np.zeros((1, 3))], argument="demos")


def test_dict_of_stacked_arrays():
    source = {
        "observations": {"a": np.zeros((2, 4, 3)), "b": np.ones((2, 4, 1))},
        "actions": np.ones((2, 3, 2)),
        "rewards": np.ones((2, 3)),
        "terminated": np.array([True, False]),
    }
    first, second = load_trajectories(source)
    assert first.terminated
    assert not second.terminated
    assert first.actions.shape == (3, 2)
    assert first.rewards.shape == (3,)
    (joined, _) = load_trajectories(source, sensors=["b", "a"])
    assert joined.observations.shape == (4, 4)
    assert joined.observations[0, 0] == 1
    with pytest.raises(ValueError, match="as many episodes"):
        load_trajectories(source | {"rewards": np.ones((3, 3))})
    with pytest.raises(ValueError, match="got the keys"):
        load_trajectories(source | {"acts": 1})
    with pytest.raises(ValueError, match=r"play\[0\]: Trajectory.actions: expected 3 entries"):
        load_trajectories(source | {"actions": np.ones((2, 4, 2))}, argument="play")


@dataclass
class ImitationTrajectory:
    """The fields of the `imitation` library's TrajectoryWithRew."""

    obs: Any
    acts: np.ndarray
    infos: Any
    terminal: bool
    rews: np.ndarray


def test_imitation_library():
    ends = {  # by what the data says: done, and the last info
        (True, None): (False, False),
        (True, None, None): (False, False),
        (True, False): (True, False),
        (True, True): (False, True),
        (False, None): (False, False),
        (False, False): (False, False),
    }
    source = []
    for done, *cut in ends:
        infos = None if len(cut) > 1 else [{}, {}, {} if cut[0] is None else {"TimeLimit.truncated": cut[0]}]
        source.append(ImitationTrajectory(np.zeros((4, 2)), np.ones((3, 1)), infos, done, np.ones(3)))
    found = [(trajectory.terminated, trajectory.truncated) for trajectory in load_trajectories(source)]
    assert found == list(ends.values())
    assert load_trajectories(source)[0].episode_return == 3


def test_sensors_of_the_imitation_library():
    class DictObs:
        def unwrap(self):
            return {"a": np.zeros((4, 2)), "b": np.ones((4, 1))}

    source = [ImitationTrajectory(DictObs(), np.ones((3, 1)), None, True, np.ones(3))]
    (trajectory,) = load_trajectories(source, sensors=["b", "a"])
    np.testing.assert_array_equal(trajectory.observations[0], [1, 0, 0])


@pytest.mark.parametrize("source", [3, ["a", 1], [np.zeros((3, 2)), Trajectory(np.zeros((3, 2)))], None])
def test_another_kind_of_source(source):
    with pytest.raises(ValueError, match="play: expected trajectories, arrays, a Minari dataset, or a path, got"):
        load_trajectories(source, argument="play")


def test_sensors_of_drawn_images():
    drawn = Trajectory({"image": np.zeros((3, 4, 4, 3), np.uint8), "x": np.zeros((3, 2))}, rendering="fast")
    assert load_trajectories(drawn, sensors="image")[0].rendering == "fast"


# Dicts of arrays, in memory and in files

EPISODES = {
    "observations": np.arange(24, dtype=np.float32).reshape(2, 4, 3),
    "actions": np.ones((2, 3, 2), np.float32),
    "terminated": np.array([True, False]),
}
FLAT = {
    "observations": np.arange(24, dtype=np.float32).reshape(8, 3),
    "actions": np.arange(16, dtype=np.float32).reshape(8, 2),
    "rewards": np.arange(8.0),
    "terminals": np.arange(8) == 2,
    "timeouts": np.arange(8) == 6,
}


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_files_of_stacked_arrays(tmp_path, suffix):
    WRITERS[suffix](tmp_path / f"demos{suffix}", EPISODES)
    for actions in (True, False):
        loaded = load_trajectories(tmp_path / f"demos{suffix}", actions=actions)
        for one, other in zip(loaded, load_trajectories(EPISODES, actions=actions), strict=True):
            np.testing.assert_array_equal(one.observations, other.observations)
            assert (one.actions is None, one.terminated) == (not actions, other.terminated)


@pytest.mark.parametrize(
    ("values", "shapes"),
    [
        (np.zeros((5, 3)), [(5, 3)]),
        (np.zeros((2, 5, 3)), [(5, 3)] * 2),
        (np.zeros((5, 8, 8, 3), np.uint8), [(5, 8, 8, 3)]),
        (np.zeros((2, 5, 8, 8, 3), np.uint8), [(5, 8, 8, 3)] * 2),
    ],
)
def test_npy_files_of_observations(tmp_path, values, shapes):
    np.save(tmp_path / "demos.npy", values)
    assert [one.observations.shape for one in load_trajectories(tmp_path / "demos.npy")] == shapes


def test_lists_of_dicts():
    fields = [{name: values[index] for name, values in EPISODES.items()} for index in range(2)]
    assert [one.terminated for one in load_trajectories(fields)] == [True, False]
    (one,) = load_trajectories([{"position": np.zeros((4, 2)), "image": np.zeros((4, 8, 8, 3), np.uint8)}])
    assert one.observations.keys() == {"position", "image"}
    with pytest.raises(ValueError, match=r"demos\[1\]: expected a dict with 'observations' .*got the keys .*'obs'"):
        load_trajectories([fields[0], fields[1] | {"obs": 3}], argument="demos")


def test_transitions_that_lie_end_to_end():
    known = {**FLAT, "next_observations": FLAT["observations"] + 3}
    for source, lengths in ((known, (3, 4, 1)), (FLAT, (2, 3))):
        loaded = load_trajectories(source)
        assert tuple(map(len, loaded)) == lengths
        for one in loaded:  # row t is an observation and the action that was taken there
            np.testing.assert_array_equal(one.observations[:-1, 0] * 2 / 3, one.actions[:, 0])
            np.testing.assert_array_equal(one.rewards * 3, one.observations[:-1, 0])
    # Nobody saw the end of an episode without its last observation.
    assert [one.terminated for one in load_trajectories(known)] == [True, False, False]
    assert [one.terminated for one in load_trajectories(FLAT)] == [False, False]
    assert [one.truncated for one in load_trajectories(FLAT)] == [False, True]


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ({name: FLAT[name] for name in ("observations", "actions", "rewards")}, "rewards"),
        (EPISODES | {"terminated": True}, "terminated"),
        (EPISODES | {"terminated": np.zeros((2, 3), bool)}, "terminated"),
        (EPISODES | {"truncated": ["no", "yes"]}, "truncated"),
        (EPISODES | {"actions": 0}, "actions"),
        (FLAT | {"terminals": np.zeros(3, bool)}, "terminals"),
        (FLAT | {"observations": np.zeros(8)}, "observations"),
    ],
)
def test_arrays_that_are_no_episodes_are_named(source, named):
    with pytest.raises(ValueError, match=rf"^demos.*{named}"):
        load_trajectories(source, argument="demos")
