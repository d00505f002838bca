"""Result records: a file with one line of JSON for each finished piece of work; a torn last line does not count."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Version of a line.
FORMAT = 1
#: Name of a file of results.
RESULTS = "results.jsonl"
#: Results of a job for its record, as JSON.
Result = dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """The error of a job, or the end of its process.

    :param error: the error in one line.
    :param traceback: Python's report of the error.
    """

    error: str
    traceback: str = ""


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read all complete lines; none where there is no file.

    :raises ValueError: a complete line that is no record of this format.
    """
    if not path.is_file():
        return []
    *lines, _ = path.read_bytes().split(b"\n")  # a kill tears what follows the last end of a line
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


def read_folder(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of all shards that write to a folder, in the order of time; see [`read_records`][]."""
    records = [record for path in results_files(folder) for record in read_records(path)]
    return sorted(records, key=lambda record: record.get("time", ""))


def results_files(folder: Path) -> list[Path]:
    """Return the files of results in a folder: that of a whole suite, and those of shards."""
    return [*folder.glob(RESULTS), *sorted(folder.glob("results-*-of-*.jsonl"))]


def cut_torn_line(path: Path) -> None:
    """Remove the part of a line that a killed writer left."""
    if path.is_file():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Add one line, which is on the disk when this returns."""
    with path.open("ab") as file:
        file.write(json.dumps({"format": FORMAT, **record}).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
