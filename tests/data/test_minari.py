"""What goes into a Minari dataset comes out of it bit by bit, and Minari's own tools agree."""

import itertools
import json
import multiprocessing
import re
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from full_disk import full_disk
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from aime_gym import make_env
from aime_gym.data import collect, load_trajectories, save_minari
from aime_gym.types import Trajectory, sensors

BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
STATE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
# From 32 x 32 on, Minari takes a Box of bytes for images.
IMAGE = spaces.Box(0, 255, (32, 32, 3), np.uint8)
SPACES = {
    "state": (STATE, BOX),
    "discrete": (STATE, spaces.Discrete(3, start=1)),
    "float64": (
        spaces.Box(-np.inf, np.inf, (3,), np.float64),
        spaces.Box(-1.0, 1.0, (2,), np.float64),
    ),
    "image": (IMAGE, BOX),
    "sensors": (spaces.Dict({"image": IMAGE, "state": STATE}), BOX),
}


def draw(space, count, rng):
    if isinstance(space, spaces.Dict):
        return {name: draw(entry, count, rng) for name, entry in space.items()}
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.start, space.start + space.n, size=count)
    if space.dtype == np.uint8:
        return rng.integers(0, 256, size=(count, *space.shape), dtype=np.uint8)
    return rng.uniform(-1, 1, size=(count, *space.shape)).astype(space.dtype)


def make_trajectories(observation_space, action_space, count=3):
    rng = np.random.default_rng(0)
    return [
        Trajectory(
            observations=draw(observation_space, steps + 1, rng),
            actions=draw(action_space, steps, rng),
            rewards=rng.normal(size=steps).astype(np.float32),
            terminated=index == 0,
            truncated=index == 1,
        )
        for index, steps in enumerate(range(4, 4 + count))
    ]


def assert_same_array(left, right):
    assert left.dtype == right.dtype
    assert left.tobytes() == right.tobytes()
    assert left.shape == right.shape


def assert_same(left, right, *, actions=True):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert set(sensors(one.observations)) == set(sensors(other.observations))
        for name, values in sensors(one.observations).items():
            assert_same_array(values, sensors(other.observations)[name])
        if actions:
            assert_same_array(one.actions, other.actions)
        assert_same_array(one.rewards, other.rewards)
        assert (one.terminated, one.truncated) == (other.terminated, other.truncated)


@pytest.mark.parametrize("kind", SPACES)
def test_round_trip_is_exact(tmp_path, kind):
    trajectories = make_trajectories(*SPACES[kind])
    folder = save_minari(tmp_path / "play", trajectories, SPACES[kind])
    assert_same(trajectories, load_trajectories(folder))
    assert_same(trajectories, load_trajectories(folder / "data"))
    assert_same(trajectories, load_trajectories(minari.MinariDataset(folder / "data")))


@pytest.mark.parametrize("kind", SPACES)
def test_minari_reads_what_we_save(kind):
    trajectories = make_trajectories(*SPACES[kind])
    save_minari("lab/play-v0", trajectories, SPACES[kind])
    dataset = minari.load_dataset("lab/play-v0")
    assert "lab/play-v0" in minari.list_local_datasets()
    assert dataset.total_episodes == 3
    assert dataset.total_steps == sum(map(len, trajectories))
    size = (Path(dataset.storage.data_path) / "main_data.hdf5").stat().st_size
    assert dataset.storage.metadata["dataset_size"] == pytest.approx(size / 1e6, abs=0.1)
    assert (dataset.observation_space, dataset.action_space) == SPACES[kind]
    for episode, trajectory in zip(dataset.iterate_episodes(), trajectories, strict=True):
        for name, values in sensors(trajectory.observations).items():
            assert_same_array(sensors(episode.observations)[name], values)
        assert_same_array(episode.actions, trajectory.actions)
        assert_same_array(episode.rewards, trajectory.rewards)
    assert_same(trajectories, load_trajectories("lab/play-v0"))


def test_part_of_a_dataset(tmp_path):
    trajectories = make_trajectories(*SPACES["state"])
    folder = save_minari(tmp_path / "play", trajectories, SPACES["state"])
    part = minari.MinariDataset(folder / "data").filter_episodes(lambda episode: len(episode.rewards) != 5)
    assert_same([trajectories[0], trajectories[2]], load_trajectories(part))


