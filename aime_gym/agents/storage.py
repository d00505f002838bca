"""An agent's file: a zip archive of one JSON document and one safetensors file. Reading it runs no code from it."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

FORMAT = 1
_DOCUMENT, _TENSORS = "agent.json", "tensors.safetensors"
_KEYS = {"class", "config", "observation_space", "action_space", "attributes"}


def write_agent_file(
    target: str | os.PathLike[str] | IO[bytes], document: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Write the file, in one piece or not at all.

    :param target: a path, which gets the suffix ``.zip`` if it has none, or a binary file.
    """
    if not isinstance(target, str | os.PathLike):
        _write(target, document, tensors)
        return
    path = _with_suffix(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            _write(file, document, tensors)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(file: IO[bytes], document: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        # NumPy's numbers are welcome as hyper-parameters.
        text = json.dumps({"format": FORMAT, **document}, indent=1, default=lambda number: number.item())
        archive.writestr(_DOCUMENT, text)
        archive.writestr(_TENSORS, safetensors.torch.save({name: t.contiguous() for name, t in tensors.items()}))


def read_agent_file(source: str | os.PathLike[str] | IO[bytes]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what :func:`write_agent_file` wrote.

    :raises FileNotFoundError: no such file.
    :raises ValueError: the file is damaged, or no agent's file.
    """
    path = _with_suffix(source) if isinstance(source, str | os.PathLike) else source
    if isinstance(path, Path) and not path.is_file():
        raise FileNotFoundError(f"path: expected an agent's file, found none at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            document = json.loads(archive.read(_DOCUMENT))
            tensors = safetensors.torch.load(archive.read(_TENSORS))
    except (
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        KeyError,
        ValueError,
        SafetensorError,
        EOFError,
    ) as error:
        raise ValueError(f"path: expected an agent's file, got {path} ({type(error).__name__}: {error})") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT or not document.keys() >= _KEYS:
        raise ValueError(f"path: expected an agent's file of format {FORMAT}, got format {found} in {path}")
    return document, tensors


def _with_suffix(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path if path.suffix else path.with_suffix(".zip")
