"""Tracking of runs: what agents log goes to TensorBoard or to Weights & Biases, through SB3's logger."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.logger import HParam, KVWriter, Logger, TensorBoardOutputFormat

from aime_gym.agents.base import ImitationAgent
from aime_gym.config import import_extra
from aime_gym.experiments.cells import as_file_name
from aime_gym.experiments.config import Tracker
from aime_gym.experiments.evaluation import Score


class Tracking(Protocol):
    """A tracker of runs; it may be sent to other processes."""

    def writer(self, agent: ImitationAgent, title: str) -> KVWriter:
        """Return the output of SB3's logger that makes a new run of this title."""


@dataclass(frozen=True)
class TensorBoardTracking:
    """TensorBoard, with a folder for each run.

    :param folder: folder that gets a folder ``tensorboard``.
    """

    folder: Path

    def writer(self, agent: ImitationAgent, title: str) -> KVWriter:
        """Return a writer in a folder of this title; files of an earlier run there are replaced."""
        folder = self.folder / "tensorboard" / as_file_name(title)
        if agent.checkpoint_dir is None:  # otherwise an earlier file may be the beginning of this run
            for earlier in folder.glob("events.out.tfevents.*"):
                earlier.unlink()
        return TensorBoardOutputFormat(str(folder))


@dataclass(frozen=True)
class WandbTracking:
    """Weights & Biases, in the project ``aime_gym`` or ``WANDB_PROJECT``.

    :param folder: folder that gets a folder ``wandb``.
    :param group: name that the runs have in common.
    :raises ImportError: it is not installed.
    :raises ValueError: it has no account, and is not offline.
    """

    folder: Path
    group: str

    def __post_init__(self) -> None:
        wandb = import_extra("wandb", "wandb", "track: wandb is not installed")
        try:
            wandb.login()  # asks, if there is somebody to ask
        except wandb.errors.Error as error:
            raise ValueError(f"track: {error} WANDB_MODE=offline keeps runs in {self.folder / 'wandb'}") from error

    def writer(self, agent: ImitationAgent, title: str) -> KVWriter:
        """Return a writer of a new run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return _WandbOutputFormat(
            project=os.environ.get("WANDB_PROJECT", "aime_gym"), name=title, group=self.group, dir=str(self.folder)
        )


class _WandbOutputFormat(KVWriter):
    """Run of Weights & Biases, whose x-axis is the metric ``step``: a run's own steps cannot begin anew in a phase."""

    def __init__(self, **settings: Any) -> None:
        import wandb

        self._run = wandb.init(reinit="create_new", **settings)
        self._run.define_metric("*", step_metric="step")

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        for value in key_values.values():
            if isinstance(value, HParam):
                self._run.config.update(dict(value.hparam_dict))
        scalars = {key: value for key, value in key_values.items() if isinstance(value, np.ScalarType)}
        if scalars:
            self._run.log({**scalars, "step": step})

    def close(self) -> None:
        self._run.finish(exit_code=int(sys.exc_info()[0] is not None))


def tracking_by(tracker: Tracker | None, folder: Path, group: str) -> Tracking | None:
    """Return a tracker by its name; ``None`` for none."""
    if tracker is None:
        return None
    return TensorBoardTracking(folder) if tracker == "tensorboard" else WandbTracking(folder, group)


@contextmanager
def tracked(tracking: Tracking | None, agent: ImitationAgent, title: str, about: Mapping[str, Any]) -> Iterator[None]:
    """Track an agent as one run with its configuration, if runs are tracked.

    :param about: further entries of the run's configuration.
    """
    if tracking is None:
        yield
        return
    agent.set_logger(Logger(None, [tracking.writer(agent, title)]))
    try:
        options = {**about, **asdict(agent.config)}
        texts = {
            name: json.dumps(value) for name, value in options.items() if isinstance(value, Mapping | tuple | list)
        }
        agent.logger.record("hparams", HParam({**options, **texts}, {"eval/mean_reward": 0.0}))
        agent.logger.dump()
        yield
    finally:
        agent.logger.close()


def log_score(agent: ImitationAgent, score: Score) -> None:
    """Log an evaluation under the names of SB3's ``EvalCallback``."""
    agent.logger.record("eval/mean_reward", score.mean)
    agent.logger.record("eval/mean_ep_length", float(np.mean(score.lengths)))
    if score.success_rate is not None:
        agent.logger.record("eval/success_rate", score.success_rate)
    agent.dump_logs()
