"""Files of JSON and tensors, and how any file is written: in one piece or not at all.

An archive is a zip file of one JSON document and one safetensors file. Reading one runs no code, and allocates no more
than the file is large: whatever is compressed, or says that it is larger than the file, is refused.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.overrides import TorchFunctionMode

FORMAT = 5
_DOCUMENT, _TENSORS = "document.json", "tensors.safetensors"
#: Stands in the JSON document where a tensor was, with its name in the safetensors file.
_REFERENCE = "$tensor"

Source: TypeAlias = str | os.PathLike[str] | IO[bytes]


# Digests


def digest(parts: Iterable[str | Mapping[str, Any] | Tensor | npt.NDArray[Any]], size: int = 16) -> str:
    """Return a hexadecimal digest of texts, JSON documents and arrays: equal for equal contents, dtypes and shapes.

    :param size: bytes of the digest.
    """
    found = hashlib.blake2b(digest_size=size)
    for part in parts:
        if isinstance(part, str | Mapping):
            found.update((part if isinstance(part, str) else json.dumps(part, sort_keys=True)).encode())
            continue
        array = part.detach().cpu().numpy() if isinstance(part, Tensor) else part
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def file_digest(path: Path) -> str:
    """Return the digest of a file's bytes, as ``digest`` makes it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


# Writing in one piece


@contextmanager
def atomically(path: Path) -> Iterator[IO[bytes]]:
    """Write a file in one piece or not at all: it takes its name once it is complete, and on the disk.

    Every writer has a temporary file of its own. Those of processes that died are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    file = None
    while file is None:  # until nobody takes it for abandoned before it is locked
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        with suppress(BlockingIOError):
            file = _open_locked(temporary, "xb")
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, in one piece or not at all; see [`atomically`][]."""
    with atomically(path) as file:
        file.write(text.encode())


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Write a folder in one piece or not at all: yields a folder beside it, which takes its name once it is complete.

    :raises FileExistsError: there is something of that name, or another process is writing it.
    """
    with exclusively(path):
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists already: choose another name, or remove it first")
        # Nobody else is at it: whatever is there was left by a process that died.
        temporary = path.with_name(f".{path.name}.partial")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            for entry in (*temporary.rglob("*"), temporary):
                flush_to_disk(entry)
            if os.path.lexists(path):
                raise FileExistsError(f"{path} exists already: another process made it in the meantime")
            temporary.rename(path)
            flush_to_disk(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def exclusively(path: Path, argument: str = "target") -> Iterator[None]:
    """Keep every other process, and every other call, from writing ``path`` until this ends.

    The lock is the system's: it ends with the process that holds it, however that dies.

    :param argument: the name of the path for the user, which the error begins with.

    :raises FileExistsError: somebody else is writing it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    try:
        file = _open_locked(lock, "wb")
    except BlockingIOError:
        raise FileExistsError(f"{argument}: expected one writer at a time, but another process writes {path}") from None
    with file:
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files for ``path`` that no living process holds a lock on."""
    name = re.compile(rf"\.{re.escape(path.name)}\.\d+(\.[0-9a-f]{{8}})?")
    for entry in path.parent.iterdir():
        if name.fullmatch(entry.name) and entry.is_file() and not entry.is_symlink():
            with suppress(FileNotFoundError, BlockingIOError), _open_locked(entry, "r+b"):
                entry.unlink()


def _open_locked(path: Path, mode: str) -> IO[bytes]:
    """Open a file, locked for as long as it is open.

    :raises BlockingIOError: somebody else has it locked.
    """
    while True:
        file: IO[bytes] = path.open(mode)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # removed by whoever held the lock, after it was opened here


# Tensors


def encode_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the content of a safetensors file.

    :param metadata: texts that any reader of the format shows.
    """
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(on_cpu, None if metadata is None else dict(metadata))


