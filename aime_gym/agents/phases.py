"""Run of a phase of any agent, with its logger, callback, signals and checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stable_baselines3.common.logger import HumanOutputFormat
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import configure_logger
from torch import Tensor

from aime_gym.agents.files import agent_document, description, restore
from aime_gym.serialization import digest, exclusively
from aime_gym.training.callbacks import StepCallbacks, UpdateCallbacks
from aime_gym.training.checkpoint import PhaseCheckpoint
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.signals import DeferredSignals
from aime_gym.types import Array, Trajectories, Trajectory, sensors

if TYPE_CHECKING:
    from aime_gym.agents.base import ImitationAgent


#: Letters of a key in the log on the screen. SB3 cuts after 36, and fails where two keys are the same by then.
_LONGEST_KEY = 2**16


def run_phase(
    agent: ImitationAgent,
    verb: str,
    phase: Callable[[Trajectories, TrainingLoop], None],
    data: Trajectories | Callable[[], Trajectories],
    *,
    callback: MaybeCallback,
    tb_log_name: str,
    progress_bar: bool,
    online: bool = False,
    total_timesteps: int | None = None,
    log_interval: int = 1,
    also_from: Trajectories = (),
) -> None:
    """Run a phase, or what a checkpoint left of it.

    :param phase: a fixed function of the agent and of the trajectories, all of whose updates run in
        ``TrainingLoop.run``; or, with ``online``, one that interacts, watched by ``TrainingLoop.step_callbacks``.
    :param data: the trajectories, or how the agent, which makes the same ones each time, records them.
    :param also_from: what else the phase learns from.
    :raises ValueError: a checkpoint that is damaged, or of another run.
    :raises FileExistsError: another process is in this phase, with the same ``checkpoint_dir``.
    :raises KeyboardInterrupt: Ctrl-C where checkpoints are kept.
    """
    folder = agent.checkpoint_dir
    alone = nullcontext() if folder is None else exclusively(_checkpoint_path(agent, folder, verb), "checkpoint_dir")
    with alone:
        _run_phase(
            agent,
            verb,
            phase,
            data,
            callback=callback,
            tb_log_name=tb_log_name,
            progress_bar=progress_bar,
            online=online,
            total_timesteps=total_timesteps,
            log_interval=log_interval,
            also_from=also_from,
        )


def _run_phase(
    agent: ImitationAgent,
    verb: str,
    phase: Callable[[Trajectories, TrainingLoop], None],
    data: Trajectories | Callable[[], Trajectories],
    *,
    callback: MaybeCallback,
    tb_log_name: str,
    progress_bar: bool,
    online: bool,
    total_timesteps: int | None,
    log_interval: int,
    also_from: Trajectories,
) -> None:
    checkpoint, goes_on, agent.interacts = None, False, online
    if agent.checkpoint_dir is not None:
        also = {"environment steps": total_timesteps, "play": _digest_of(also_from)} if online else {}
        checkpoint = _open_checkpoint(agent, agent.checkpoint_dir, verb, data, also)
        goes_on = checkpoint.agent is not None
        if checkpoint.agent is not None:
            restore(agent, checkpoint.agent)
        else:
            checkpoint.begin(agent_document(agent))
        if checkpoint.finished:
            agent.unfinished_start = None
            return
    trajectories = data() if callable(data) else data
    if not agent._custom_logger:
        agent._logger = configure_logger(
            agent.verbose, agent.tensorboard_log, tb_log_name, reset_num_timesteps=not goes_on
        )
    for output in agent.logger.output_formats:
        if isinstance(output, HumanOutputFormat):
            output.max_length = _LONGEST_KEY
    loop = TrainingLoop(
        agent,
        agent.logger,
        agent.generator,
        progress_bar,
        checkpoint=checkpoint,
        total_timesteps=total_timesteps,
        log_interval=log_interval,
    )
    if online:
        callback, loop.step_callbacks = None, StepCallbacks(callback, agent)
    try:
        with (
            DeferredSignals(terminations=checkpoint is not None) as loop.signals,
            UpdateCallbacks(callback, agent) as loop.update_callbacks,
        ):
            phase(trajectories, loop)
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt) or checkpoint is not None:
            # Half a phase is none: it has to run again. What learn went on from stays.
            agent.pretrained, agent.imitated = agent.pretrained and verb != "pretrain", verb == "learn"
            raise
        # between the runs of updates, which catch it themselves
        warnings.warn(f"{verb}: interrupted; what was learnt is kept", stacklevel=3)
        loop.interrupted = True
    finally:
        agent.interrupted = loop.interrupted
    agent.num_phases += 1
    agent.unfinished_start = None
    if checkpoint is not None:
        checkpoint.finish(agent_document(agent))


def _open_checkpoint(
    agent: ImitationAgent,
    folder: Path,
    verb: str,
    data: Trajectories | Callable[[], Trajectories],
    also: dict[str, Any],
) -> PhaseCheckpoint:
    """The checkpoint of a phase that is about to start, or to go on."""
    if agent.unfinished_start is None:
        # The first weights of an agent without a seed differ from process to process, and decide nothing else.
        known = agent.seed is not None or agent.pretrained or agent.imitated
        agent.unfinished_start = digest(_tensors(agent)) if known else "fresh"
    described = description(agent)
    identity = {
        "agent": described["class"],
        "hyper-parameters": [described["config"], agent.policy_kwargs],
        "spaces": [described["observation_space"], described["action_space"]],
        "seed": agent.seed,
        "data": f"{agent.play_timesteps} steps of its own" if callable(data) else _digest_of(data),
        "starting weights": agent.unfinished_start,
    } | also
    path = _checkpoint_path(agent, folder, verb)
    return PhaseCheckpoint(path, interval=agent.checkpoint_interval, identity=identity)


def _checkpoint_path(agent: ImitationAgent, folder: Path, verb: str) -> Path:
    return folder / f"{agent.num_phases:02d}-{verb}.zip"


def _tensors(agent: ImitationAgent) -> Iterator[Tensor]:
    """All that training starts from."""
    yield agent.generator.get_state()
    for state in agent.get_parameters().values():
        yield from state.values()


def _arrays(trajectory: Trajectory) -> Iterator[Array]:
    yield from sensors(trajectory.observations).values()
    if trajectory.actions is not None:
        yield trajectory.actions


def _digest_of(data: Trajectories) -> str:
    return digest(part for trajectory in data for part in _arrays(trajectory))
