"""Images of trajectories, read when they are sampled: from memory, or from a mapped file."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from aime_gym.types import Array

#: Buffers that one call may fill: Linux's IOV_MAX.
_MOST_BUFFERS = 1024
#: Bytes that one call may read; Linux stops at twice as much.
_MOST_BYTES = 2**30


class LazyImages:
    """Images of trajectories, one row each, to be indexed as a tensor (N, H, W, C) would be.

    Nothing is copied before it is asked for. Arrays in memory stay the trajectories' own. Of arrays in a file that is
    mapped read-only ([`load_trajectories`][] maps what [`save_minari`][] wrote) rows
    are read into their place by the system, which caches what it has room for. Touching them through the mapping would
    be slower, and every page that was ever touched would count as this process's memory.

    :param arrays: uint8 (T+1, H, W, C) of each trajectory.
    :param device: device that rows are sent to.
    :raises ValueError: other dtypes, or images of several shapes.
    """

    def __init__(self, arrays: Sequence[Array], device: torch.device | str = "cpu") -> None:
        kinds = sorted({(str(array.dtype), array.shape[1:]) for array in arrays})
        if len(kinds) != 1 or kinds[0][0] != "uint8" or len(kinds[0][1]) != 3:
            raise ValueError(f"arrays: expected uint8 images (T+1, H, W, C) of one shape, got {kinds}")
        self._arrays = list(arrays)
        self._ends = np.cumsum([len(array) for array in arrays])
        self._starts = self._ends - [len(array) for array in arrays]
        self.device = torch.device(device)
        #: (N, H, W, C).
        self.shape = torch.Size((int(self._ends[-1]), *kinds[0][1]))
        self._places = self._open_files()

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __reduce__(self) -> tuple[Any, ...]:
        """Open the files anew in copies; what is pickled or copied deeply takes the images into memory."""
        return LazyImages, (self._arrays, self.device)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the images (..., H, W, C), uint8 on the device, at rows (...), int64.

        Rows that follow each other along the first axis, as those of sequences (T, B) do, are read at once.

        :raises IndexError: a row that is not there. They do not count from the end.
        :raises OSError: a file that was cut since it was mapped.
        """
        if rows.ndim == 0:
            return self[rows[None]][0]
        # From pinned memory, the copy to a GPU runs beside what is done next.
        gathered = torch.empty((*rows.shape, *self.shape[1:]), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        if rows.numel():
            columns = rows[:, None].flatten(1)
            self._gather(columns.cpu().numpy(), gathered.view(*columns.shape, *self.shape[1:]).numpy())
        return gathered.to(self.device, non_blocking=True)

    def _gather(self, rows: Array, out: Array) -> None:
        """Copy rows (T, B) to ``out`` (T, B, H, W, C), run by run."""
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"rows: expected 0 to {len(self) - 1}, got {rows.min()} to {rows.max()}")
        episodes = np.searchsorted(self._ends, rows, side="right")
        begins = np.ones(rows.shape, dtype=bool)
        begins[1:] = (np.diff(rows, axis=0) != 1) | (np.diff(episodes, axis=0) != 0)
        columns, firsts = np.nonzero(begins.T)
        # A run ends where the next one of its column begins, or with the column.
        ends = np.append(firsts[1:], len(rows))
        ends[ends <= firsts] = len(rows)
        episodes = episodes[firsts, columns]
        offsets = rows[firsts, columns] - self._starts[episodes]
        bytes_out = out.reshape(-1).data
        for episode, offset, count, column, first in zip(
            *(part.tolist() for part in (episodes, offsets, ends - firsts, columns, firsts)), strict=True
        ):
            if (place := self._places[episode]) is None:
                out[first : first + count, column] = self._arrays[episode][offset : offset + count]
                continue
            file, start, size = place
            begin, step = (first * out.shape[1] + column) * size, out.shape[1] * size
            buffers = [bytes_out[at : at + size] for at in range(begin, begin + count * step, step)]
            _read(file, start + offset * size, buffers)

    def _open_files(self) -> list[_Place | None]:
        """Find where each array lies in a file; ``None`` if it lies in memory, or can be read by its mapping only."""
        if not hasattr(os, "preadv"):
            return [None] * len(self._arrays)
        mappings = [_mapping_of(array) for array in self._arrays]
        files: dict[str, io.FileIO] = {}
        for name in {str(mapping.filename) for mapping in mappings if mapping is not None}:
            with contextlib.suppress(OSError):  # it has no name any more
                files[name] = io.FileIO(name)
                weakref.finalize(self, files[name].close)
        places = [
            None if mapping is None else _Place.of(array, mapping, files.get(str(mapping.filename)))
            for array, mapping in zip(self._arrays, mappings, strict=True)
        ]
        if hasattr(mmap, "MADV_DONTNEED"):  # gives back what was touched here, or by whoever looked at the data before
            for mapped in {id(mapping.base): mapping.base for mapping in mappings if mapping is not None}.values():
                cast(mmap.mmap, mapped).madvise(mmap.MADV_DONTNEED)
        return places


class _Place(NamedTuple):
    """Place of images in a file: the first one's byte, and the bytes of each."""

    file: io.FileIO
    start: int
    size: int

    @classmethod
    def of(cls, array: Array, mapping: np.memmap, file: io.FileIO | None) -> _Place | None:
        """Return the place; ``None`` if the file is gone, or another one has its name by now."""
        if file is None:
            return None
        start = mapping.offset + array.ctypes.data - mapping.ctypes.data
        found = os.pread(file.fileno(), array[0].nbytes, start)
        return cls(file, start, array[0].nbytes) if found == array[0].tobytes() else None


def _mapping_of(array: Array) -> np.memmap | None:
    """Return the read-only mapping that an array is a part of; one that can be written to may differ from its file."""
    whole: Any = array
    while isinstance(whole, np.ndarray) and not isinstance(whole.base, mmap.mmap):
        whole = whole.base
    is_file = isinstance(whole, np.memmap) and whole.mode == "r" and array.flags.c_contiguous
    return whole if is_file else None


def _read(file: io.FileIO, start: int, buffers: list[memoryview]) -> None:
    """Fill buffers of one size with what follows a byte of a file."""
    at_once = max(1, min(_MOST_BUFFERS, _MOST_BYTES // len(buffers[0])))
    for first in range(0, len(buffers), at_once):
        part = buffers[first : first + at_once]
        expected = len(part) * len(part[0])
        if os.preadv(file.fileno(), part, start + first * len(part[0])) != expected:
            raise OSError(
                f"{file.name}: expected {expected} bytes at {start}, but the file was cut since it was mapped"
            )
