import io
import multiprocessing
import time
import zipfile

import numpy as np
import pytest
import torch

from aime_gym.serialization import FORMAT, atomically, digest, exclusively, new_folder, read_archive, write_archive

DOCUMENT = {
    "number": 0.1 + 0.2,
    "limits": [float("inf"), -1, None, True],
    "nested": {"weights": [torch.arange(3.0), {"step": torch.tensor(4)}], "name": "x"},
    "empty": torch.zeros(0, 2),
}


def assert_equal(one, other):
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_equal(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


@pytest.mark.parametrize("name", ["file", "file.zip", "new/folder/file"])
def test_what_was_written_is_read(tmp_path, name):
    write_archive(tmp_path / name, DOCUMENT)
    read = read_archive(str(tmp_path / name))
    read.pop("format")
    assert_equal(DOCUMENT, read)
    assert not list(tmp_path.glob("**/.*"))


def test_a_tensor_in_two_places_is_written_once(tmp_path):
    tensor = torch.arange(1000.0)
    for name, second in (("one", tensor), ("other", tensor.clone())):
        write_archive(tmp_path / name, {"first": tensor, "second": {"again": second}})
    one, other = (read_archive(tmp_path / name) for name in ("one", "other"))
    assert_equal(one, other)
    sizes = [(tmp_path / name).stat().st_size for name in ("one.zip", "other.zip")]
    assert sizes[0] < 0.6 * sizes[1]


def test_a_binary_file_will_do():
    file = io.BytesIO()
    write_archive(file, DOCUMENT)
    assert_equal(DOCUMENT["nested"], read_archive(file)["nested"])


def test_numbers_of_numpy_are_json_values(tmp_path):
    write_archive(tmp_path / "file", {"number": np.float32(0.5), "count": np.int64(3)})
    read = read_archive(tmp_path / "file")
    assert (read["number"], read["count"]) == (0.5, 3)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_archive(tmp_path / "file", {"value": 1})
    with pytest.raises(TypeError, match="expected str keys in 'bad'"):
        write_archive(tmp_path / "file", {"bad": {3: 1}})
    assert read_archive(tmp_path / "file")["value"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file.zip"]


def test_every_cut_is_an_error(tmp_path):
    write_archive(tmp_path / "file", DOCUMENT)
    content = (tmp_path / "file.zip").read_bytes()
    for end in range(0, len(content), 7):
        (tmp_path / "torn.zip").write_bytes(content[:end])
        with pytest.raises(ValueError, match="path: expected an agent's file, got .*torn.zip"):
            read_archive(tmp_path / "torn")


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path):
    write_archive(tmp_path / "file", DOCUMENT)
    content = bytearray((tmp_path / "file.zip").read_bytes())
    for position in range(len(content)):
        damaged = content.copy()
        damaged[position] ^= 0xFF
        try:
            read = read_archive(io.BytesIO(damaged))
        except ValueError:
            continue
        read.pop("format")
        assert_equal(DOCUMENT, read)


def test_a_missing_reference_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "file.zip", "w") as archive:
        archive.writestr("document.json", f'{{"format": {FORMAT}, "weights": {{"$tensor": "elsewhere"}}}}')
        archive.writestr("tensors.safetensors", b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError, match="expected a checkpoint, got .*elsewhere"):
        read_archive(tmp_path / "file", what="a checkpoint")


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected an agent's file, found none"):
        read_archive(tmp_path / "file")


def test_flipped_bits_are_noticed_or_harmless(tmp_path):
    write_archive(tmp_path / "file", DOCUMENT)
    content = (tmp_path / "file.zip").read_bytes()
    for place in np.random.default_rng(0).integers(0, 8 * len(content), 100):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << int(place % 8)
        (tmp_path / "flipped.zip").write_bytes(damaged)
        try:
            read = read_archive(tmp_path / "flipped")
        except ValueError as error:
            assert str(error).startswith("path: expected an agent's file")  # noqa: PT017
            continue
        read.pop("format")
        assert_equal(DOCUMENT, read)


# Several writers, and writers that died


def write_half(write, path, started):
    with write(path) as target:
        (target / "half").write_bytes(b"half") if write is new_folder else target.write(b"half")
        started.set()
        time.sleep(60)


@pytest.fixture
def writer(request, tmp_path):
    """A process that is about to write, in a file or a folder, until it is killed."""
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=write_half, args=(request.param, tmp_path / "target", started))
    process.start()
    assert started.wait(30)
    yield process
    process.kill()
    process.join()


@pytest.mark.parametrize("writer", [atomically], indirect=True)
def test_files_of_several_writers(writer, tmp_path):
    target = tmp_path / "target"
    (first,) = tmp_path.iterdir()
    with atomically(target) as file:
        file.write(b"whole")
        assert len(list(tmp_path.iterdir())) == 2
    assert sorted(tmp_path.iterdir()) == sorted([first, target])  # a living process's is left alone
    assert target.read_bytes() == b"whole"
    writer.kill()
    writer.join()
    (tmp_path / ".target.backup").write_bytes(b"of the user")
    with atomically(target) as file:
        file.write(b"again")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".target.backup", "target"]


@pytest.mark.parametrize("writer", [new_folder], indirect=True)
def test_a_folder_has_one_writer_at_a_time(writer, tmp_path):
    target = tmp_path / "target"
    with pytest.raises(FileExistsError, match="another process writes .*target"), new_folder(target):
        pytest.fail("two writers")
    writer.kill()
    writer.join()
    with new_folder(target) as folder:
        (folder / "whole").write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert [path.name for path in target.iterdir()] == ["whole"]
    with pytest.raises(FileExistsError, match="exists already"), new_folder(target):
        pytest.fail("written over")


def test_two_processes_that_make_one_folder(tmp_path):
    path = tmp_path / "folder"

    def make():
        with new_folder(path) as mine:
            (mine / "mine").touch()
            path.mkdir()
            (path / "theirs").touch()

    with pytest.raises(FileExistsError, match="folder exists already: another process made it"):
        make()
    assert list(tmp_path.rglob("*")) == [path, path / "theirs"]


def test_a_lock_ends_with_its_block(tmp_path):
    for _ in range(2):
        with (
            exclusively(tmp_path / "runs" / "phase"),
            pytest.raises(FileExistsError),
            exclusively(tmp_path / "runs" / "phase"),
        ):
            pytest.fail("two at once")
    assert not list((tmp_path / "runs").iterdir())


# Digests


def test_a_digest_tells_contents_apart():
    parts = ["a", np.arange(3), np.arange(3.0), torch.arange(3), torch.zeros(2, 3), torch.zeros(3, 2), np.zeros(())]
    digests = {digest([part]) for part in parts}
    assert len(digests) == len(parts) - 1  # an array and a tensor of the same numbers are one
    assert digest(parts) == digest(iter(parts)) != digest(parts[::-1])
    assert len(digest(parts, size=8)) == 16