@pytest.mark.parametrize("kind", ["state", "discrete"])
def test_observation_only(tmp_path, kind):
    trajectories = make_trajectories(*SPACES[kind])
    folder = save_minari(tmp_path / "demos", trajectories, SPACES[kind], actions=False)
    with h5py.File(folder / "data" / "main_data.hdf5", "r") as file:
        assert not np.any(file["episode_0/actions"][()])  # nothing to leak
    loaded = load_trajectories(folder)
    assert all(trajectory.actions is None for trajectory in loaded)
    assert_same(trajectories, loaded, actions=False)
    # Minari's own reader wants an array there, and finds one.
    assert len(minari.MinariDataset(folder / "data")[0].actions) == 4


@pytest.mark.parametrize("saved_with_actions", [True, False])
def test_actions_that_nobody_asked_for_are_never_read(tmp_path, saved_with_actions):
    trajectories = make_trajectories(*SPACES["state"])
    folder = save_minari(tmp_path / "demos", trajectories, SPACES["state"], actions=saved_with_actions)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for episode in file.values():
            del episode["actions"]
    with pytest.raises(KeyError):  # so that this test can fail
        next(minari.MinariDataset(folder / "data").iterate_episodes())
    loaded = load_trajectories(folder, actions=False, check_digests=False)
    assert all(trajectory.actions is None for trajectory in loaded)
    assert_same(trajectories, loaded, actions=False)


def test_trajectories_without_actions_or_rewards(tmp_path):
    bare = [Trajectory(trajectory.observations) for trajectory in make_trajectories(*SPACES["state"])]
    (first, *_) = load_trajectories(save_minari(tmp_path / "demos", bare, SPACES["state"]))
    assert first.actions is None
    assert first.rewards is None
    with pytest.raises(ValueError, match=re.escape("trajectories[0].actions")):
        save_minari(tmp_path / "play", bare, SPACES["state"], actions=True)
    assert not (tmp_path / "play").exists()


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_dataset_made_by_minari():
    """As `DataCollector` writes it: JPEG images, float64 rewards, no metadata of ours."""
    trajectories = make_trajectories(*SPACES["sensors"])
    minari.create_dataset_from_buffers(
        "their/play-v3",
        [
            EpisodeBuffer(
                observations=trajectory.observations,
                actions=list(trajectory.actions),
                rewards=[float(reward) for reward in trajectory.rewards],
                terminations=[False] * (len(trajectory) - 1) + [trajectory.terminated],
                truncations=[False] * (len(trajectory) - 1) + [trajectory.truncated],
                infos={},
            )
            for trajectory in trajectories
        ],
        observation_space=SPACES["sensors"][0],
        action_space=SPACES["sensors"][1],
    )
    with pytest.warns(UserWarning, match="their/play-v3.*JPEG"):
        loaded = load_trajectories("their/play-v3")
    for ours, theirs in zip(trajectories, loaded, strict=True):
        assert_same_array(ours.observations["state"], theirs.observations["state"])
        assert_same_array(ours.actions, theirs.actions)
        np.testing.assert_allclose(ours.rewards, theirs.rewards)
        assert theirs.observations["image"].dtype == np.uint8
        assert theirs.observations["image"].shape == ours.observations["image"].shape
        # Why ours are stored raw: theirs are not what the environment showed.
        assert np.any(theirs.observations["image"] != ours.observations["image"])
        assert (ours.terminated, ours.truncated) == (theirs.terminated, theirs.truncated)
    (state, *_) = load_trajectories("their/play-v3", sensors="state", actions=False)
    assert_same_array(state.observations, trajectories[0].observations["state"])


def test_environment_is_remembered(tmp_path):
    env = gym.make("Pendulum-v1")
    folder = save_minari(
        tmp_path / "play",
        collect(env, "random", 1, seed=0, progress=False),
        env,
        metadata={"by": "me", "score": np.float32(0.5)},
    )
    described = json.loads((folder / "data" / "metadata.json").read_text())
    assert described["aime_gym"].pop("digests").keys() == {"main_data.hdf5", "metadata.json"}
    assert described["aime_gym"] == {
        "env_id": "Pendulum-v1",
        "env_arguments": {},
        "by": "me",
        "score": 0.5,
        "actions": True,
        "rewards": True,
    }
    assert described["dataset_id"] == "play-v0"
    recovered = minari.MinariDataset(folder / "data").recover_environment()
    assert recovered.spec.id == "Pendulum-v1"


