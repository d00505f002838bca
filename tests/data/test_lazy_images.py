"""Images give the same batches wherever they lie, and are copied by nobody before."""

import copy
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from gymnasium import spaces

from aime_gym.data import (
    ActionEncoding,
    SequenceSampler,
    TrajectoryDataset,
    check_trajectories,
    load_trajectories,
    save_minari,
)
from aime_gym.data.lazy_images import LazyImages
from aime_gym.types import Trajectory, sensors

IMAGE = spaces.Box(0, 255, (32, 40, 3), np.uint8)
STATE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
SPACES = {"image": IMAGE, "sensors": spaces.Dict({"image": IMAGE, "state": STATE}), "images": spaces.Dict({"a": IMAGE})}
LENGTHS = (12, 1, 30, 5)


def make_trajectories(kind, lengths=LENGTHS):
    rng = np.random.default_rng(0)

    def one(length):
        image = rng.integers(0, 256, (length + 1, *IMAGE.shape), dtype=np.uint8)
        state = rng.normal(size=(length + 1, 3)).astype(np.float32)
        observations = {"image": image, "sensors": {"image": image, "state": state}, "images": {"a": image}}[kind]
        return Trajectory(observations, rng.uniform(-1, 1, (length, 2)).astype(np.float32), np.ones(length, np.float32))

    return [one(length) for length in lengths]


def images(trajectories):
    return [next(v for v in sensors(t.observations).values() if v.dtype == np.uint8) for t in trajectories]


def mapping_of(array):
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return array


@pytest.fixture
def saved(tmp_path):
    trajectories = make_trajectories("image")
    return trajectories, save_minari(tmp_path / "play", trajectories, (IMAGE, BOX))


ROWS = {
    "batches": torch.arange(10)[:, None] + torch.tensor([0, 3, 5, 40, 20]),  # some run from one trajectory to the next
    "ends": torch.minimum(torch.arange(10)[:, None] + torch.tensor([9, 40]), torch.tensor([12, 45])),
    "random": torch.randint(52, (200,), generator=torch.Generator().manual_seed(0)),
    "windows": torch.randint(52, (20, 3, 2), generator=torch.Generator().manual_seed(0)),
    "all": torch.arange(52),
    "backwards": torch.arange(52).flip(0),
    "one": torch.tensor(14),
    "none": torch.zeros(0, 3, dtype=torch.int64),
}


@pytest.mark.parametrize("rows", ROWS)
def test_rows_are_those_of_a_concatenation(saved, rows):
    trajectories, folder = saved
    in_memory = LazyImages(images(trajectories), "cpu")
    mapped = LazyImages(images(load_trajectories(folder)), "cpu")
    plain = torch.from_numpy(np.concatenate(images(trajectories)))
    assert len(in_memory) == len(mapped) == len(plain) == 52
    assert in_memory.shape == mapped.shape == plain.shape
    for frames in (in_memory, mapped):
        assert frames[ROWS[rows]].dtype == torch.uint8
        assert torch.equal(frames[ROWS[rows]], plain[ROWS[rows]])


@pytest.mark.parametrize("row", [-1, 52])
def test_a_row_that_is_not_there(row):
    with pytest.raises(IndexError, match="rows: expected 0 to 51, got"):
        LazyImages(images(make_trajectories("image")))[torch.tensor([3, row])]


@pytest.mark.parametrize(
    "arrays",
    [
        [np.zeros((3, 8, 8, 3), np.float32)],
        [np.zeros((3, 8, 8), np.uint8)],
        [np.zeros((3, 8, 8, 3), np.uint8), np.zeros((3, 8, 9, 3), np.uint8)],
        [],
    ],
)
def test_what_is_no_series_of_images(arrays):
    with pytest.raises(ValueError, match=r"^arrays: expected uint8 images \(T\+1, H, W, C\) of one shape, got"):
        LazyImages(arrays)


def test_a_run_of_more_rows_than_one_call_reads(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (2500, 2, 2, 1), dtype=np.uint8)
    np.save(tmp_path / "frames.npy", array)
    mapped = np.load(tmp_path / "frames.npy", mmap_mode="r")
    rows = torch.arange(2400)[:, None] + torch.tensor([0, 50])
    assert torch.equal(LazyImages([mapped])[rows], torch.from_numpy(array)[rows])


@pytest.mark.parametrize("kind", SPACES)
def test_saved_images_are_mapped_and_the_same(tmp_path, kind):
    trajectories = make_trajectories(kind)
    folder = save_minari(tmp_path / "play", trajectories, (SPACES[kind], BOX))
    loaded = load_trajectories(folder)
    arrays = images(loaded)
    mappings = {id(mapping_of(array).base) for array in arrays}
    assert len(mappings) == 1  # of the whole file
    assert Path(mapping_of(arrays[0]).filename) == folder / "data" / "main_data.hdf5"
    for ours, theirs in zip(trajectories, loaded, strict=True):
        for name, values in sensors(ours.observations).items():
            assert np.array_equal(values, sensors(theirs.observations)[name])
        assert np.array_equal(ours.actions, theirs.actions)
    with pytest.raises(ValueError, match="read-only"):
        arrays[0][0] = 0


def test_sequences_of_images_and_vectors(tmp_path):
    trajectories = make_trajectories("sensors")
    loaded = load_trajectories(save_minari(tmp_path / "play", trajectories, (SPACES["sensors"], BOX)))
    datasets = [TrajectoryDataset(data, ActionEncoding(BOX)) for data in (trajectories, loaded)]
    # Too long for most of the trajectories: they repeat their last image.
    batches = [
        SequenceSampler(dataset, sequence_length=20, batch_size=16, generator=torch.Generator().manual_seed(0)).sample()
        for dataset in datasets
    ]
    plain = torch.from_numpy(np.concatenate(images(trajectories)))
    for dataset, batch in zip(datasets, batches, strict=True):
        assert isinstance(dataset.observations["image"], LazyImages)
        assert not batch.valid.all()
        assert torch.equal(batch.rows, batches[0].rows)
        assert torch.equal(batch.observations["image"], plain[batch.rows])
        assert batch.observations["state"].dtype == torch.float32
        assert torch.equal(batch.observations["state"], dataset.observations["state"][batch.rows])
        assert torch.equal(batch.prev_actions, batches[0].prev_actions)


