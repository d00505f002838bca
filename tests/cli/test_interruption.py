"""Ctrl-C is never a success, and what was finished is kept by a name that says so; bad outputs end before the work."""

import json
import multiprocessing
import signal
from pathlib import Path

import numpy as np
import pytest

from aime_gym import processes
from aime_gym.agents import BCOAgent, load_agent
from aime_gym.cli import main
from aime_gym.data import collect, load_trajectories, save_minari
from aime_gym.experiments import data as recording
from aime_gym.experiments import experts
from aime_gym.tasks import TaskConfig

CARTPOLE = ["CartPole-v1", "--modality", "state", "--max-episode-steps", "20"]
TINY = ["-o", "min_epochs=1", "-o", "max_epochs=1", "-o", "min_updates=2"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stored(tmp_path):
    with TaskConfig("CartPole-v1", "state").make() as env:
        save_minari(tmp_path / "stored", collect(env, "play", 3, seed=0, progress=False), env)
    return ["--play", "stored", "--demos", "stored"]


def test_ctrl_c_ends_the_processes_of_a_recording(in_processes, monkeypatch, capsys):
    first_ready = processes.first_ready
    calls = iter(range(99))

    def interrupted(running, timeout):
        if next(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return first_ready(running)

    monkeypatch.setattr(processes, "first_ready", interrupted)
    with pytest.warns(UserWarning, match="collect: interrupted"):
        assert main(["collect", *CARTPOLE, "--episodes", "99", "--workers", "2", "--out", "play"]) == 130
    kept = load_trajectories("play-interrupted")
    assert 1 <= len(kept) <= 5
    assert not Path("play").exists()
    assert multiprocessing.active_children() == []
    assert main(["collect", *CARTPOLE, "--episodes", str(len(kept)), "--out", "play"]) == 0
    for one, other in zip(load_trajectories("play"), kept, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)


def ctrl_c_after(episodes):
    """Recording that gets Ctrl-C after some complete episodes."""

    def interrupted(env, policy, count, **options):
        step, resets = env.step, [0]

        def counting_step(action):
            result = step(action)
            resets[0] += result[2] or result[3]
            if resets[0] == episodes + 1:
                signal.raise_signal(signal.SIGINT)
            return result

        env.step = counting_step
        return collect(env, policy, count, **options)

    return interrupted


@pytest.mark.filterwarnings("ignore:collect. interrupted")
def test_an_interrupted_recording_is_kept_by_another_name(monkeypatch, capsys):
    monkeypatch.setattr(recording, "collect", ctrl_c_after(2))
    for name in ("play-interrupted", "play-interrupted2"):
        assert main(["collect", *CARTPOLE, "--episodes", "9", "--out", "play"]) == 130
        assert len(load_trajectories(name)) == 2
        assert f"the complete episodes go to {name}" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:collect. interrupted")
def test_an_interrupted_recording_without_an_episode_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experts, "collect", ctrl_c_after(0))
    reach = ["reach-v3", "--max-episode-steps", "8"]
    assert main(["collect", *reach, "--policy", "expert", "--episodes", "9", "--out", "demos"]) == 130
    assert list(tmp_path.iterdir()) == []
    assert "nothing is written" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:collect. interrupted")
def test_training_does_not_go_on_with_a_part_of_the_play(stored, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recording, "collect", ctrl_c_after(1))
    data = ["--play", "play", "--play-episodes", "5", *stored[2:]]
    assert main(["train", "bco", *CARTPOLE, *data, *TINY, "--out", "bco.zip"]) == 130
    assert {path.name for path in tmp_path.iterdir()} == {"stored", "bco-play-interrupted"}
    assert len(load_trajectories("bco-play-interrupted")) == 1
    assert "kept in bco-play-interrupted" in capsys.readouterr().err


def test_ctrl_c_in_a_phase_ends_the_training(stored, tmp_path, monkeypatch, capsys):
    def interrupted(agent, *_, **__):
        agent.interrupted = True  # as the agent says after Ctrl-C, without checkpoints

    monkeypatch.setattr(BCOAgent, "pretrain", interrupted)
    monkeypatch.setattr(BCOAgent, "imitate", lambda *_, **__: pytest.fail("went on to the next phase"))
    assert main(["train", "bco", *CARTPOLE, *stored, *TINY, "--out", "bco.zip"]) == 130
    assert {path.name for path in tmp_path.iterdir()} == {"stored", "bco-interrupted.zip"}
    assert not load_agent("bco-interrupted.zip").imitated
    assert "the half-trained agent is kept in bco-interrupted.zip" in capsys.readouterr().err


def test_an_interrupted_comparison_ends_with_130(stored, monkeypatch):
    def interrupted(agent, *_, **__):
        agent.interrupted = True

    monkeypatch.setattr(BCOAgent, "imitate", interrupted)
    agents = ["--agents", "bco:min_epochs=1,max_epochs=1,min_updates=2", "--eval-episodes", "1"]
    assert main(["compare", *CARTPOLE, *stored, *agents, "--out", "out"]) == 130
    assert json.loads(Path("out/results.json").read_text())["interrupted"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "collect Pendulum-v1 --modality state --policy plan2explore --workers 2 --out play",
            "--workers: expected 1 with 'plan2explore', which learns after each episode, got 2",
        ),
        ("collect reach-v3 --out file/play", "--out: expected a folder that can be written, got file/play"),
        ("train bco {} --out folder", "--out: expected a file, got the folder folder"),
        ("train bco {} --out file/bco.zip", "--out: expected a file that can be written, got file/bco.zip"),
        ("train bco {} --out a.zip --checkpoint file", "--checkpoint: expected a folder that can be written"),
        ("compare {} --agents bc --out file", "--out: expected a folder that can be written, got file"),
        ("evaluate agent.zip {task} --video file/a.mp4", "--video: expected a file that can be written"),
        ("evaluate agent.zip {task} --video a.avi", "--video: expected a file that ends in .mp4 or .gif"),
        ("diagnose agent.zip --demos stored --play stored --out file", "--out: expected a folder that can be"),
        ("beliefs agent.zip --demos stored --out file/a.mp4", "--out: expected a file that can be written"),
    ],
)
def test_what_cannot_be_written_ends_before_any_work(arguments, message, stored, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("where a folder should be")
    (tmp_path / "folder").mkdir()
    with TaskConfig("CartPole-v1", "state").make() as env:
        BCOAgent(env, seed=0).save("agent.zip")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(BCOAgent, "pretrain", lambda *_, **__: pytest.fail("trained before it checked"))
    monkeypatch.setattr(recording, "collect", lambda *_, **__: pytest.fail("recorded before it checked"))
    capsys.readouterr()
    task = " ".join(CARTPOLE)
    with pytest.raises(SystemExit) as end:
        main(arguments.replace("{task}", task).replace("{}", " ".join([task, *stored])).split())
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
