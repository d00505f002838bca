"""Tracking of runs: what agents log goes to TensorBoard or to Weights & Biases, through SB3's logger."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import HParam, KVWriter, Logger, TensorBoardOutputFormat

from aime_gym.agents.base import ImitationAgent
from aime_gym.experiments.cells import Cell, as_file_name
from aime_gym.experiments.config import Tracker
from aime_gym.experiments.evaluation import Score


class WandbOutputFormat(KVWriter):
    """Output of SB3's logger to a run of Weights & Biases, whose steps are the metric ``step``.

    Phases count updates or environment steps, and a run's own steps cannot go back.

    :param settings: arguments of ``wandb.init``.
    """

    def __init__(self, **settings: Any) -> None:
        import wandb

        self._run = wandb.init(reinit="create_new", **settings)
        self._run.define_metric("*", step_metric="step")

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Log the scalars, and take hyper-parameters into the run's configuration."""
        for value in key_values.values():
            if isinstance(value, HParam):
                self._run.config.update(dict(value.hparam_dict))
        scalars = {key: value for key, value in key_values.items() if isinstance(value, np.ScalarType)}
        if scalars:
            self._run.log({**scalars, "step": step})

    def close(self) -> None:
        """End the run, as failed if it is closed because of an error."""
        self._run.finish(exit_code=int(sys.exc_info()[0] is not None))


@dataclass(frozen=True)
class Tracking:
    """Tracker of runs, and the place of its files.

    :param folder: folder in which it has a folder: ``tensorboard``, with one for each run, or ``wandb``.
    :param group: name of the suite or of the agent, for runs of Weights & Biases.
    :raises ImportError: Weights & Biases is not installed.
    :raises ValueError: it has no account, and is not offline.
    """

    tracker: Tracker
    folder: Path
    group: str

    def __post_init__(self) -> None:
        if self.tracker == "wandb":
            try:
                import wandb
            except ImportError as error:
                raise ImportError("track: wandb is not installed: pip install 'aime-gym[wandb]'") from error
            try:
                wandb.login()  # asks, if there is somebody to ask
            except wandb.errors.Error as error:
                raise ValueError(f"track: {error} WANDB_MODE=offline keeps runs in {self.folder / 'wandb'}") from error

    @contextmanager
    def run(self, agent: ImitationAgent, title: str, about: Mapping[str, Any]) -> Iterator[None]:
        """Track an agent as one run, with its configuration.

        :param title: name of the run.
        :param about: further entries of the run's configuration.
        """
        writer: KVWriter
        if self.tracker == "tensorboard":
            folder = self.folder / "tensorboard" / as_file_name(title)
            if agent.checkpoint_dir is None:  # otherwise an earlier file may be the beginning of this run
                for earlier in folder.glob("events.out.tfevents.*"):
                    earlier.unlink()
            writer = TensorBoardOutputFormat(str(folder))
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            project = os.environ.get("WANDB_PROJECT", "aime_gym")
            writer = WandbOutputFormat(project=project, name=title, group=self.group, dir=str(self.folder))
        agent.set_logger(Logger(str(self.folder), [writer]))
        try:
            options = {name: _plain(value) for name, value in {**about, **asdict(agent.config)}.items()}
            agent.logger.record("hparams", HParam(options, {"eval/mean_reward": 0.0}))
            agent.logger.dump()
            yield
        finally:
            agent.logger.close()


def tracked(tracking: Tracking | None, agent: ImitationAgent, title: str, cell: Cell) -> AbstractContextManager[None]:
    """Track the agent of a cell as one run, if runs are tracked."""
    about = {"task": cell.task.label, "agent": cell.agent, "demonstrations": cell.demonstrations, "seed": cell.seed}
    return nullcontext() if tracking is None else tracking.run(agent, title, about)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, default=str)


def log_score(agent: ImitationAgent, score: Score) -> None:
    """Log an evaluation under the names of SB3's ``EvalCallback``."""
    agent.logger.record("eval/mean_reward", score.mean)
    agent.logger.record("eval/mean_ep_length", float(np.mean(score.lengths)))
    if score.success_rate is not None:
        agent.logger.record("eval/success_rate", score.success_rate)
    agent.dump_logs()
