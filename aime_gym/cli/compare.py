"""``aime-gym compare``: agents on one task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from aime_gym.cli import shared
from aime_gym.experiments.config import DataConfig, Positive
from aime_gym.tasks import TaskConfig

_DEMO = TaskConfig("reach-v3")


@shared.verb("train agents on the same data, evaluate and report")
def compare(
    data: DataConfig,
    task: TaskConfig = _DEMO,
    *,
    agents: Annotated[tuple[str, ...], "AGENT[:OPTION=VALUE,...] ..."] = ("aime", "bco", "bc"),
    eval_episodes: Positive = 50,
    video_episodes: Annotated[int, Ge(0)] = 3,
    seed: shared.Seed = 0,
    out: shared.Folder | None = None,
) -> int:
    r"""Record play data and demonstrations (or load them), train agents on them,
    evaluate all of them on the same episodes, and print one table beside a random
    policy and the expert. Without arguments a robot arm learns to reach, and only
    the oracle bc sees the demonstrations' actions.

    Into --out go results.json (all figures, each episode, versions, machine),
    returns.png, a video of the expert and the first agent side by side, and every
    trained agent as a .zip; files of an earlier comparison there go. Ctrl-C ends
    the work: what was finished is reported, and a half-trained agent is kept as
    AGENT-interrupted.zip.

    :param agents: registered agents, with hyper-parameters that differ from the default (default: aime bco bc)
    :param eval_episodes: episodes for each policy
    :param video_episodes: episodes in the video; 0 for no video
    :param seed: seed of all random numbers: the same seed gives the same run
    :param out: folder for all that is written (default: runs/ENV_ID)

    Examples: the same job for ...

      another task: any of Meta-World v3 or dm_control's suite, any Gymnasium id
        aime-gym compare door-open-v3
        aime-gym compare Reacher-v5 --expert sac:20000
        aime-gym compare Reacher-v5 --expert sac:runs/Reacher-v5/expert.zip

      another modality (position leaves the velocities out; pixels are rendered),
      action repeat or time limit
        aime-gym compare reach-v3 --modality position --action-repeat 1 \
          --max-episode-steps 500
        aime-gym compare reach-v3 --modality pixels --quality fast
        aime-gym compare CartPole-v1 --modality position --positions 0,2 \
          --agents bco bc --expert ppo:20000

      another dataset: a folder of `aime-gym collect`, a Minari dataset by id or
      path, a folder of .npz or .hdf5 files
        aime-gym compare walker-walk --play data/walker-play \
          --demos data/walker-expert --demo-count 100
        aime-gym compare reach-v3 --play random --play-episodes 400 --demo-count 5

      another agent, or the same one with other options; the first one is in the
      video
        aime-gym compare reach-v3 --agents aime bco
        aime-gym compare reach-v3 --agents aime aime:policy_updates=0 \
          bco:stack=3,learning_rate=0.0003
        aime-gym compare reach-v3 --agents aime:preset=dreamer,model_updates=5000
    """
    with shared.checks():
        from aime_gym.experiments.agent_spec import AgentSpec
        from aime_gym.experiments.cells import as_file_name
        from aime_gym.experiments.comparison import (
            check_comparison,
            check_folder,
            comparison_suite,
            run_comparison,
        )

        specs = tuple(map(AgentSpec.parse, agents))
        suite = comparison_suite(task, specs, data, eval_episodes=eval_episodes, seed=seed)
        out = out or Path("runs") / as_file_name(task.env_id)
        check_folder(out)
        checked = check_comparison(suite)
        shared.check_output(out, "out", folder=True)
    results = run_comparison(checked, out, video_episodes=video_episodes)
    return 130 if results["interrupted"] else 1 if results["failed"] else 0