def decode_tensors(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file's content.

    :raises ValueError: something else, or tensors that do not lie within the content one after the other.
    """
    try:
        tensors = safetensors.torch.load(content)
    except (SafetensorError, KeyError, TypeError) as error:  # a TypeError by a dtype that PyTorch does not have
        raise ValueError(f"{type(error).__name__}: {error}") from error
    header = int.from_bytes(content[:8], "little")  # the library has checked it
    return tensors, json.loads(content[8 : 8 + header]).get("__metadata__", {})


# Archives


def plain_number(value: Any) -> Any:
    """Return one of NumPy's numbers as Python's, which JSON knows.

    :raises TypeError: something else.
    """
    if not isinstance(value, np.generic):
        raise TypeError(f"{type(value).__name__} is no JSON value")
    return value.item()


def write_archive(target: Source, document: Mapping[str, Any]) -> None:
    """Write a nested document of JSON values and tensors, in one piece or not at all.

    :param target: a path, which gets the suffix ``.zip`` if it has none, or a binary file.
    """
    tensors: dict[Hashable, tuple[str, Tensor]] = {}
    stored = {"format": FORMAT, **_without_tensors(document, "", tensors)}
    text = json.dumps(stored, indent=1, default=plain_number)
    with atomically(_with_suffix(target)) if isinstance(target, str | os.PathLike) else nullcontext(target) as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(_DOCUMENT, text)
            archive.writestr(_TENSORS, encode_tensors(dict(tensors.values())))


def _without_tensors(value: Any, name: str, tensors: dict[Hashable, tuple[str, Tensor]]) -> Any:
    """Return a nested value as JSON.

    :param tensors: the tensors found, with the name of their place, by their memory: several places of one share it.
    """
    if isinstance(value, Tensor):
        memory = value.device, value.data_ptr(), value.dtype, value.shape, value.stride()
        return {_REFERENCE: tensors.setdefault(memory, (name, value))[0]}
    prefix = f"{name}/" if name else ""
    if isinstance(value, Mapping):
        if bad := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"document: expected str keys in {name!r}, got {bad[0]!r}")
        return {key: _without_tensors(part, f"{prefix}{key}", tensors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(part, f"{prefix}{index}", tensors) for index, part in enumerate(value)]
    return value


def read_archive(source: Source, *, what: str = "an agent's file") -> dict[str, Any]:
    """Read what ``write_archive`` wrote; lists stand for tuples.

    :param what: name of the kind of file that is expected, for the errors.
    :raises FileNotFoundError: no such file.
    :raises ValueError: the file is damaged, of another format, or something else.
    """
    path = _with_suffix(source) if isinstance(source, str | os.PathLike) else source
    if isinstance(path, Path) and not path.is_file():
        raise FileNotFoundError(f"path: expected {what}, found none at {path}")
    # Opened first, so that a file which may not be read is not called damaged.
    with path.open("rb") if isinstance(path, Path) else nullcontext(path) as file:
        try:
            size = file.seek(0, io.SEEK_END)
            with zipfile.ZipFile(file) as archive:
                document = json.loads(_member(archive, _DOCUMENT, size))
                found = document.get("format") if isinstance(document, dict) else None
                if found == FORMAT:
                    document = _with_tensors(document, decode_tensors(_member(archive, _TENSORS, size))[0])
        except (zipfile.BadZipFile, OSError, RuntimeError, KeyError, ValueError, OverflowError, EOFError) as error:
            # RuntimeError: encrypted, of an unknown compression, nested without end. OSError: a place before the file.
            raise ValueError(f"path: expected {what}, got {path} ({type(error).__name__}: {error})") from error
    if found != FORMAT:
        raise ValueError(f"path: expected {what} of format {FORMAT}, got format {found} in {path}")
    return dict(document)


def _member(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    """Read a member that is stored as it is, in a file of ``size`` bytes."""
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED or not member.compress_size == member.file_size <= size:
        raise ValueError(f"expected {name} stored in {size} bytes, got {member.compress_size} for {member.file_size}")
    return archive.read(member)


def _with_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_REFERENCE}:
            return tensors[value[_REFERENCE]]
        return {key: _with_tensors(part, tensors) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_tensors(part, tensors) for part in value]
    return value


def _with_suffix(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path if path.suffix else path.with_suffix(".zip")


class AllocationLimit(TorchFunctionMode):
    """Limit of what networks may allocate that are made for a file's weights.

    A file's configuration says how large its networks are, and a few bytes can ask for all memory. PyTorch's layers
    allocate first and fill later, and memory that nobody has touched is none yet: it is early enough to look then.

    :param weights: nested dicts of the file's tensors.
    """

    def __init__(self, weights: Mapping[str, Any]) -> None:
        super().__init__()
        self._left = 2**22 + 8 * _count(weights)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.empty, torch.zeros, torch.ones, torch.full, torch.eye):
            self._left -= result.numel()
            if self._left < 0:
                raise RuntimeError("its configuration asks for far larger networks than it has weights for")
        return result


def _count(weights: Any) -> int:
    """Count the numbers in nested dicts of tensors."""
    return weights.numel() if isinstance(weights, Tensor) else sum(map(_count, weights.values()))
