"""Files of data: the regular ones of a folder, in natural order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def require_file(path: Path) -> None:
    """Make sure that a path is a file of its own: to open a pipe or a device may never return.

    :raises ValueError: something else.
    """
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "none, a pipe, a device or a broken link"
        raise ValueError(f"{path}: expected a regular file, got {kind}")


def natural_order(path: Path) -> list[str | int]:
    """Return a key to sort paths by: ``2`` before ``10``."""
    # re.split alternates text and digits, so that a text is compared with texts only.
    parts = re.split(r"([0-9]+)", path.as_posix())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def files_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files of a folder that have one of the suffixes, in natural order.

    Hidden files are passed over, which other systems leave behind: ``._000.mp4`` is no video.

    :raises ValueError: one of them is no regular file.
    """
    named = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    found = sorted((path for path in named if not path.is_dir()), key=natural_order)
    for path in found:
        require_file(path)
    return found
