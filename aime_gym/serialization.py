"""A file of JSON and tensors: a zip archive with one document and one safetensors file. Reading it runs no code."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

FORMAT = 2
_DOCUMENT, _TENSORS = "document.json", "tensors.safetensors"
#: Stands in the JSON document where a tensor was, with its name in the safetensors file.
_REFERENCE = "$tensor"

Source: TypeAlias = str | os.PathLike[str] | IO[bytes]


def write_archive(target: Source, document: Mapping[str, Any]) -> None:
    """Write a nested document of JSON values and tensors, in one piece or not at all.

    :param target: a path, which gets the suffix ``.zip`` if it has none, or a binary file.
    """
    if not isinstance(target, str | os.PathLike):
        _write(target, document)
        return
    with atomically(_with_suffix(target)) as file:
        _write(file, document)


@contextmanager
def atomically(path: Path) -> Iterator[IO[bytes]]:
    """Write a file in one piece or not at all: it takes its name once it is complete, and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
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

    :raises FileExistsError: there is something of that name, now or at the end.
    """
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists already: choose another name, or remove it first")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for entry in (*temporary.rglob("*"), temporary):
            flush_to_disk(entry)
        try:
            temporary.rename(path)
        except OSError as error:
            if not os.path.lexists(path):
                raise
            raise FileExistsError(f"{path} exists already: another process made it in the meantime") from error
        flush_to_disk(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(file: IO[bytes], document: Mapping[str, Any]) -> None:
    tensors = _Tensors()
    # NumPy's numbers are welcome as hyper-parameters.
    text = json.dumps(
        {"format": FORMAT, **_without_tensors(document, "", tensors)}, indent=1, default=lambda number: number.item()
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_DOCUMENT, text)
        archive.writestr(_TENSORS, safetensors.torch.save(tensors.by_name))


class _Tensors:
    """The tensors of a document, named by where they were; one that was in several places is kept once."""

    def __init__(self) -> None:
        self.by_name: dict[str, Tensor] = {}
        self._names: dict[Hashable, str] = {}

    def name(self, tensor: Tensor, place: str) -> str:
        """Keep a tensor of the document, which outlives this object; returns the name that it has."""
        memory = tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
        if memory not in self._names:
            self._names[memory] = place
            self.by_name[place] = tensor.detach().cpu().contiguous()
        return self._names[memory]


def _without_tensors(value: Any, name: str, tensors: _Tensors) -> Any:
    """JSON for a nested value; its tensors go to ``tensors``."""
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
    try:
        with zipfile.ZipFile(path) as archive:
            document = json.loads(archive.read(_DOCUMENT))
            tensors = safetensors.torch.load(archive.read(_TENSORS))
            found = document.get("format") if isinstance(document, dict) else None
            if found == FORMAT:
                document = _with_tensors(document, tensors)
    except (
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        KeyError,
        ValueError,
        SafetensorError,
        EOFError,
    ) as error:
        raise ValueError(f"path: expected {what}, got {path} ({type(error).__name__}: {error})") from error
    if found != FORMAT:
        raise ValueError(f"path: expected {what} of format {FORMAT}, got format {found} in {path}")
    return document


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
