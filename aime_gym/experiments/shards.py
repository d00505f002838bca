"""Shards: the cells of a suite in parts, one for each of several machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aime_gym.experiments.cells import Suite
from aime_gym.experiments.jobs import ON_DEMAND, Job
from aime_gym.experiments.records import RESULTS


@dataclass(frozen=True)
class Shard:
    """Part of a suite's cells: equal suites have equal parts.

    :param number: number of the part, from 1 on.
    :param count: number of parts.
    :raises ValueError: no such part.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"shard: expected 1/{self.count} to {self.count}/{self.count}, got {self}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``"1/2"``.

        :raises ValueError: something else.
        """
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and int(count)):
            raise ValueError(f"shard: expected a part and the number of parts, as in 1/2, got {text!r}")
        return cls(int(number), int(count))

    @property
    def results(self) -> str:
        """Name of the file of results."""
        return RESULTS if self.count == 1 else f"results-{self.number}-of-{self.count}.jsonl"

    def part(self, suite: Suite, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs of this part's cells, and those that they need, which other parts may have as well.

        Cells that differ in their number of demonstrations alone are in one part, as they share what is learnt from
        play.
        """
        groups = {cell.key: (cell.task.label, cell.agent, cell.seed) for cell in suite.cells}
        own = set(list(dict.fromkeys(groups.values()))[self.number - 1 :: self.count])
        cells = [job.about for job in jobs if job.is_cell and groups[job.about["key"]] in own]
        wanted = {(what, about[what]) for about in cells for what in ("random", "expert")}
        wanted |= {("cell", about["key"]) for about in cells}
        return [
            job for job in jobs if job.about["what"] in ON_DEMAND or (job.about["what"], job.about["key"]) in wanted
        ]


#: Part that is the whole suite.
WHOLE = Shard()
