"""Tracking of runs: what agents log goes to TensorBoard or to Weights & Biases, through SB3's logger."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from stable_baselines3.common.logger import HParam, KVWriter, Logger, TensorBoardOutputFormat

from aime_gym.agents.base import ImitationAgent
from aime_gym.config import import_extra
from aime_gym.experiments.cells import as_file_name
from aime_gym.experiments.config import Tracker
from aime_gym.experiments.evaluation import Score

#: Function of an agent and of a title that makes a new run, as an output of SB3's logger; it may be sent to other
#: processes.
Tracking: TypeAlias = Callable[[ImitationAgent, str], KVWriter]


def tracking_by(tracker: Tracker | None, folder: Path, group: str) -> Tracking | None:
    """Return a tracker by its name; ``None`` for none.

    TensorBoard has a folder for each run. Weights & Biases has the project ``aime_gym`` or ``WANDB_PROJECT``.

    :param folder: folder that gets a folder ``tensorboard`` or ``wandb``.
    :param group: name that the runs of Weights & Biases have in common.
    :raises ImportError: Weights & Biases is not installed.
    :raises ValueError: it has no account, and is not offline.
    """
    if tracker is None:
        return None
    if tracker == "tensorboard":
        return partial(_tensorboard_run, folder=folder / tracker)
    wandb = import_extra("wandb", "wandb", "track: wandb is not installed")
    try:
        wandb.login()  # asks, if there is somebody to ask
    except wandb.errors.Error as error:
        raise ValueError(f"track: {error} WANDB_MODE=offline keeps runs in {folder / 'wandb'}") from error
    return partial(_WandbOutputFormat, folder=folder, group=group)


def _tensorboard_run(agent: ImitationAgent, title: str, *, folder: Path) -> KVWriter:
    """Return a writer in a folder of this title; files of an earlier run there are replaced."""
    folder /= as_file_name(title)
    if agent.checkpoint_dir is None:  # otherwise an earlier file may be the beginning of this run
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()
    return TensorBoardOutputFormat(str(folder))


class _WandbOutputFormat(KVWriter):
    """Run of Weights & Biases, whose x-axis is the metric ``step``: a run's own steps cannot begin anew in a phase."""

    def __init__(self, agent: ImitationAgent, title: str, *, folder: Path, group: str) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        project = os.environ.get("WANDB_PROJECT", "aime_gym")
        self._run = wandb.init(reinit="create_new", project=project, name=title, group=group, dir=str(folder))
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


@contextmanager
def tracked(tracking: Tracking | None, agent: ImitationAgent, title: str, about: Mapping[str, Any]) -> Iterator[None]:
    """Track an agent as one run with its configuration, if runs are tracked.

    :param about: further entries of the run's configuration.
    """
    if tracking is None:
        yield
        return
    agent.set_logger(Logger(None, [tracking(agent, title)]))
    try:
        options = {**about, **asdict(agent.config)}
        texts = {key: json.dumps(value) for key, value in options.items() if isinstance(value, Mapping | tuple | list)}
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