def test_nothing_is_copied_on_the_way_to_a_dataset(saved):
    trajectories, folder = saved
    for data in (trajectories, load_trajectories(folder)):
        checked = check_trajectories(
            data, argument="play", observation_space=IMAGE, action_space=BOX, need_actions=True
        )
        frames = TrajectoryDataset(checked, None).observations["observation"]
        for array, original in zip(frames._arrays, images(data), strict=True):
            assert np.shares_memory(array, original)


def resident_bytes(array):
    """Of the mapping that an array is a part of: how much this process has touched."""
    name = str(mapping_of(array).filename)
    blocks = Path("/proc/self/smaps").read_text().split("VmFlags")
    lines = next(block for block in blocks if name in block).splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux")
def test_mapped_images_take_no_memory(tmp_path):
    trajectories = make_trajectories("image", lengths=[800] * 4)
    data = load_trajectories(save_minari(tmp_path / "play", trajectories, (IMAGE, BOX)))
    size = sum(array.nbytes for array in images(data))
    checked = check_trajectories(data, argument="play", observation_space=IMAGE, action_space=BOX, need_actions=True)
    assert resident_bytes(images(data)[0]) < size / 10  # checks look at no image
    assert sum(int(array.sum()) for array in images(data))  # as a checkpoint's checksum does
    assert resident_bytes(images(data)[0]) > size / 2
    frames = TrajectoryDataset(checked, None).observations["observation"]
    frames[torch.arange(len(frames))]
    assert resident_bytes(images(data)[0]) < size / 10


def test_images_of_others_are_read_into_memory(tmp_path):
    trajectories = make_trajectories("image")
    folder = save_minari(tmp_path / "play", trajectories, (IMAGE, BOX))
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for index, options in enumerate(
            ({"compression": "gzip"}, {"chunks": True}, {"maxshape": (None, *IMAGE.shape)})
        ):
            values = file[f"episode_{index}/observations"][()]
            del file[f"episode_{index}/observations"]
            file.create_dataset(f"episode_{index}/observations", data=values, **options)
    loaded = images(load_trajectories(folder, check_digests=False))
    assert [isinstance(mapping_of(array), np.memmap) for array in loaded] == [False, False, False, True]
    frames, plain = LazyImages(loaded), torch.from_numpy(np.concatenate(images(trajectories)))
    assert torch.equal(frames[ROWS["batches"]], plain[ROWS["batches"]])


def test_a_file_that_changed_its_name_or_was_removed(saved):
    trajectories, folder = saved
    arrays = images(load_trajectories(folder))
    path = folder / "data" / "main_data.hdf5"
    before = LazyImages(arrays)
    path.rename(folder / "elsewhere")
    gone = LazyImages(arrays)
    path.write_bytes(bytes(20_000_000))
    replaced = LazyImages(arrays)
    plain = torch.from_numpy(np.concatenate(images(trajectories)))
    for frames in (before, gone, replaced):
        assert torch.equal(frames[ROWS["batches"]], plain[ROWS["batches"]])


def test_a_file_that_was_cut(saved):
    _, folder = saved
    frames = LazyImages(images(load_trajectories(folder)))
    path = folder / "data" / "main_data.hdf5"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(OSError, match=r"main_data\.hdf5: .*was cut since it was mapped"):
        frames[ROWS["all"]]


def test_what_may_differ_from_its_file_is_read_from_memory(tmp_path):
    array = make_trajectories("image", [9])[0].observations
    np.save(tmp_path / "frames.npy", array)
    private = np.load(tmp_path / "frames.npy", mmap_mode="c")
    private[3] = 7
    flipped = np.load(tmp_path / "frames.npy", mmap_mode="r")[::-1]
    assert (LazyImages([private])[torch.tensor([3])] == 7).all()
    assert torch.equal(LazyImages([flipped])[torch.arange(10)], torch.from_numpy(array).flip(0))


@pytest.mark.parametrize("copied_by", [copy.copy, copy.deepcopy])
def test_a_copy_has_files_of_its_own(saved, copied_by):
    trajectories, folder = saved
    frames = LazyImages(images(load_trajectories(folder)))
    copied = copied_by(frames)
    del frames
    plain = torch.from_numpy(np.concatenate(images(trajectories)))
    assert torch.equal(copied[ROWS["batches"]], plain[ROWS["batches"]])


def test_saving_needs_one_episode_at_a_time(tmp_path):
    made, alive = [], []

    class Made(Trajectory):
        def __del__(self):
            alive.remove(id(self))

    class Lazy(list):
        """Makes each trajectory as it is asked for."""

        def __iter__(self):
            for index in range(len(LENGTHS)):
                plain = make_trajectories("sensors")[index]
                trajectory = Made(plain.observations, plain.actions, plain.rewards)
                alive.append(id(trajectory))
                made.append(len(alive))
                yield trajectory
                del trajectory

    folder = save_minari(tmp_path / "play", Lazy([None] * len(LENGTHS)), (SPACES["sensors"], BOX))
    assert max(made) <= 2
    for ours, theirs in zip(images(make_trajectories("sensors")), images(load_trajectories(folder)), strict=True):
        assert np.array_equal(ours, theirs)
