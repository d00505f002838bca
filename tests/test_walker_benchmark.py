"""The script of the Walker table: folders from recordings, and the table beside the paper's."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from aime_gym.experiments.data import load_for_task
from aime_gym.experiments.records import append_record
from aime_gym.experiments.runner import RESULTS
from aime_gym.experiments.suite import read_suite
from aime_gym.tasks import TaskConfig

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def walker(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["walker.py", *map(str, arguments)])
    runpy.run_path(str(BENCHMARKS / "walker.py"), run_name="__main__")


def test_recordings_become_folders_for_both_modalities(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(2, 4, 24)).astype(np.float32)
    actions = rng.uniform(-1, 1, size=(2, 4, 6)).astype(np.float32)
    rewards = np.array([[0, 1, 1, 1], [0, 0, 1, 0]], np.float32)
    np.savez(tmp_path / "walker-walk-expert.npz", obs=observations, pre_action=actions, reward=rewards)
    walker(monkeypatch, "convert", tmp_path, "--out", tmp_path)
    assert "demos-walk: 2 episodes, mean return 2.0" in capsys.readouterr().out
    for modality, size in (("position", 15), ("state", 24)):
        task = TaskConfig("walker-run", modality)
        loaded = load_for_task(task, tmp_path / "demos-walk", argument="demos", actions=True)
        np.testing.assert_array_equal([one.observations for one in loaded], observations[..., :size])
        np.testing.assert_array_equal([one.actions for one in loaded], actions[:, 1:])
        assert [one.episode_return for one in loaded] == [3, 1]


def test_the_suite_has_the_papers_cells():
    suite = read_suite(BENCHMARKS / "suites" / "walker.toml")
    tasks = {cell.task.label for cell in suite.cells if cell.agent == "aime"}
    assert len(tasks) == 36
    assert {"stand-position/random", "run-state/mix"} <= tasks
    assert sum(cell.agent == "bc" for cell in suite.cells) == 6


@pytest.fixture
def results(tmp_path):
    def record(what, key, task, returns, **about):
        append_record(
            tmp_path / RESULTS,
            {"what": what, "key": key, "task": task, "status": "done", **about} | {"returns": returns},
        )

    record("expert", "expert", "walk-position", [800.0, 1000.0])
    for agent, play, returns in (("aime", "/explore", [450.0]), ("aime", "/mix", [900.0]), ("bc", "", [810.0])):
        about = {"agent": agent, "name": agent, "oracle": agent == "bc", "demonstrations": 100, "seed": 0}
        about |= {"env": {"env_id": "walker-walk", "modality": "position"}, "random": "", "expert": "expert"}
        seconds = {"train_seconds": 60.0, "pretrain_share_seconds": 30.0}
        record("cell", agent + play, f"walk-position{play}", returns, **about, **seconds)
    return tmp_path


def test_a_table_has_the_papers_figures_beside_ours(results, monkeypatch, capsys):
    walker(monkeypatch, "table", results)
    lines = capsys.readouterr().out.splitlines()
    assert "| aime | position | 2 | 75 (72) | 1.5 |" in lines
    assert "| bc | position | 1 | 90 | 1.5 |" in lines
    assert "| explore | (92) | 50 (76) | (55) |" in lines
    assert "| mix | (84) | 100 (81) | (63) |" in lines
    assert "| none |  | 90 |  |" in lines
    assert not any(line.startswith("| stand |") for line in lines)
