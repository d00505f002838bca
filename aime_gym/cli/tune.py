"""``aime-gym tune``: hyper-parameters of one agent on one task of a suite."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from aime_gym.cli import shared
from aime_gym.experiments.config import Positive


@shared.verb("search hyper-parameters of an agent on a task of a suite")
def tune(
    suite: Annotated[Path, "SUITE"],
    *,
    agent: Annotated[str, "LABEL"] | None = None,
    task: Annotated[str, "LABEL"] | None = None,
    search: Annotated[tuple[str, ...], "OPTION"] = (),
    trials: Positive = 50,
    storage: Annotated[str, "URL|FILE"] | None = None,
    out: shared.Folder | None = None,
    allow_imports: bool = False,
) -> int:
    r"""Try hyper-parameters with Optuna, and print the best ones as a table to paste
    into the suite. A trial trains and evaluates the agent once for each of the
    suite's seeds, with seeds of its own, and counts by its mean return; with
    curve_steps in the suite, one that falls behind the others ends early.

    The same command goes on until there are --trials trials, also in several
    processes at once: each takes the next trial of --storage.

    :param suite: a TOML file, as for `aime-gym benchmark`; its [search] may say where to search
    :param agent: the suite's agent (default: its first)
    :param task: the suite's task (default: the agent's first)
    :param search: a hyper-parameter to search beside [search], around its value; again for further ones (default,
        without [search]: all learning rates)
    :param trials: trials in the storage
    :param storage: sqlite:///FILE or another database of Optuna's, or a journal file (default: OUT/trials.journal)
    :param out: folder for data and best.toml (default: runs/SUITE-tune)
    :param allow_imports: whether to import modules and read SB3 models that the suite names

    Examples:
      aime-gym tune benchmarks/suites/classic.toml --agent bco --task CartPole-v1
      aime-gym tune benchmarks/suites/reach.toml --agent aime --search batch_size \
        --storage sqlite:///reach.db
    """
    with shared.checks():
        from aime_gym.experiments.suite import read_suite
        from aime_gym.experiments.tuning import agent_table, prepare_search
        from aime_gym.serialization import write_text

        read = read_suite(suite, allow_imports=allow_imports)
        out = out or Path("runs") / f"{suite.stem}-tune"
        shared.check_output(out, "out", folder=True)
        prepared = prepare_search(read, agent, task, search, storage or str(out / "trials.journal"))
    try:
        study = prepared.run(out, trials)
    except RuntimeError as error:
        print(f"aime-gym tune: failed: {error}", file=sys.stderr)
        return 1
    with shared.checks():  # no trial may have succeeded
        best = agent_table(prepared, study.best_params)
    write_text(out / "best.toml", best)
    print(f"{len(study.trials)} trials; return {study.best_value:.1f} with\n\n{best}\nalso in {out / 'best.toml'}")
    return 0
