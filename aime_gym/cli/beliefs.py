"""``aime-gym beliefs``: a video of what a trained agent sees in demonstrations."""

from __future__ import annotations

from aime_gym.cli import shared


@shared.verb("show what a trained agent sees and predicts")
def beliefs(
    agent: shared.File,
    *,
    demos: shared.Dataset,
    context: int = 5,
    length: int | None = None,
    episodes: int = 3,
    fps: float = 10,
    out: shared.File,
) -> int:
    r"""Write a video of what a trained agent believes that demonstrations show, for
    agents that see images. Side by side: the demonstration; its reconstruction by
    the world model under the actions that the agent infers; and the prediction,
    which sees a few records of it and from then on these actions only. What the
    first lacks of the demonstration the world model cannot represent; what the
    second lacks of the first it cannot predict.

    :param agent: an agent's file, as train and compare write it
    :param demos: a dataset of what is to be imitated
    :param context: records that the prediction sees
    :param length: records of each demonstration (default: all)
    :param episodes: demonstrations
    :param fps: records a second
    :param out: the video, an .mp4 or .gif

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
        view = {"context": context, "length": length, "episodes": episodes, "fps": fps}
        print(f"wrote {render_beliefs_of_saved(agent, demos, out, **view)}")
    return 0