def test_our_environments_can_be_recovered(tmp_path):
    env = make_env("reach-v3", modality="position", max_episode_steps=6)
    trajectories = collect(env, "expert", 2, seed=0, progress=False)
    folder = save_minari(tmp_path / "demos", trajectories, env, actions=False)
    assert_same(trajectories, load_trajectories(folder), actions=False)
    dataset = minari.MinariDataset(folder / "data")
    ours = dataset.storage.metadata["aime_gym"]
    assert ours["env_id"] == "aime_gym/reach-v3-position-v0"
    assert ours["env_arguments"] == {"id": "reach-v3", "modality": "position", "max_episode_steps": 6}
    recovered = dataset.recover_environment()
    assert recovered.observation_space == env.observation_space
    np.testing.assert_array_equal(recovered.reset(seed=0)[0], trajectories[0].observations[0])


def test_existing_target_is_kept(tmp_path):
    trajectories = make_trajectories(*SPACES["state"])
    folder = save_minari(tmp_path / "play", trajectories, SPACES["state"])
    with pytest.raises(FileExistsError, match="play exists already"):
        save_minari(folder, trajectories[:1], SPACES["state"])
    assert len(load_trajectories(folder)) == 3


def test_interrupted_save_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("aime_gym.data.minari._write_array", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_minari(tmp_path / "lab" / "play", make_trajectories(*SPACES["state"]), SPACES["state"])
    assert list((tmp_path / "lab").iterdir()) == []


def test_trajectories_that_do_not_fit(tmp_path):
    trajectories = make_trajectories(*SPACES["state"])
    with pytest.raises(ValueError, match=re.escape("trajectories[0].observations: expected dtype uint8")):
        save_minari(tmp_path / "play", trajectories, SPACES["image"])
    space = spaces.Dict({"arm/position": STATE})
    with pytest.raises(ValueError, match="sensor names without '/'"):
        save_minari(tmp_path / "play", make_trajectories(space, BOX), (space, BOX))
    with pytest.raises(ValueError, match="empty dataset"):
        save_minari(tmp_path / "play", [], SPACES["state"])


@pytest.mark.parametrize("damage", ["no data", "cut data", "no metadata", "cut metadata", "no episode", "no spaces"])
def test_corrupted_dataset_is_named(tmp_path, damage):
    folder = save_minari(tmp_path / "play", make_trajectories(*SPACES["state"]), SPACES["state"])
    data, metadata = folder / "data" / "main_data.hdf5", folder / "data" / "metadata.json"
    if damage == "no data":
        data.unlink()
    elif damage == "cut data":
        data.write_bytes(data.read_bytes()[:1000])
    elif damage == "no metadata":
        metadata.unlink()
    elif damage == "cut metadata":
        metadata.write_text(metadata.read_text()[:50])
    elif damage == "no spaces":
        # Minari would make the environment that the file names instead, and so run code that the file chooses.
        described = json.loads(metadata.read_text())
        del described["observation_space"]
        described["env_spec"] = gym.spec("Pendulum-v1").to_json()
        metadata.write_text(json.dumps(described))
    else:
        with h5py.File(data, "a") as file:
            del file["episode_1"]
    error = FileNotFoundError if damage == "no metadata" else ValueError
    with pytest.raises(error, match=re.escape(str(folder))):
        load_trajectories(folder)


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_empty_dataset_of_minari():
    dataset = minari.create_dataset_from_buffers(
        "lab/empty-v0", [], observation_space=STATE, action_space=BOX, data_format="hdf5"
    )
    assert load_trajectories(dataset) == []


def test_name_without_version(tmp_path):
    folder = save_minari(Path(tmp_path / "my demos, take 2"), make_trajectories(*SPACES["state"]), SPACES["state"])
    assert minari.MinariDataset(folder / "data").id == "my_demos__take_2-v0"
    moved = tmp_path / "elsewhere"
    shutil.move(folder, moved)
    assert len(load_trajectories(str(moved))) == 3


@pytest.mark.parametrize("name", ["w/vec-v0", "my.lab/reach-v0", "lab/my reach-v0", "lab/-v0", "lab//reach-v1"])
def test_what_looks_like_an_id_but_is_none_to_minari_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    trajectories = make_trajectories(*SPACES["state"])
    with pytest.raises(ValueError, match=f"^target: expected a Minari id .* got '{name}'.*'./{name}'$"):
        save_minari(name, trajectories, SPACES["state"])
    with pytest.raises(ValueError, match=f"^play: expected a Minari id .* got '{name}'"):
        load_trajectories(name, argument="play")
    assert list(tmp_path.iterdir()) == []  # and nothing lands elsewhere
    for explicit in (f"./{name}", tmp_path / "elsewhere" / name):
        folder = save_minari(explicit, trajectories, SPACES["state"])
        assert_same(trajectories, load_trajectories(folder))
        assert_same(trajectories, load_trajectories(explicit))
    assert_same(trajectories, load_trajectories(name))  # now that it exists


def test_a_format_whose_library_is_missing(tmp_path, monkeypatch):
    folder = save_minari(tmp_path / "play", make_trajectories(*SPACES["state"]), SPACES["state"])
    metadata = folder / "data" / "metadata.json"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"data_format": "arrow"}))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "minari.dataset._storages.arrow_storage", raising=False)
    with pytest.raises(ImportError, match=rf"^{re.escape(str(folder))}: .*'arrow'.* pip install pyarrow$"):
        load_trajectories(folder)


