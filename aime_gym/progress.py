"""Progress bar of phases, collecting and benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: Seconds after which the rest is estimated where no bar is shown, and the least rest that is worth a line.
_FIRST_SECONDS, _LONG_SECONDS = 5, 15


@contextmanager
def progress_bar(title: str, total: int, *, enabled: bool) -> Iterator[Callable[[int, str], None]]:
    """Show a progress bar on stderr (stdout is for results) and yield its ``advance(steps, text)``.

    Where stderr is no terminal, such as a log file, a bar would appear at the end only: a line says before how long it
    will take.
    """
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    text_column = TextColumn("{task.fields[text]}")
    console = Console(stderr=True)
    estimates = enabled and not console.is_terminal
    calls, first_done, first_time = 0, 0.0, 0.0
    with Progress(*columns, text_column, console=console, disable=not enabled) as bar:
        task = bar.add_task(title, total=total, text="")

        def advance(steps: int, text: str = "") -> None:
            nonlocal estimates, calls, first_done, first_time
            bar.advance(task, steps)
            if text:
                bar.update(task, text=text)
            if estimates:
                calls += 1
                now = time.monotonic()
                done = bar.tasks[0].completed
                if calls <= 2:  # what was done before, and the first step, which is slower than the others
                    first_done, first_time = done, now
                elif now - first_time >= _FIRST_SECONDS and done > first_done:
                    estimates = False
                    seconds = (now - first_time) * (total - done) / (done - first_done)
                    if seconds >= _LONG_SECONDS:
                        console.print(f"{title}: {_duration(seconds)} here, {done:.0f} of {total} are done")

        yield advance


def _duration(seconds: float) -> str:
    """Return a duration as words: ``"about 6 minutes"``."""
    size, unit = next((size, unit) for size, unit in ((3600, "hour"), (60, "minute"), (1, "second")) if seconds > size)
    count = round(seconds / size)
    return f"about {count} {unit}{'s' * (count != 1)}"
