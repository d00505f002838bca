"""``aime-gym report``: tables with intervals, and figures, of a benchmark's results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from aime_gym.cli import shared


@shared.verb("tables with intervals, and figures, from a benchmark")
def report(
    results: Annotated[tuple[Path, ...], "RESULTS"],
    *,
    against: Annotated[str, "POLICY"] | None = None,
    html: bool = False,
    out: shared.Folder | None = None,
) -> int:
    """Normalised means and interquartile means with 95% bootstrap intervals,
    performance profiles, probability of improvement and learning curves, from a
    benchmark that is finished or not.

    :param results: folders of `aime-gym benchmark` or `compare`
    :param against: policy that the others are to improve on (default: the first)
    :param html: whether to write report.html too: one page with tables, figures, and the videos of `aime-gym compare`
    :param out: folder for report.md, report.json and the figures (default: the first one)

    Examples:
      aime-gym report runs/classic
      aime-gym report runs/classic --against bco --html
      aime-gym report runs/one runs/other/results.jsonl --out runs/both
    """
    with shared.checks():
        from aime_gym.experiments.report import print_tables, report_tables, write_report
        from aime_gym.experiments.results import analyse, load_results

        loaded = load_results(results)
        analysed = analyse(loaded, against)
        out = out or (results[0] if results[0].is_dir() else results[0].parent)
        shared.check_output(out, "out", folder=True)
    files = write_report(analysed, out, html=html)
    print_tables(*report_tables(analysed))
    print(f"{loaded.progress}; wrote {', '.join(map(str, files))}")
    return 0
