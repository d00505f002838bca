"""Arrays in ``.npy``, ``.npz`` and HDF5 files, which are not trusted.

A file is read by itself alone, and takes no more memory than it can hold: HDF5's links, external storage and virtual
data sets, which read other files, are refused, and sizes are compared with the file's before anything is allocated.
Compressed arrays may be large beside their file, but not without bound.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeAlias

import h5py
import numpy as np

from aime_gym.data.paths import require_file
from aime_gym.types import Array

#: Suffixes of files with several arrays by name.
ARRAYS_SUFFIXES = (".npz", ".hdf5")
#: Bytes that the arrays of any file may take, and bytes for each byte of a file. What real data compresses to more is
#: smaller than the first number.
_SPARE, _FACTOR = 2**26, 100
#: Errors that the libraries raise for damaged files.
_DAMAGED = (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class Budget:
    """Bytes that may still be allocated for what is read from a file.

    :param path: the file.
    """

    def __init__(self, path: Path) -> None:
        require_file(path)
        self.path, self.size = path, path.stat().st_size
        self.left = _SPARE + _FACTOR * self.size

    def take(self, count: int, at_once: int = 0) -> None:
        """Count bytes that are allocated, for good.

        :param at_once: further bytes that are allocated for a while.
        :raises ValueError: more than are left.
        """
        self.left -= count
        if self.left < at_once:
            raise ValueError(
                f"{self.path}: expected arrays that fit into their file, or compressed to no less than a {_FACTOR}th, "
                f"got at least {at_once - self.left} bytes more than {self.size} can hold"
            )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which file it is that is damaged."""
    try:
        yield
    except _DAMAGED as error:
        raise ValueError(
            f"{path}: expected a readable {path.suffix} file, but it is corrupted or holds objects ({error})"
        ) from error


#: Functions that read arrays, by the arrays' names.
ArrayReaders: TypeAlias = Mapping[str, Callable[[], Array]]


@contextmanager
def open_arrays(path: Path) -> Iterator[ArrayReaders]:
    """Open the arrays of an ``.npz`` or HDF5 file, each of which its function reads; HDF5's groups are passed over.

    :raises ValueError: a damaged file, arrays that are too large, or none. The message names the file.
    """
    if path.suffix.lower() == ".npz":
        budget = Budget(path)
        with _naming(path):
            archive = zipfile.ZipFile(path)
        with archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            yield {name.removesuffix(".npy"): partial(_read_member, archive, name, budget) for name in members}
        return
    with open_hdf5(path) as file:
        names = [name for name in file.file if isinstance(file.find(file.file, name), h5py.Dataset)]
        if not names:
            raise ValueError(
                f"{path}: expected arrays with one record per observation, one trajectory per file, got the groups "
                f"{', '.join(sorted(file.file)) or 'of an empty file'}"
            )
        yield {name: partial(file.read, file.file, name) for name in names}


def read_npy(path: Path) -> Array:
    """Read an array.

    :raises ValueError: a damaged file, or one of objects. The message names the file.
    """
    size = Budget(path).size
    with _naming(path), path.open("rb") as file:
        return _read_array(file, size)


def _read_member(archive: zipfile.ZipFile, name: str, budget: Budget) -> Array:
    size = archive.getinfo(name).file_size
    budget.take(size)
    with _naming(budget.path), archive.open(name) as file:
        return _read_array(file, size)


def _read_array(file: IO[bytes], size: int) -> Array:
    """Read an array, no larger than ``size`` bytes by its header: NumPy allocates first, and reads then."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(version, np.lib.format.read_array_header_2_0)
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("expected numbers, got objects")
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"expected at most {size} bytes, got an array of the shape {shape}")
    file.seek(0)
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
            if found.is_virtual or found.external:
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
        kind = "a group" if isinstance(found, h5py.Group) else found.dtype
        if kind == "a group" or found.dtype.kind not in "biuf":
            raise ValueError(f"{self.path}: expected an array of numbers at {found.name}, got {kind}")
        return found

    def read(self, parent: h5py.Group, name: str) -> Array:
        """Read an array of numbers in a group.

        :raises ValueError: something else, or more than the file can hold.
        """
        found = self.array(parent, name)
        # A chunk is read whole, however few of its numbers are asked for.
        chunk = math.prod(found.chunks) * found.dtype.itemsize if found.chunks is not None else 0
        self.budget.take(found.nbytes, at_once=chunk)
        with _naming(self.path):
            return np.asarray(found[()])


@contextmanager
def open_hdf5(path: Path) -> Iterator[Hdf5Arrays]:
    """Open an HDF5 file.

    :raises ValueError: a damaged file. The message names it.
    """
    budget = Budget(path)
    with _naming(path):
        file: Any = h5py.File(path, "r")
    with file:
        yield Hdf5Arrays(file, budget)
