"""``aime-gym diagnose``: the barriers between a trained agent and a task."""

from __future__ import annotations

from pathlib import Path

import click

from aime_gym.cli import shared


@shared.verb("does a trained agent need more data, and which")
@shared.agent_file
@click.option("--demos", required=True, metavar="PATH|ID", help="a dataset of what is to be imitated")
@shared.number_option("--demo-count", "how many to take of them (default: all)")
@click.option("--play", required=True, metavar="PATH|ID", help="a dataset with actions, recorded anew")
@shared.path_option("--out", "FOLDER", "for all that is written", required=True)
def diagnose(agent: Path, demos: str, demo_count: int | None, play: str, out: Path) -> int:
    r"""Say what stands between a trained agent and a task, before it is deployed: too
    little play (the world model does not know what the demonstrations show), too
    few demonstrations (they do not predict one another), or nothing. Takes agents
    with a world model, whether they have imitated or not; runs no episode.

    --play should be recorded in the way of the agent's own play, but anew. If the
    demonstrations have actions, which the agent does not see, the inferred ones are
    compared with them. Into --out go diagnosis.json and diagnosis.png.

    Examples:
      aime-gym collect reach-v3 --policy play --episodes 30 --seed 1 \
        --out data/reach-fresh-play
      aime-gym diagnose reach.zip --demos data/reach-demos \
        --play data/reach-fresh-play --out runs/reach-diagnosis
    """
    with shared.checks():
        from aime_gym.experiments.saved_agents import diagnose_saved, write_diagnosis

        shared.check_output(out, "out", folder=True)
        report = diagnose_saved(agent, demos, play, demo_count=demo_count)
    files = write_diagnosis(report, out)
    shared.console().print(report.table())
    print(f"wrote {', '.join(map(str, files))}")
    return 0
