"""``aime-gym benchmark``: a suite of agents, tasks and seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from aime_gym.cli import shared
from aime_gym.experiments.config import Positive, Tracker


@shared.verb("run a suite of agents, tasks and seeds on all cores")
def benchmark(
    suite: Annotated[Path, "SUITE"],
    *,
    out: shared.Folder | None = None,
    workers: Positive | None = None,
    shard: Annotated[str, "I/N"] | None = None,
    executor: Literal["processes", "submitit", "ray"] = "processes",
    retry_failed: bool = False,
    track: Tracker | None = None,
    allow_imports: bool = False,
) -> int:
    """Train and evaluate all agents of a suite on all of its tasks, with all of its
    seeds and numbers of demonstrations, in processes of one thread each. What cells
    share (play, demonstrations, the expert, pretraining) is made once.

    Each finished cell is a line of OUT/results.jsonl. Run the same command again
    after Ctrl-C, a crash or a change of the suite: what is done is not done again.
    A cell that fails is kept with its error, and the rest goes on.

    Warning: a suite may name modules to import and SB3 models to read, and both run
    their code. Such a suite is refused without --allow-imports: use it only with
    suites, modules and models that you trust.

    :param suite: a TOML file, as those in benchmarks/suites/
    :param out: folder for all that is written (default: runs/SUITE)
    :param workers: processes of this machine (default: one for each core)
    :param shard: part of the cells to run, such as 1/2: the other machines run the other parts, into the same folder,
        which all of them see, or into folders of their own
    :param executor: program that runs the jobs: processes of this machine, submitit (Slurm), or ray (the cluster of
        RAY_ADDRESS)
    :param retry_failed: whether to do again what failed before
    :param track: tensorboard or wandb: what agents log, each cell as one run; in a folder of that name in OUT
    :param allow_imports: whether to import modules and read SB3 models that the suite names

    Examples:
      aime-gym benchmark benchmarks/suites/classic.toml --out runs/classic
      aime-gym benchmark benchmarks/suites/reach.toml --out runs/reach --workers 1
      aime-gym benchmark suite.toml --out /shared/runs --shard 1/2
      aime-gym benchmark suite.toml --out /shared/runs --executor submitit
      aime-gym report runs/classic

    a suite of one's own (all keys:
    python -c "import aime_gym.experiments.suite as s; print(s.__doc__)"):
      seeds = [0, 1, 2]
      demonstrations = [5, 20]
      [tasks.CartPole-v1]
      modality = "state"
      demos = "classic/CartPole-v1"
      [agents.bco]
      [agents.bco-wide]
      agent = "bco"
      options = { batch_size = 500 }
    """
    with shared.checks():
        from aime_gym.experiments.executors import Ray, Submitit
        from aime_gym.experiments.report import print_tables, result_tables
        from aime_gym.experiments.results import load_results
        from aime_gym.experiments.runner import check, run_suite
        from aime_gym.experiments.shards import WHOLE, Shard
        from aime_gym.experiments.suite import read_suite
        from aime_gym.experiments.tracking import tracking_by
        from aime_gym.processes import available_cores

        part = WHOLE if shard is None else Shard.parse(shard)
        if executor != "processes" and workers is not None:
            raise ValueError(f"workers: expected none with --executor {executor}, got {workers}")
        checked = check(read_suite(suite, allow_imports=allow_imports))
        out = out or Path("runs") / suite.stem
        shared.check_output(out, "out", folder=True)
        tracking = tracking_by(track, out, suite.stem)
        cluster = Submitit(out / "submitit") if executor == "submitit" else Ray() if executor == "ray" else None
        outcome = run_suite(
            checked,
            out,
            workers=workers or (available_cores() if cluster is None else 1),
            executor=cluster,
            shard=part,
            retry_failed=retry_failed,
            tracking=tracking,
        )
    if outcome.done:
        print_tables(*result_tables(load_results([out])))
    for title, error in outcome.failed.items():
        print(f"failed: {title}: {error}")
    cells = f"{outcome.cells} cells{'' if part == WHOLE else f' of shard {part}'}"
    print(f"{out}: {outcome.done} of {cells} are done; `aime-gym report {out}` has intervals and figures")
    if outcome.interrupted:
        print("aime-gym benchmark: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 1 if outcome.failed else 0
