"""Arrays in ``.npy``, ``.npz`` and HDF5 files, which are not trusted.

A file is read by itself alone, and takes no more memory than it can hold: HDF5's links, external storage and virtual
data sets, which read other files, are refused, and sizes are compared with the file's before anything is allocated.
Compressed arrays may be large beside their file, but not without bound.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from aime_gym.types import Array

#: Bytes that the arrays of any file may take, and bytes for each byte of a file. What real data compresses to more is
#: smaller than the first number.
_SPARE, _FACTOR = 2**26, 100


class Budget:
    """Bytes that may still be allocated for what is read from a file.

    :param path: the file.
    """

    def __init__(self, path: Path) -> None:
        require_file(path)
        self.path, self.size = path, path.stat().st_size
        self.left = _SPARE + _FACTOR * self.size

    def require(self, count: int) -> None:
        """Make sure that so many bytes may be allocated.

        :raises ValueError: more than are left.
        """
        if count > self.left:
            raise ValueError(
                f"{self.path}: expected arrays that fit into their file, or compressed to no less than a "
                f"{_FACTOR}th, got at least {count} bytes more than {self.size} can hold"
            )

    def take(self, count: int) -> None:
        """Count bytes that are allocated, for good.

        :raises ValueError: more than are left.
        """
        self.require(count)
        self.left -= count


def require_file(path: Path) -> None:
    """Make sure that a path is a file of its own: reading a pipe or a device may never end.

    :raises ValueError: something else.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected a file, got {'a folder' if path.is_dir() else 'none, or a device'}")


def corrupted(path: Path, error: Exception | str) -> ValueError:
    """Return the error for a file that is none of its kind."""
    return ValueError(f"{path}: expected a readable {path.suffix} file, but it is corrupted or holds objects ({error})")


def read_npy(path: Path) -> Array:
    """Read an array.

    :raises ValueError: a damaged file, or one of objects. The message names the file.
    """
    budget = Budget(path)
    try:
        with path.open("rb") as file:
            _check_header(file, budget.size)
            file.seek(0)
            return _read_array(file)
    except (OSError, EOFError, ValueError) as error:
        raise corrupted(path, error) from error


class NpzArrays(Mapping[str, Array]):
    """The arrays of an ``.npz`` file by name, each read when it is asked for."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, budget: Budget) -> None:
        self._path, self._archive, self._budget = path, archive, budget
        self._members = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}

    def __getitem__(self, name: str) -> Array:
        member = self._archive.getinfo(self._members[name])
        self._budget.take(member.file_size)
        try:
            with self._archive.open(member) as file:
                _check_header(file, member.file_size)
            with self._archive.open(member) as file:
                return _read_array(file)
        except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise corrupted(self._path, error) from error

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


@contextmanager
def open_npz(path: Path) -> Iterator[NpzArrays]:
    """Open an ``.npz`` file.

    :raises ValueError: a damaged file, or members that are too large. The message names the file.
    """
    budget = Budget(path)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise corrupted(path, error) from error
    with archive:
        yield NpzArrays(path, archive, budget)


def _check_header(file: IO[bytes], size: int) -> None:
    """Compare what the header of an array says with how large it is: NumPy allocates first, and reads then."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(version, np.lib.format.read_array_header_2_0)
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("expected numbers, got objects")
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"expected at most {size} bytes, got an array of the shape {shape}")


def _read_array(file: IO[bytes]) -> Array:
    values: Array = np.lib.format.read_array(file, allow_pickle=False)
    return values


class Hdf5Arrays:
    """The groups and arrays of an HDF5 file that are in the file itself.

    :param file: open for reading.
    """

    def __init__(self, file: h5py.File, budget: Budget) -> None:
        self.file, self.path, self.budget = file, budget.path, budget

    def find(self, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
        """Return a member of a group.

        :raises ValueError: none of that name, or one that is kept elsewhere.
        """
        place = f"{group.name.rstrip('/')}/{name}"
        link = None if "/" in name or name in ("", ".") else group.get(name, getlink=True)
        if link is None:
            raise ValueError(f"{self.path}: expected {place}, found {sorted(group)[:20]}")
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{self.path}: expected {place} in the file itself, got a link to something else")
        found = group[name]
        if isinstance(found, h5py.Dataset):
            properties = found.id.get_create_plist()
            if found.is_virtual or properties.get_external_count():
                raise ValueError(f"{self.path}: expected {place} in the file itself, got one kept in other files")
        elif not isinstance(found, h5py.Group):
            raise ValueError(f"{self.path}: expected an array or a group at {place}, got a type")
        return found

    def group(self, parent: h5py.Group, name: str) -> h5py.Group:
        """Return a group in a group.

        :raises ValueError: something else.
        """
        found = self.find(parent, name)
        if not isinstance(found, h5py.Group):
            raise ValueError(f"{self.path}: expected a group at {found.name}, got an array")
        return found

    def array(self, parent: h5py.Group, name: str) -> h5py.Dataset:
        """Return an array of numbers in a group, unread.

        :raises ValueError: something else.
        """
        found = self.find(parent, name)
        if not isinstance(found, h5py.Dataset):
            raise ValueError(f"{self.path}: expected an array at {found.name}, got a group")
        if found.dtype.kind not in "biuf":
            raise ValueError(f"{self.path}: expected numbers at {found.name}, got {found.dtype}")
        return found

    def read(self, parent: h5py.Group, name: str) -> Array:
        """Read an array of numbers in a group.

        :raises ValueError: something else, or more than the file can hold.
        """
        found = self.array(parent, name)
        self.budget.take(found.nbytes)
        if found.chunks is not None:  # read whole, however few of its numbers are asked for
            self.budget.require(math.prod(found.chunks) * found.dtype.itemsize)
        try:
            values: Array = found[()]
        except (OSError, ValueError) as error:
            raise corrupted(self.path, error) from error
        return np.asarray(values)


@contextmanager
def open_hdf5(path: Path) -> Iterator[Hdf5Arrays]:
    """Open an HDF5 file.

    :raises ValueError: a damaged file. The message names it.
    """
    budget = Budget(path)
    try:
        file: Any = h5py.File(path, "r")
    except (OSError, ValueError) as error:
        raise corrupted(path, error) from error
    with file:
        yield Hdf5Arrays(file, budget)
