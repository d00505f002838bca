"""Search for hyper-parameters with Optuna: each trial trains and evaluates an agent as cells of a suite do."""

from __future__ import annotations

import fcntl
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from stable_baselines3.common.logger import KVWriter

from aime_gym.config import declared_bounds, nearest_names
from aime_gym.experiments.agent_spec import AgentSpec
from aime_gym.experiments.cells import Suite, identity_digest
from aime_gym.experiments.jobs import Failure, Job, jobs_of
from aime_gym.experiments.runner import CheckedSuite, check
from aime_gym.experiments.tracking import Tracking

try:
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import Trial, TrialState
except ImportError as error:
    raise ImportError("tune: optuna is not installed: pip install 'aime-gym[tune]'") from error

#: Function of a trial that suggests a value.
_Suggest: TypeAlias = partial[Any]
#: Trials that count; those that were interrupted do not.
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
#: Ratio of a range's ends to the value that the agent has in the suite.
_SPREAD = 10


@dataclass(frozen=True)
class Search:
    """Search for hyper-parameters of one agent on one task.

    :param checked: suite of the cells that a trial runs with its own hyper-parameters, one for each seed.
    :param space: hyper-parameters by name, each with the function that suggests a value.
    :param storage: URL of a database, or path of a journal.
    """

    checked: CheckedSuite
    space: Mapping[str, _Suggest]
    storage: str

    def run(self, out: Path, trials: int) -> optuna.Study:
        """Run trials until there are so many in the storage, those of other processes included.

        :param out: folder of the data that trials share.
        :raises RuntimeError: data that cannot be recorded.
        """
        out.mkdir(parents=True, exist_ok=True)
        with (out / "lock").open("w") as lock:  # other processes wait for what the first one records
            fcntl.flock(lock, fcntl.LOCK_EX)
            jobs = {job.title: job for job in self._jobs(out, {})}
            for title in set[str]().union(*(job.needs for job in jobs.values())):  # play and demonstrations
                if isinstance(result := jobs[title].run(progress=True), Failure):
                    raise RuntimeError(f"{title}: {result.error}")
            study = self._study()
        if len(study.get_trials(deepcopy=False, states=_ENDED)) < trials:
            enough = optuna.study.MaxTrialsCallback(trials, states=_ENDED)
            study.optimize(partial(self._score, out), callbacks=[enough], catch=Exception)
        return study

    def _score(self, out: Path, trial: Trial) -> float:
        """Return the mean return over the seeds."""
        options = {name: suggest(trial) for name, suggest in self.space.items()}
        reports = _TrialReports(trial)
        jobs = self._jobs(out, options, lambda agent, title: reports)
        return float(np.mean([np.mean(job.work(progress=False)["returns"]) for job in jobs if job.is_cell]))

    def _jobs(self, out: Path, options: Mapping[str, Any], tracking: Tracking | None = None) -> list[Job]:
        suite = self.checked.suite
        cells = tuple(replace(cell, spec=_changed(cell.spec, options)) for cell in suite.cells)
        return jobs_of(replace(suite, cells=cells), self.checked.learners, out / "data", None, tracking=tracking)

    def _study(self) -> optuna.Study:
        """Return the study, which belongs to these cells and this space."""
        cells = self.checked.suite.cells
        identity = {
            "cells": [cell.key for cell in cells],
            "space": [suggest.keywords for suggest in self.space.values()],
        }
        name = f"{cells[0].task.label}, {cells[0].agent}, {identity_digest(identity)}"
        is_url = "://" in self.storage
        storage: Any = self.storage if is_url else optuna.storages.JournalStorage(JournalFileBackend(self.storage))
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
        seed = study.user_attrs.get("processes", 0)  # each draws other random numbers
        study.set_user_attr("processes", seed + 1)
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        return study