def same_observations(one, other):
    return sensors(one.observations).keys() == sensors(other.observations).keys() and all(
        np.array_equal(values, sensors(other.observations)[name]) for name, values in sensors(one.observations).items()
    )


@pytest.mark.parametrize("jpeg", [True, False])
@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_images_that_lost_detail_are_named_once(jpeg):
    name = f"their/jpeg{int(jpeg)}-v0"
    space, actions = SPACES["sensors"]
    trajectories = make_trajectories(space, actions)
    buffers = [
        EpisodeBuffer(
            observations=trajectory.observations,
            actions=list(trajectory.actions),
            rewards=trajectory.rewards.tolist(),
            terminations=[False] * len(trajectory),
            truncations=[False] * (len(trajectory) - 1) + [True],
            infos={},
        )
        for trajectory in trajectories
    ]
    minari.create_dataset_from_buffers(name, buffers, observation_space=space, action_space=actions, jpeg_encoding=jpeg)
    for source in (name, minari.load_dataset(name)):
        for wanted, lossy in ((None, jpeg), ("image", jpeg), (["state"], False)):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                loaded = load_trajectories(source, sensors=wanted)
            messages = [str(entry.message) for entry in caught if "JPEG" in str(entry.message)]
            assert len(messages) == lossy
            if not lossy:
                expected = load_trajectories(trajectories, sensors=wanted)
                assert all(map(same_observations, expected, loaded))
            assert all(name in message and "jpeg_encoding=False" in message for message in messages)


# ---- how images were drawn ----


def test_rendering_is_remembered(tmp_path):
    env = make_env("HalfCheetah-v5", modality="pixels", image_size=16, max_episode_steps=2, quality="fast")
    recorded = collect(env, "random", 1, seed=0, progress=False)
    assert recorded[0].rendering == "fast"
    folder = save_minari(tmp_path / "cheetah", recorded, env)
    assert [trajectory.rendering for trajectory in load_trajectories(folder)] == ["fast"]
    assert minari.MinariDataset(folder / "data").storage.metadata["aime_gym"]["env_arguments"]["quality"] == "fast"
    with pytest.raises(ValueError, match=r"^trajectories\[0\].rendering: expected .*'fast'.*got .*'default'"):
        save_minari(tmp_path / "other", [replace(recorded[0], rendering="default")], env)
    spaces_only = (env.observation_space, env.action_space)
    folder = save_minari(tmp_path / "spaces", recorded, spaces_only)
    assert load_trajectories(folder)[0].rendering == "fast"
    both = [recorded[0], replace(recorded[0], rendering="default")]
    with pytest.raises(ValueError, match=r"one quality, got 'default' in trajectories\[1\], 'fast' in"):
        save_minari(tmp_path / "both", both, spaces_only)
    folder = save_minari(tmp_path / "unknown", [recorded[0], replace(recorded[0], rendering=None)], spaces_only)
    assert load_trajectories(folder)[0].rendering is None


def test_numbers_have_no_rendering(tmp_path):
    env = make_env("HalfCheetah-v5", render_mode="rgb_array", max_episode_steps=2)
    recorded = collect(env, "random", 1, seed=0, progress=False)
    folder = save_minari(tmp_path / "cheetah", recorded, env)
    assert recorded[0].rendering is load_trajectories(folder)[0].rendering is None
    assert "rendering" not in minari.MinariDataset(folder / "data").storage.metadata["aime_gym"]


# What is written is what is read, or an error


