"""``aime-gym diagnose``: the barriers between a trained agent and a task."""

from __future__ import annotations

from aime_gym.cli import shared
from aime_gym.experiments.config import Positive


@shared.verb("does a trained agent need more data, and which")
def diagnose(
    agent: shared.File,
    *,
    demos: shared.Dataset,
    demo_count: Positive | None = None,
    play: shared.Dataset,
    out: shared.Folder,
) -> int:
    r"""Say what stands between a trained agent and a task, before it is deployed: too
    little play (the world model does not know what the demonstrations show), too
    few demonstrations (they do not predict one another), or nothing. Takes agents
    with a world model, whether they have imitated or not; runs no episode.

    --play should be recorded in the way of the agent's own play, but anew. If the
    demonstrations have actions, which the agent does not see, the inferred ones are
    compared with them. Into --out go diagnosis.json and diagnosis.png.

    :param agent: an agent's file, as train and compare write it
    :param demos: a dataset of what is to be imitated
    :param demo_count: demonstrations to take of them (default: all)
    :param play: a dataset with actions, recorded anew
    :param out: folder for all that is written

    Examples:
      aime-gym collect reach-v3 --policy play --episodes 30 --seed 1 \
        --out data/reach-fresh-play
      aime-gym diagnose reach.zip --demos data/reach-demos \
        --play data/reach-fresh-play --out runs/reach-diagnosis
    """
    with shared.checks():
        from aime_gym.experiments.report import print_tables
        from aime_gym.experiments.saved_agents import diagnose_saved, write_diagnosis

        shared.check_output(out, "out", folder=True)
        report = diagnose_saved(agent, demos, play, demo_count=demo_count)
    files = write_diagnosis(report, out)
    print_tables(report.table())
    print(f"wrote {', '.join(map(str, files))}")
    return 0
