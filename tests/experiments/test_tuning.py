"""A search tries hyper-parameters within what was asked for, goes on where it was, and ends in a table of a suite."""

import sys
import tomllib

import numpy as np
import pytest

from aime_gym.agents import AIMEAgent, BCOAgent
from aime_gym.cli import main
from aime_gym.config import declared_bounds
from aime_gym.experiments.suite import read_suite

optuna = pytest.importorskip("optuna")
tuning = pytest.importorskip("aime_gym.experiments.tuning")

SUITE = """
seeds = [0, 3]
demonstrations = 2
eval_episodes = 2
[tasks.car]
id = "MountainCar-v0"
modality = "state"
max_episode_steps = 20
demos = "classic/MountainCar-v0"
play_episodes = 2
[agents.small]
agent = "bco"
options = { min_epochs = 1, max_epochs = 1, min_updates = 2 }
[agents.bc]
"""
SEARCH = """
[search.small]
batch_size = [10, 20]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
stack = { low = 1, high = 3 }
"""


@pytest.fixture
def suite(tmp_path):
    def write(search=SEARCH):
        (tmp_path / "suite.toml").write_text(SUITE + search)
        return tmp_path / "suite.toml"

    return write


def tune(path, *arguments):
    return main(["tune", str(path), "--out", str(path.parent / "out"), *arguments])


def studies(storage):
    if "://" not in storage:
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


@pytest.mark.parametrize("scheme", ["", pytest.param("sqlite:///", marks=pytest.mark.slow)])
def test_a_search_goes_on_and_its_table_is_a_suite_s(suite, tmp_path, capsys, scheme):
    path = suite()
    storage = f"{scheme}{tmp_path}/trials"
    for trials in (1, 3, 2):  # the last one has nothing to do
        assert tune(path, "--trials", str(trials), "--storage", storage) == 0
    study = studies(storage)
    assert len(study.trials) == 3
    assert len({str(trial.params) for trial in study.trials}) == 3
    for trial in study.trials:
        assert set(trial.params) == {"batch_size", "learning_rate", "stack"}
        assert trial.params["batch_size"] in (10, 20)
        assert 1e-4 <= trial.params["learning_rate"] <= 1e-2
        assert trial.params["stack"] in (1, 2, 3)
        assert trial.value == -20
        assert list(trial.intermediate_values) == [0, 1]  # of each seed
    best = (tmp_path / "out" / "best.toml").read_text()
    assert best in capsys.readouterr().out
    pasted = SUITE.partition("[agents.small]")[0] + best
    path.write_text(pasted)
    assert dict(read_suite(path).cells[0].spec.options) == {
        "min_epochs": 1, "max_epochs": 1, "min_updates": 2, **study.best_params
    }  # fmt: skip


def test_a_journal_and_recorded_data(suite, tmp_path):
    path = suite("")
    path.write_text(path.read_text().replace('"MountainCar-v0"\nmod', '"Pendulum-v1"\nmod').replace(
        'demos = "classic/MountainCar-v0"', 'expert = "sac:1"'))  # fmt: skip
    assert tune(path, "--trials", "1", "--search", "learning_rate", "--search", "train_fraction") == 0
    made = {file.name.partition("-")[0] for file in (tmp_path / "out" / "data").iterdir()}
    assert made == {"demos", "play"}
    assert tomllib.loads((tmp_path / "out" / "best.toml").read_text())["agents"]["small"]["agent"] == "bco"
    assert (tmp_path / "out" / "trials.journal").stat().st_size > 0


def test_the_seeds_of_a_search_are_none_of_the_suite_s(suite):
    search = tuning.prepare_search(read_suite(suite()), "small", "car", (), "none")
    assert [cell.seed for cell in search.checked.suite.cells] == [4, 7]


def space(suite, *names):
    search = tuning.prepare_search(read_suite(suite), "small", "car", names, "none")
    return {name: (suggest.func.__name__, suggest.keywords) for name, suggest in search.space.items()}


