"""``aime-gym beliefs``: a video of what a trained agent sees in demonstrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aime_gym.cli import shared


@shared.verb("show what a trained agent sees and predicts")
@shared.agent_file
@click.option("--demos", required=True, metavar="PATH|ID", help="a dataset of what is to be imitated")
@shared.number_option("--context", "records that the prediction sees", default=5, least=None)
@shared.number_option("--length", "records of each demonstration (default: all)", least=None)
@shared.number_option("--episodes", "demonstrations", default=3, least=None)
@shared.number_option("--fps", "records a second", default=10, least=None, kind=float)
@shared.path_option("--out", "FILE", "the video, an .mp4 or .gif", required=True)
def beliefs(agent: Path, demos: str, out: Path, **view: Any) -> int:
    r"""Write a video of what a trained agent believes that demonstrations show, for
    agents that see images. Side by side: the demonstration; its reconstruction by
    the world model under the actions that the agent infers; and the prediction,
    which sees a few records of it and from then on these actions only. What the
    first lacks of the demonstration the world model cannot represent; what the
    second lacks of the first it cannot predict.

    Examples:
      aime-gym beliefs walker.zip --demos data/walker-demos --out walker.mp4
      aime-gym beliefs walker.zip --demos data/walker-demos --episodes 1 \
        --length 50 --context 10 --out walker.gif
    """
    with shared.checks():
        from aime_gym.data.video_writing import check_video_path
        from aime_gym.experiments.saved_agents import render_beliefs_of_saved

        check_video_path(out, "out")
        shared.check_output(out, "out")
        print(f"wrote {render_beliefs_of_saved(agent, demos, out, **view)}")
    return 0
