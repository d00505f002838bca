"""A phase of any agent, and what surrounds it: logger, callback, signals, checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import MaybeCallback

from aime_gym.serialization import digest, exclusively
from aime_gym.training.callbacks import StepCallbacks, UpdateCallbacks
from aime_gym.training.checkpoint import PhaseCheckpoint
from aime_gym.training.data_parallel import processes_of_torchrun
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.signals import DeferredSignals
from aime_gym.types import Array, Trajectories, Trajectory, sensors

#: A phase's trajectories, or a function that records them: the same ones at each call.
PhaseData = Trajectories | Callable[[], Trajectories]


class PhaseAgent(Protocol):
    """An agent as its phases know it."""

    num_timesteps: int
    num_updates: int
    num_phases: int
    n_envs: int
    generator: torch.Generator
    checkpoint_dir: Path | None
    checkpoint_interval: int
    #: Whether the phase that runs, or ran last, takes environment steps.
    interacts: bool
    #: Whether the last phase was cut short, by Ctrl-C or by a callback.
    interrupted: bool

    @property
    def logger(self) -> Logger:
        """Logger of SB3."""

    def start_log(self, tb_log_name: str, *, resumed: bool) -> None:
        """Make a logger for a phase, unless the user has set one."""

    def checkpoint_identity(self, data: PhaseData) -> dict[str, Any]:
        """Return what has to agree for a checkpoint to be of the phase that starts, as JSON values."""

    def document(self) -> dict[str, Any]:
        """Return all that a file holds of the agent: JSON values and tensors."""

    def load_document(self, document: Mapping[str, Any]) -> None:
        """Make the agent what a document holds."""

    def end_phase(self, name: str, *, failed: bool) -> None:
        """Note that a phase has ended, or has failed and has to run again."""


def run_phase(
    agent: PhaseAgent,
    name: str,
    train: Callable[[Trajectories, TrainingLoop], None],
    data: PhaseData,
    *,
    callback: MaybeCallback,
    tb_log_name: str,
    progress_bar: bool,
    online: bool = False,
    divided: bool = False,
    total_timesteps: int | None = None,
    log_interval: int = 1,
    other_data: Trajectories = (),
) -> None:
    """Run a phase, or what a checkpoint left of it.

    :param name: the verb, in the name of the checkpoint and in warnings.
    :param train: a fixed function of the agent and of the trajectories, all of whose updates run in
        [`TrainingLoop.run`][]; or, with ``online``, in [`aime_gym.training.rollouts.Rollouts`][].
    :param online: whether the phase takes environment steps, which the callback then counts.
    :param divided: whether several processes of ``torchrun`` can run the phase: they share the updates of
        [`train_on_sequences`][aime_gym.training.loop.train_on_sequences], and each does all the rest.
    :param total_timesteps: budget of environment steps of such a phase; ``None`` leaves it to the agent.
    :param log_interval: rounds of such a phase between two entries in the log.
    :param other_data: trajectories that such a phase learns from beside ``data``.
    :raises ValueError: a checkpoint that is damaged, or of another run.
    :raises FileExistsError: another process is in this phase, with the same ``checkpoint_dir``.
    :raises KeyboardInterrupt: Ctrl-C where checkpoints are kept.
    :raises NotImplementedError: several processes of ``torchrun``, and a phase that is not ``divided``.
    """
    parallel = processes_of_torchrun(name, divided=divided)
    agent.interacts = online
    with ExitStack() as lock:
        checkpoint, resumed = None, False
        identity = agent.checkpoint_identity(data) if agent.checkpoint_dir is not None or parallel.size > 1 else {}
        if agent.checkpoint_dir is not None:
            path = agent.checkpoint_dir / f"{agent.num_phases:02d}-{name}.zip"
            if parallel.rank == 0:
                lock.enter_context(exclusively(path, "checkpoint_dir"))
            if online:
                identity |= {
                    "environment steps": total_timesteps,
                    "copies of the environment": agent.n_envs,
                    "play": digest_trajectories(other_data),
                }
            checkpoint = PhaseCheckpoint(path, interval=agent.checkpoint_interval, identity=identity, parallel=parallel)
            resumed = checkpoint.agent is not None
            identity["checkpoint_dir"] = [checkpoint.finished, *(run.updates for run in checkpoint.runs)]
        parallel.check_equal(identity | {"seed": digest([agent.generator.get_state()])})
        if checkpoint is not None:
            if checkpoint.agent is not None:
                agent.load_document(checkpoint.agent)
            else:
                checkpoint.begin(agent.document())
            if checkpoint.finished:
                agent.end_phase(name, failed=False)
                return
        trajectories = data() if callable(data) else data
        if parallel.rank == 0:
            agent.start_log(tb_log_name, resumed=resumed)
        else:
            callback = None
        loop = TrainingLoop(
            agent,
            agent.logger if parallel.rank == 0 else Logger(None, []),
            agent.generator,
            progress_bar and parallel.rank == 0,
            parallel=parallel,
            checkpoint=checkpoint,
            total_timesteps=total_timesteps,
            log_interval=log_interval,
        )
        if online:
            loop.step_callbacks = StepCallbacks(callback, agent)
        try:
            with (
                DeferredSignals(terminations=checkpoint is not None) as loop.signals,
                UpdateCallbacks(None if online else callback, agent) as loop.update_callbacks,
            ):
                train(trajectories, loop)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt) or checkpoint is not None or parallel.size > 1:
                agent.end_phase(name, failed=True)
                raise
            # between the runs of updates, which catch it themselves
            warnings.warn(f"{name}: interrupted; what was learnt is kept", stacklevel=3)
            loop.interrupted = True
        finally:
            agent.interrupted = loop.interrupted
        agent.num_phases += 1
        agent.end_phase(name, failed=False)
        if checkpoint is not None:
            checkpoint.finish(agent.document())


def digest_trajectories(trajectories: Trajectories) -> str:
    """Return a digest of observations and actions."""
    return digest(part for trajectory in trajectories for part in _arrays(trajectory))


def _arrays(trajectory: Trajectory) -> Iterator[Array]:
    yield from sensors(trajectory.observations).values()
    if trajectory.actions is not None:
        yield trajectory.actions