@pytest.mark.parametrize("kind", ["state", "sensors"])
def test_flipped_bits_are_found(tmp_path, kind):
    trajectories = make_trajectories(*SPACES[kind])
    folder = save_minari(tmp_path / "play", trajectories, SPACES[kind])
    rng = np.random.default_rng(0)
    for path in sorted((folder / "data").iterdir()):
        content = path.read_bytes()
        for place in rng.integers(0, 8 * len(content), 40):
            damaged = bytearray(content)
            damaged[place // 8] ^= 1 << int(place % 8)
            path.write_bytes(damaged)
            try:
                found = load_trajectories(folder)
            except ValueError as error:
                assert str(folder) in str(error)  # noqa: PT017
            else:
                assert_same(trajectories, found)
        path.write_bytes(content)
    assert_same(trajectories, load_trajectories(folder))


def test_digests_can_be_left_unread(tmp_path):
    folder = save_minari(tmp_path / "play", make_trajectories(*SPACES["image"]), SPACES["image"])
    path = folder / "data" / "main_data.hdf5"
    frame = load_trajectories(folder)[0].observations[2].tobytes()
    path.write_bytes(path.read_bytes().replace(frame, bytes(len(frame))))
    with pytest.raises(ValueError, match="main_data.hdf5 does not match its digest"):
        load_trajectories(folder)
    assert not load_trajectories(folder, check_digests=False)[0].observations[2].any()


def save_on_a_full_disk(path):
    with full_disk(30_000), pytest.raises(OSError, match="main_data.hdf5"):
        save_minari(path, make_trajectories(*SPACES["image"]), SPACES["image"])


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    # In a process of its own: a write that fails inside of HDF5 ends it.
    process = multiprocessing.get_context("fork").Process(target=save_on_a_full_disk, args=(tmp_path / "play",))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.b", "keys", "type", "pre_action", "ü", " "])
def test_sensors_of_any_name(tmp_path, name):
    space = spaces.Dict({name: STATE, "state": STATE})
    trajectories = make_trajectories(space, BOX)
    folder = save_minari(tmp_path / "play", trajectories, (space, BOX))
    assert_same(trajectories, load_trajectories(folder))
    assert minari.MinariDataset(folder / "data")[0].observations.keys() == space.keys()


def test_an_episode_without_steps_is_left_out(tmp_path):
    trajectories = make_trajectories(*SPACES["state"])
    folder = save_minari(tmp_path / "play", trajectories, SPACES["state"])
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for name, values in file["episode_1"].items():
            values.resize(1 if name == "observations" else 0, axis=0)
    with pytest.warns(UserWarning, match=r"left out 1 episodes without steps, \[1\]"):
        assert_same(trajectories[::2], load_trajectories(folder, check_digests=False))


def test_a_sensor_that_is_no_array_is_named(tmp_path):
    space = spaces.Dict({"state": STATE, "mission": spaces.Text(9), "nested": spaces.Dict({"state": STATE})})
    states = np.zeros((3, 3), np.float32)
    episode = EpisodeBuffer(
        observations={"state": states, "mission": ["go"] * 3, "nested": {"state": states}},
        actions=np.zeros((2, 2), np.float32),
        rewards=np.zeros(2),
        terminations=np.array([False, True]),
        truncations=np.array([False, False]),
    )
    minari.create_dataset_from_buffers("text/play-v0", [episode], observation_space=space, action_space=BOX)
    assert load_trajectories("text/play-v0", sensors="state")[0].observations.shape == (3, 3)
    for other in ("mission", "nested"):
        with pytest.raises(ValueError, match=f"play-v0: expected an array of numbers for every sensor.*'{other}'"):
            load_trajectories("text/play-v0", sensors=["state", other])


def test_two_processes_on_one_target(tmp_path):
    trajectories = make_trajectories(*SPACES["state"])

    class Slow(list):
        """A second writer comes while the first one writes."""

        def __iter__(self):
            for index, trajectory in enumerate(super().__iter__()):
                if index:
                    next(writers, None)
                yield trajectory

    def write_again():
        with pytest.raises(FileExistsError, match="another process"):
            save_minari(tmp_path / "play", trajectories[:1], SPACES["state"])
        yield

    writers = itertools.chain([None] * 2, write_again())  # after the checks
    save_minari(tmp_path / "play", Slow(trajectories), SPACES["state"])
    assert_same(trajectories, load_trajectories(tmp_path / "play"))
    assert [path.name for path in tmp_path.iterdir()] == ["play"]