def test_the_space_by_declared_bounds(suite):
    found = space(suite(""), "batch_size", "train_fraction")
    assert found["batch_size"] == ("suggest_int", {"name": "batch_size", "low": 5, "high": 500, "log": True})
    fraction = found["train_fraction"]
    assert fraction == ("suggest_float", {"name": "train_fraction", "low": 0.0, "high": 1.0, "log": False})
    (rate,) = space(suite("")).values()
    assert rate[1] == {"name": "learning_rate", "low": 1e-4, "high": 1e-2, "log": True}
    assert set(space(suite(), "patience")) == {"batch_size", "learning_rate", "stack", "patience"}


def test_bounds_are_those_that_a_configuration_checks():
    config = BCOAgent.presets["default"]
    assert declared_bounds(config)["train_fraction"] == (0, 1)
    assert declared_bounds(AIMEAgent.presets["default"])["play_ratio"] == (0, 1)
    for name, (least, _) in declared_bounds(config).items():
        with pytest.raises(ValueError, match=f"^{name}: expected "):
            type(config)(**{name: least - 1})


def test_a_trial_below_the_median_is_pruned():
    from stable_baselines3.common.logger import Logger

    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=2))
    kept = []
    for score in (10.0, 12.0, 11.0, 5.0):
        trial = study.ask()
        logger = Logger(None, [tuning._TrialReports(trial)])
        logger.record("train/loss", 1.0)
        logger.dump()
        logger.record("eval/mean_reward", score)
        try:
            logger.dump()
            kept.append(score)
        except optuna.TrialPruned:
            pass
        study.tell(trial, score)
    assert kept == [10.0, 12.0, 11.0]


def test_a_trial_that_fails_costs_no_other(suite, monkeypatch, capsys):
    def train(*arguments, **options):
        raise RuntimeError("no")

    monkeypatch.setattr("aime_gym.experiments.jobs.train", train)
    with pytest.raises(SystemExit):
        tune(suite(), "--trials", "2")
    assert "No trials are completed yet" in capsys.readouterr().err


def test_data_that_cannot_be_recorded_ends_in_one_line(suite, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data").write_text("where a folder should be")
    assert tune(suite(), "--trials", "1") == 1
    *_, line = capsys.readouterr().err.splitlines()  # progress bars come first
    assert line.startswith("aime-gym tune: failed: car, play: FileExistsError: ")


@pytest.mark.parametrize(
    ("search", "arguments", "message"),
    [
        ("", ["--agent", "gail"], "--agent: expected one of small on car, bc on car, got gail on any"),
        ("", ["--search", "learning_rat"], "--search: expected a number above zero, got 'learning_rat'; did you mean"),
        ("", ["--trials", "0"], "--trials: expected at least 1, got 0"),
        ("[search.small]\nbatch = [1]", [], "agent bco: unknown option 'batch'; did you mean batch_size"),
        ("[search.small]\nstack = 3", [], "search.small.stack: expected a list of values, or a table of low, high"),
        ("[search.small]\nstack = ['x']", [], "agent bco: stack: expected int, got 'x'"),
        ("[search.gail]\nstack = [3]", [], "search: unknown name 'gail'; expected one of small, bc"),
        ("[search]\nsmall = 3", [], "search.small: expected a table, got 3"),
    ],
)
def test_bad_input_ends_in_one_line(suite, search, arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        tune(suite(search), *arguments)
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_without_optuna_the_command_is_named(suite, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "aime_gym.experiments.tuning")
    with pytest.raises(SystemExit):
        tune(suite())
    assert "optuna is not installed: pip install 'aime-gym[tune]'" in capsys.readouterr().err


def test_none_is_text_in_a_table():
    assert tuning._toml({"a": None, "b": [1, 2], "c": {"d": True}, "e": 1e-5}) == (
        '{ a = "none", b = [1, 2], c = { d = true }, e = 1e-05 }'
    )
    assert np.isclose(tomllib.loads(f"x = {tuning._toml({'e': 1e-5})}")["x"]["e"], 1e-5)
