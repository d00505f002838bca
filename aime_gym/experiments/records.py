"""A file of results to which finished work is added, one line of JSON for each piece; a torn last line is none."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Of a line.
FORMAT = 1


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read all complete lines; none where there is no file.

    :raises ValueError: a complete line that is no record of this format.
    """
    if not path.is_file():
        return []
    *lines, _ = path.read_bytes().split(b"\n")  # what follows the last end of a line was torn by a kill
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: expected a line of JSON, got {line[:40]!r}") from error
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise ValueError(f"{path}:{number}: expected a result of format {FORMAT}, got {line[:40]!r}")
        records.append(record)
    return records


def cut_torn_line(path: Path) -> None:
    """Remove what a killed writer left of a line."""
    if path.is_file():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Add one line, which is on the disk when this returns."""
    with path.open("ab") as file:
        file.write(json.dumps({"format": FORMAT, **record}).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
