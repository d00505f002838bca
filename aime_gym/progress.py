"""Progress bar of phases, collecting and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress_bar(title: str, total: int, *, enabled: bool) -> Iterator[Callable[[int, str], None]]:
    """Show a progress bar on stderr (stdout is for results) and yield its ``advance(steps, text)``."""
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    text_column = TextColumn("{task.fields[text]}")
    with Progress(*columns, text_column, console=Console(stderr=True), disable=not enabled) as bar:
        task = bar.add_task(title, total=total, text="")

        def advance(steps: int, text: str = "") -> None:
            bar.advance(task, steps)
            if text:
                bar.update(task, text=text)

        yield advance
