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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.overrides import TorchFunctionMode

FORMAT = 2
_DOCUMENT, _TENSORS = "document.json", "tensors.safetensors"
#: Stands in the JSON document where a tensor was, with its name in the safetensors file.
_REFERENCE = "$tensor"

Source: TypeAlias = str | os.PathLike[str] | IO[bytes]


# Digests


def digest(parts: Iterable[str | Tensor | npt.NDArray[Any]], size: int = 16) -> str:
    """Return a hexadecimal digest of texts and arrays: equal for equal contents, dtypes and shapes.

    :param size: bytes of the digest.
    """
    found = hashlib.blake2b(digest_size=size)
    for part in parts:
        if isinstance(part, str):
            found.update(part.encode())
            continue
        array = part.detach().cpu().numpy() if isinstance(part, Tensor) else part
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def file_digest(path: Path) -> str:
    """Return the digest of a file's bytes, as :func:`digest` makes it."""
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
    temporary, file = _new_temporary(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Write a folder in one piece or not at all: yields a folder beside it, which takes its name once it is complete.

    :raises FileExistsError: there is something of that name, or another process is writing it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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
    while True:
        with lock.open("wb") as file:
            if not _lock(file):
                raise FileExistsError(f"{argument}: expected one writer at a time, but another process writes {path}")
            if not _is_named(file, lock):
                continue  # removed by the one that held it, after it was opened here
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new_temporary(path: Path) -> tuple[Path, IO[bytes]]:
    """Make a file beside ``path``, locked for as long as it is open."""
    while True:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        file = temporary.open("xb")
        if _lock(file) and _is_named(file, temporary):
            return temporary, file
        file.close()  # taken for abandoned by somebody who looked before it was locked
        temporary.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files for ``path`` that no living process holds a lock on."""
    name = re.compile(rf"\.{re.escape(path.name)}\.\d+(\.[0-9a-f]{{8}})?")
    for entry in path.parent.iterdir():
        if name.fullmatch(entry.name) and entry.is_file() and not entry.is_symlink():
            with suppress(FileNotFoundError), entry.open("rb") as file:
                if _lock(file):
                    entry.unlink()


def _lock(file: IO[bytes]) -> bool:
    """Lock a file, and return whether that worked: not while somebody else has it locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_named(file: IO[bytes], path: Path) -> bool:
    """Return whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


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


def write_archive(target: Source, document: Mapping[str, Any]) -> None:
    """Write a nested document of JSON values and tensors, in one piece or not at all.

    :param target: a path, which gets the suffix ``.zip`` if it has none, or a binary file.
    """
    if not isinstance(target, str | os.PathLike):
        _write(target, document)
        return
    with atomically(_with_suffix(target)) as file:
        _write(file, document)


def _write(file: IO[bytes], document: Mapping[str, Any]) -> None:
    tensors = _Tensors()
    # NumPy's numbers are welcome as hyper-parameters.
    text = json.dumps(
        {"format": FORMAT, **_without_tensors(document, "", tensors)}, indent=1, default=lambda number: number.item()
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_DOCUMENT, text)
        archive.writestr(_TENSORS, encode_tensors(tensors.by_name))


class _Tensors:
    """Tensors of a document, named by where they were; one that was in several places is kept once."""

    def __init__(self) -> None:
        self.by_name: dict[str, Tensor] = {}
        self._names: dict[Hashable, str] = {}

    def name(self, tensor: Tensor, place: str) -> str:
        """Keep a tensor of the document, which outlives this object, and return its name."""
        memory = tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
        if memory not in self._names:
            self._names[memory] = place
            self.by_name[place] = tensor.detach().cpu().contiguous()
        return self._names[memory]


def _without_tensors(value: Any, name: str, tensors: _Tensors) -> Any:
    """Return a nested value as JSON; its tensors go to ``tensors``."""
    if isinstance(value, Tensor):
        return {_REFERENCE: tensors.name(value, name)}
    prefix = f"{name}/" if name else ""
    if isinstance(value, Mapping):
        if bad := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"document: expected str keys in {name!r}, got {bad[0]!r}")
        return {key: _without_tensors(part, f"{prefix}{key}", tensors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(part, f"{prefix}{index}", tensors) for index, part in enumerate(value)]
    return value


def read_archive(source: Source, *, what: str = "an agent's file") -> dict[str, Any]:
    """Read what :func:`write_archive` wrote; lists stand for tuples.

    :param what: what is expected there, for the errors.
    :raises FileNotFoundError: no such file.
    :raises ValueError: the file is damaged, of another format, or something else.
    """
    path = _with_suffix(source) if isinstance(source, str | os.PathLike) else source
    if isinstance(path, Path) and not path.is_file():
        raise FileNotFoundError(f"path: expected {what}, found none at {path}")
    # Opened first, so that a file which may not be read is not called damaged.
    file = path.open("rb") if isinstance(path, Path) else path
    try:
        found, document = _read(file)
    except (zipfile.BadZipFile, OSError, RuntimeError, KeyError, ValueError, OverflowError, EOFError) as error:
        # RuntimeError: encrypted, of an unknown compression, or nested without end. OSError: a place before the file.
        raise ValueError(f"path: expected {what}, got {path} ({type(error).__name__}: {error})") from error
    finally:
        if isinstance(path, Path):
            file.close()
    if found != FORMAT:
        raise ValueError(f"path: expected {what} of format {FORMAT}, got format {found} in {path}")
    return document


def _read(file: IO[bytes]) -> tuple[Any, dict[str, Any]]:
    """Return the format of an archive, and its document if the format is ours."""
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        document = json.loads(_member(archive, _DOCUMENT, size))
        found = document.get("format") if isinstance(document, dict) else None
        if found == FORMAT:
            document = _with_tensors(document, decode_tensors(_member(archive, _TENSORS, size))[0])
    return found, document


def _member(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    """Read a member that is stored as it is, in a file of ``size`` bytes."""
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise ValueError(f"expected {name} stored, got it compressed")
    if member.file_size > size:
        raise ValueError(f"expected {name} inside of {size} bytes, got {member.file_size}")
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
