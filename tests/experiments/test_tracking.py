"""Each run of an experiment is one run of TensorBoard or of Weights & Biases, with its options and its results."""

import json
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aime_gym.cli import main
from aime_gym.experiments.records import read_records
from aime_gym.experiments.runner import check, run_suite
from aime_gym.experiments.suite import read_suite
from aime_gym.experiments.tracking import tracked, tracking_by

SUITE = """
seeds = [0, 1]
demonstrations = 2
eval_episodes = 2
curve_steps = 8
curve_episodes = 1
[tasks.car]
id = "MountainCar-v0"
modality = "state"
max_episode_steps = 20
demos = "classic/MountainCar-v0"
play_episodes = 2
[agents.bco]
options = { min_epochs = 1, max_epochs = 2, min_updates = 2 }
[agents.gaifo]
seeds = [0]
options = { timesteps = 16, algorithm_kwargs = { n_steps = 8, batch_size = 8 } }
"""


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "suite.toml").write_text(SUITE)
    return tmp_path / "suite.toml"


def scalars(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    values = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return values, str(events.PluginTagToContent("hparams"))


def test_cells_of_a_benchmark_in_tensorboard(suite, tmp_path):
    out = tmp_path / "out"
    tracking = tracking_by("tensorboard", out, "suite")
    outcome = run_suite(check(read_suite(suite)), out, workers=None, tracking=tracking, progress=False)
    assert outcome.done == 3
    runs = {path.name: scalars(path) for path in (out / "tensorboard").iterdir()}
    assert set(runs) == {
        "car-bco-2-demonstrations-seed-0", "car-bco-2-demonstrations-seed-1", "car-gaifo-2-demonstrations-seed-0"
    }  # fmt: skip
    results = {
        (record["agent"], record["seed"]): record
        for record in read_records(out / "results.jsonl")
        if record["what"] == "cell"
    }
    for (agent, seed), record in results.items():
        values, options = runs[f"car-{agent}-2-demonstrations-seed-{seed}"]
        assert "demonstrations" in options
        assert ("max_epochs" if agent == "bco" else "timesteps") in options
        assert values["eval/mean_reward"][-1][1] == pytest.approx(sum(record["returns"]) / 2)
        steps = [point["env_steps"] for point in record["curve"]]
        assert [step for step, _ in values["eval/mean_reward"]][:-1] == steps
        assert {"policy/loss" if agent == "bco" else "discriminator/loss"} <= set(values)


def test_a_run_that_is_repeated_replaces_its_files(tmp_path):
    class Agent:
        checkpoint_dir = None

    folder = tmp_path / "tensorboard" / "task-seed-0"
    folder.mkdir(parents=True)
    (folder / "events.out.tfevents.1").write_text("earlier")
    (folder / "mine.txt").write_text("other")
    tracking_by("tensorboard", tmp_path, "suite")(Agent(), "task, seed 0").close()
    names = {path.name for path in folder.iterdir()}
    assert "mine.txt" in names
    assert "events.out.tfevents.1" not in names


TRAIN = "train bc MountainCar-v0 --modality state --demos classic/MountainCar-v0 -o max_epochs=1 -o min_epochs=1"


def test_training_in_tensorboard(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*TRAIN.split(), "-o", "min_updates=2", "--track", "tensorboard", "--out", "car.zip"]) == 0
    values, _ = scalars("tensorboard/car")
    assert values


def test_training_in_weights_and_biases_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    assert main([*TRAIN.split(), "-o", "min_updates=2", "--track", "wandb", "--out", "car.zip"]) == 0
    (run,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    content = run.read_bytes()
    for text in (b"learning_rate", b"MountainCar-v0", b"aime_gym", b"step"):
        assert text in content


def test_a_run_of_weights_and_biases(tmp_path, monkeypatch):
    """Scalars with their step, hyper-parameters as configuration, and an error as a failed run."""
    pytest.importorskip("wandb")
    calls = []

    class Run:
        config = property(lambda self: self)

        def __getattr__(self, name):
            return lambda *arguments, **options: calls.append((name, *arguments, options))

    monkeypatch.setattr("wandb.init", lambda **settings: Run())
    monkeypatch.setattr("wandb.login", lambda: True)

    class Agent:
        def set_logger(self, logger):
            self.logger = logger

    from dataclasses import dataclass

    @dataclass
    class Config:
        learning_rate: float = 0.5
        algorithm_kwargs: tuple = (1, 2)

    agent = Agent()
    agent.config = Config()

    def train():
        with tracked(tracking_by("wandb", tmp_path, "suite"), agent, "task, seed 0", {"seed": 0}):
            agent.logger.record("train/loss", 0.25)
            agent.logger.dump(7)
            raise KeyError

    with pytest.raises(KeyError):
        train()
    assert calls == [
        ("define_metric", "*", {"step_metric": "step"}),
        ("update", {"seed": 0, "learning_rate": 0.5, "algorithm_kwargs": json.dumps([1, 2])}, {}),
        ("log", {"train/loss": 0.25, "step": 7}, {}),
        ("finish", {"exit_code": 1}),
    ]


def test_what_is_missing_ends_in_one_line(suite, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SystemExit) as end:
        main(["benchmark", str(suite), "--out", str(tmp_path / "out"), "--track", "wandb"])
    assert end.value.code == 2
    assert (
        "--track: wandb is not installed (import of wandb halted; None in sys.modules): pip install 'aime-gym[wandb]'"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out" / "results.jsonl").exists()
