"""``aime-gym collect``: whole episodes of a policy, as a dataset or as videos."""

from __future__ import annotations

import sys
from typing import Annotated

from aime_gym.cli import shared
from aime_gym.experiments.config import PLAN2EXPLORE, PLAY_POLICIES, Positive
from aime_gym.tasks import TaskConfig


@shared.verb("record episodes as a Minari dataset, or as videos")
def collect(
    task: TaskConfig,
    *,
    policy: Annotated[str, "POLICY"] = "play",
    episodes: Positive = 50,
    without_actions: bool = False,
    video: bool = False,
    seed: shared.Seed = 0,
    workers: Positive | None = None,
    out: shared.Folder,
) -> int:
    r"""Record whole episodes of a policy as a Minari dataset, or as videos. Ctrl-C ends
    it: the complete episodes are kept as OUT-interrupted.

    :param policy: 'play' (random actions, held for a while, of all sizes; the default), 'random' (uniform), 'expert'
        (a script: Meta-World, Pong, Breakout), 'sac:20000' or 'sac:model.zip' (see aime-gym compare --help),
        'plan2explore' (looks for what its world model cannot predict, without a reward: all episodes that it takes to
        learn are the data), 'dreamer:20000' (learns the task in its world model's imagination for so many steps: the
        data are the episodes that it then demonstrates)
    :param episodes: number of episodes
    :param without_actions: whether to leave the actions out, for demonstrations
    :param video: whether to write each episode as an .mp4, without loss, and a videos.json beside them, in place of a
        Minari dataset: demonstrations without actions and rewards; with --modality pixels
    :param seed: seed of all random numbers: the same seed gives the same run
    :param workers: processes that record at once, if the recording is long (default: one for each core). Their number
        changes nothing in the data; 'plan2explore' takes one
    :param out: a folder that does not exist yet

    Examples:
      aime-gym collect reach-v3 --policy play --episodes 200 --out data/reach-play
      aime-gym collect reach-v3 --policy expert --episodes 20 --without-actions \
        --out data/reach-demos
      aime-gym collect reach-v3 --policy expert --episodes 20 --modality pixels \
        --video --out data/reach-videos
      aime-gym collect Reacher-v5 --policy sac:model.zip --episodes 50 \
        --out data/reacher-expert
      aime-gym collect window-open-v3 --policy plan2explore --episodes 150 \
        --out data/window-play
      aime-gym collect Pendulum-v1 --policy dreamer:10000 --episodes 20 \
        --out data/pendulum-expert
    """
    with shared.checks():
        from aime_gym.data import frame_rate_of, frame_shape, save_minari, save_videos
        from aime_gym.experiments.data import check_play_policy, record_play
        from aime_gym.experiments.experts import SCRIPTED, RecordingInterrupted, prepare_expert, record_demonstrations
        from aime_gym.processes import available_cores

        with task.make() as env:
            shape = frame_shape(env.observation_space)
            if video and (shape is None or shape[2] != 3 or frame_rate_of(env) is None):
                raise ValueError(
                    f"video: expected an environment that shows images (--modality pixels), in colour, and says at "
                    f"which rate, got {env.observation_space}"
                )
        if out.exists():
            raise FileExistsError(f"out: {out} exists already: choose another name, or remove it first")
        shared.check_output(out, "out", folder=True)
        expert = None
        if policy in PLAY_POLICIES:
            check_play_policy(task, policy)
            if policy == PLAN2EXPLORE and (workers or 1) > 1:
                raise ValueError(f"workers: expected 1 with {policy!r}, which learns after each episode, got {workers}")
        elif policy != "expert" and ":" not in policy:
            raise ValueError(
                f"policy: expected {', '.join(map(repr, PLAY_POLICIES))}, 'expert', 'sac:20000', "
                f"'sac:model.zip' or 'dreamer:20000', got {policy!r}"
            )
        else:
            expert = prepare_expert(SCRIPTED if policy == "expert" else policy, task, seed)
    status = 0
    workers = workers or available_cores()
    try:
        if expert is None:
            trajectories = record_play(task, policy, episodes, seed=seed, workers=workers)
        else:
            expert.train()
            trajectories = record_demonstrations(expert, task, episodes, seed=seed, workers=workers)
    except RecordingInterrupted as error:
        trajectories = error.trajectories
        out = shared.interrupted_name(out)
        status = 130
        if not trajectories:
            print("aime-gym collect: interrupted before the first episode ended, nothing is written", file=sys.stderr)
            return status
        print(f"aime-gym collect: interrupted, the complete episodes go to {out}", file=sys.stderr)
    with task.make() as env:
        if video:
            save_videos(out, trajectories, env, policy=policy)
        else:
            save_minari(out, trajectories, env, actions=not without_actions, metadata={"policy": policy})
    mean = sum(trajectory.episode_return for trajectory in trajectories) / len(trajectories)
    print(f"{out}: {len(trajectories)} episodes, {sum(map(len, trajectories))} steps, mean return {mean:.2f}")
    return status