class _TrialReports(KVWriter):
    """Output of a logger that reports each evaluation to Optuna, which ends a trial below the median of the others."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._steps = count()

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        if "eval/mean_reward" in key_values:
            self._trial.report(key_values["eval/mean_reward"], next(self._steps))
            if self._trial.should_prune():
                raise optuna.TrialPruned

    def close(self) -> None:
        pass


def prepare_search(suite: Suite, agent: str | None, task: str | None, names: tuple[str, ...], storage: str) -> Search:
    """Check what a search needs.

    Its seeds are others than the suite's, whose results are then not those that were selected.

    :param agent: label of the agent in the suite; ``None`` for the first one.
    :param task: label of the task; ``None`` for the first one of the agent.
    :param names: hyper-parameters to search beside those in ``[search]`` of the suite: from a tenth of their values to
        ten times of them, or between the bounds that the agent declares. By default all learning rates.
    :raises ValueError: an agent, a task or hyper-parameters that are not there, or cannot be searched.
    """
    pairs = dict.fromkeys((cell.agent, cell.task.label) for cell in suite.cells)
    chosen = next((pair for pair in pairs if agent in (None, pair[0]) and task in (None, pair[1])), None)
    if chosen is None:
        known = ", ".join(f"{label} on {name}" for label, name in pairs)
        raise ValueError(f"agent: expected one of {known}, got {agent or 'any'} on {task or 'any'}")
    found = [cell for cell in suite.cells if (cell.agent, cell.task.label) == chosen]
    spec = found[0].spec
    label = chosen[0]
    table = suite.search.get(label, {})
    space = {name: _listed(spec, name, values, f"search.{label}.{name}") for name, values in table.items()}
    bounds = {name: ends for name, ends in declared_bounds(spec.config).items() if getattr(spec.config, name)}
    rates = [name for name in bounds if name.endswith("learning_rate")]
    for name in names or ([] if table else rates):
        if name not in bounds:
            raise ValueError(f"search: expected a number above zero, got {name!r}; {nearest_names(name, bounds)}")
        space[name] = _around(name, getattr(spec.config, name), *bounds[name])
    first = max(cell.seed for cell in suite.cells) + 1
    by_seed = {cell.seed: replace(found[0], seed=first + cell.seed) for cell in found}
    cells = tuple(by_seed.values())
    return Search(check(replace(suite, tasks=(found[0].task,), agents=(label,), cells=cells)), space, storage)


def _changed(spec: AgentSpec, options: Mapping[str, Any]) -> AgentSpec:
    return AgentSpec.of(spec.name, {**spec.options, **options})


def _listed(spec: AgentSpec, name: str, values: Any, where: str) -> _Suggest:
    """Suggest one of a list of values or of a range, as a suite has them."""
    if isinstance(values, list) and values:
        choices = [_changed(spec, {name: value}).options[name] for value in values]
        return partial(Trial.suggest_categorical, name=name, choices=choices)
    if not isinstance(values, dict) or not {"low", "high"} <= set(values) <= {"low", "high", "log"}:
        raise ValueError(f"{where}: expected a list of values, or a table of low, high and maybe log, got {values!r}")
    low, high = (_changed(spec, {name: values[end]}).options[name] for end in ("low", "high"))
    return _number(name, low, high, log=values.get("log", False))


def _around(name: str, value: float, least: float, most: float | None) -> _Suggest:
    """Suggest a fraction between its bounds, or a number around a value on a logarithmic scale."""
    if isinstance(value, float) and most is not None:
        return _number(name, float(least), float(most), log=False)
    low = max(1, least, value // _SPREAD) if isinstance(value, int) else max(least, value / _SPREAD)
    return _number(name, low, min(value * _SPREAD, math.inf if most is None else most), log=True)


def _number(name: str, low: Any, high: Any, *, log: bool) -> _Suggest:
    suggest = Trial.suggest_int if isinstance(low, int) else Trial.suggest_float
    return partial(suggest, name=name, low=low, high=high, log=log)


def agent_table(search: Search, options: Mapping[str, Any]) -> str:
    """Return the agent with these hyper-parameters, as a table of a suite."""
    cell = search.checked.suite.cells[0]
    label = cell.agent if re.fullmatch(r"[A-Za-z0-9_-]+", cell.agent) else json.dumps(cell.agent)
    chosen = _toml(_changed(cell.spec, options).options)
    return f"[agents.{label}]\nagent = {json.dumps(cell.spec.name)}\noptions = {chosen}\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_toml(part)}' for key, part in value.items())} }}"
    return json.dumps("none" if value is None else value)
