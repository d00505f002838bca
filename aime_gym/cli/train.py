"""``aime-gym train``: one agent, from its data to its file."""

from __future__ import annotations

import sys
from typing import Annotated

from annotated_types import Ge

from aime_gym.cli import shared
from aime_gym.experiments.config import DataConfig, Tracker
from aime_gym.tasks import TaskConfig


@shared.verb("train one agent, and save it")
def train(
    agent: Annotated[str, "AGENT"],
    task: TaskConfig,
    data: DataConfig,
    *,
    option: Annotated[tuple[str, ...], "-o", "OPTION=VALUE"] = (),
    learn: Annotated[int, Ge(0)] = 0,
    checkpoint: shared.Folder | None = None,
    track: Tracker | None = None,
    seed: shared.Seed = 0,
    out: shared.File,
) -> int:
    r"""Record or load data, run an agent's offline phases on it, and save the agent.
    Ctrl-C ends it: with --checkpoint, the same command goes on; without, the
    half-trained agent is kept as OUT-interrupted.zip, and recorded episodes as
    OUT-play-interrupted.

    :param agent: a registered agent: aime, bco, bc
    :param option: a hyper-parameter, or preset=NAME; again for further ones
    :param learn: environment steps of learn, after imitate
    :param checkpoint: progress of the training: the same command, after Ctrl-C or a crash, goes on from there
    :param track: tensorboard or wandb: what the agent logs, in a folder of that name beside OUT
    :param seed: seed of all random numbers: the same seed gives the same run
    :param out: the agent's file, a .zip

    Examples:
      aime-gym train aime reach-v3 --out reach.zip
      aime-gym train bco walker-walk --play data/walker-play \
        --demos data/walker-expert -o stack=3 --out walker.zip
      aime-gym train aime reach-v3 --checkpoint runs/reach --out reach.zip
      aime-gym train aime reach-v3 --modality pixels \
        --demos "data/reach-videos/*.mp4" --out reach.zip
    """
    with shared.checks():
        from aime_gym.data import save_minari
        from aime_gym.experiments.agent_spec import AgentSpec, check_learn, training_env
        from aime_gym.experiments.agent_spec import train as run_phases
        from aime_gym.experiments.data import derived_seeds, prepare_data
        from aime_gym.experiments.experts import RecordingInterrupted
        from aime_gym.experiments.tracking import tracked, tracking_by
        from aime_gym.processes import available_cores
        from aime_gym.training.data_parallel import processes_of_torchrun

        processes_of_torchrun("train", divided=False)
        spec = AgentSpec.parse(agent + (":" + ",".join(option) if option else ""))
        check_learn(spec.agent_class, learn)
        with task.make() as env:
            needs_play = spec.build(task, env, seed).must_pretrain
        prepared = prepare_data(
            task,
            data,
            seeds=derived_seeds(seed),
            needs_play=needs_play,
            demo_actions=spec.reads_actions,
            progress=True,
        )
        shared.check_output(out, "out")
        tracking = tracking_by(track, out.parent, spec.name)
        shared.check_output(checkpoint, "checkpoint_dir", folder=True)
    try:
        if prepared.expert is not None and data.records_demos:
            prepared.expert.train()
        play, demos = prepared.recordings(workers=available_cores())
    except RecordingInterrupted as error:
        if error.trajectories:
            kept = shared.interrupted_name(out.with_name(f"{out.stem}-{error.what}"))
            with task.make() as env:
                save_minari(kept, error.trajectories, env)
            print(f"aime-gym train: the complete episodes of {error.what} are kept in {kept}", file=sys.stderr)
        raise
    if not spec.reads_actions:
        demos = [demo.without_actions() for demo in demos]
    with training_env(spec.agent_class, task) as env:
        with shared.checks():
            made = spec.build(task, env, seed, checkpoint_dir=checkpoint)
        try:
            # The checks are of checkpoints of another run.
            with shared.checks(), tracked(tracking, made, out.stem, {"task": str(task), "seed": seed}):
                seconds = run_phases(made, play, demos, learn=learn)
        except KeyboardInterrupt:
            if checkpoint is None:
                kept = shared.interrupted_name(out)
                made.save(kept)
                print(f"aime-gym train: interrupted; the half-trained agent is kept in {kept}", file=sys.stderr)
            else:
                print(f"aime-gym train: interrupted; the same command goes on from {checkpoint}", file=sys.stderr)
            return 130
        made.save(out)
    print(f"{out}: {spec.label}, trained in {seconds:.0f} seconds")
    return 0
