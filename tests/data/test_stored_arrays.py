"""Files of strangers: nothing but the file itself is read, and no more is allocated than it can hold."""

import os
import zipfile

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from aime_gym.data import load_trajectories, save_minari
from aime_gym.types import Trajectory

RECORDS = np.ones((5, 3), np.float32)
SPACES = spaces.Box(-9, 9, (3,), np.float32), spaces.Box(-1, 1, (2,), np.float32)


def in_hdf5(path, put):
    """An AIME file with one foreign sensor."""
    with h5py.File(path, "w") as file:
        file["pre_action"] = np.zeros((5, 2), np.float32)
        put(file, "x", path)
    return path


def in_minari(path, put):
    """A data set with foreign observations."""
    folder = save_minari(path.with_suffix(""), [Trajectory(RECORDS, np.zeros((4, 2), np.float32))], SPACES)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/observations"]
        put(file["episode_0"], "observations", path)
    return folder


def external_link(group, name, path):
    with h5py.File(path.with_name("secret.hdf5"), "w") as secret:
        secret["x"] = RECORDS
    group[name] = h5py.ExternalLink(str(path.with_name("secret.hdf5")), "x")


def soft_link(group, name, path):
    group["elsewhere"] = RECORDS
    group[name] = h5py.SoftLink(f"{group.name}/elsewhere")


def external_storage(group, name, path):
    path.with_name("secret").write_bytes(RECORDS.tobytes())
    group.create_dataset(name, (5, 3), "f4", external=[(str(path.with_name("secret")), 0, 60)])


def virtual(group, name, path):
    with h5py.File(path.with_name("secret.hdf5"), "w") as secret:
        secret["x"] = RECORDS
    layout = h5py.VirtualLayout((5, 3), "f4")
    layout[:] = h5py.VirtualSource(str(path.with_name("secret.hdf5")), "x", (5, 3))
    group.create_virtual_dataset(name, layout)


def unwritten(group, name, path):
    group.create_dataset(name, (5, 2**30), "f4", chunks=(1, 2**20))


def compressed(group, name, path):
    group.create_dataset(name, (5, 2**24), "f4", chunks=(1, 2**22), compression="gzip")
    group[name][0] = 0


def wide_chunks(group, name, path):
    group.create_dataset(name, (5, 3), "f4", chunks=(2**13, 2**16), maxshape=(None, None), compression="gzip")


@pytest.mark.parametrize("container", [in_hdf5, in_minari])
@pytest.mark.parametrize(
    "put", [external_link, soft_link, external_storage, virtual, unwritten, compressed, wide_chunks]
)
def test_hdf5_that_reads_other_files_or_takes_all_memory_is_refused(tmp_path, container, put):
    source = container(tmp_path / "demos.hdf5", put)
    with pytest.raises(ValueError, match="demos.*expected (.* in the file itself|arrays that fit)"):
        load_trajectories(source, actions=False, check_digests=False)


@pytest.mark.parametrize("name", ["0.npz", "0.hdf5", "0.npy", "data/main_data.hdf5"])
def test_pipes_are_not_opened(tmp_path, name):
    folder = save_minari(tmp_path / "demos", [Trajectory(RECORDS, np.zeros((4, 2), np.float32))], SPACES)
    if name.startswith("0"):
        (folder / "data" / "metadata.json").unlink()
    path = folder / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    for source in (folder, path):
        with pytest.raises((ValueError, FileNotFoundError), match="demos"):
            load_trajectories(source, actions=False)


def bomb(path, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive, archive.open("x.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (50, 2**20)})
        for _ in range(50):
            file.write(bytes(2**22))


def false_header(path):
    with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (5, 2**45)})
        file.write(bytes(100))


@pytest.mark.parametrize("write", [bomb, false_header])
def test_npz_that_takes_all_memory_is_refused(tmp_path, write):
    write(tmp_path / "demos.npz")
    with pytest.raises(ValueError, match=r"demos.npz: expected"):
        load_trajectories(tmp_path / "demos.npz", actions=False)


def test_npy_with_a_false_header_is_refused(tmp_path):
    with (tmp_path / "demos.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (5, 2**45)})
    with pytest.raises(ValueError, match=r"demos.npy: expected"):
        load_trajectories(tmp_path / "demos.npy")


def test_what_compresses_well_is_read(tmp_path):
    frames = np.zeros((50, 64, 64, 3), np.uint8)
    np.savez_compressed(tmp_path / "0.npz", image=frames)
    with h5py.File(tmp_path / "1.hdf5", "w") as file:
        file.create_dataset("image", data=frames, compression="gzip")
    assert [len(one) for one in load_trajectories(tmp_path, actions=False)] == [49, 49]


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    np.savez(tmp_path / "0.npz", x=RECORDS)
    (tmp_path / "._0.npz").write_bytes(b"of another system")
    (tmp_path / "1.npz").mkdir()
    assert len(load_trajectories(tmp_path, actions=False)) == 1
