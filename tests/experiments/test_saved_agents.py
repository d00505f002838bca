"""The diagnosis of files: `aime-gym diagnose`."""

import json

import numpy as np
import pytest
import small

from aime_gym.agents import AIMEAgent, BCAgent
from aime_gym.agents.registry import load_agent
from aime_gym.cli import main
from aime_gym.data import load_trajectories, save_minari
from aime_gym.testing import toy


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with an agent, its demonstrations, and play."""
    folder = tmp_path_factory.mktemp("files")
    env, play, demos = toy.task()
    AIMEAgent(env, seed=0, **small.TINY["aime"]).pretrain(play, progress_bar=False).save(folder / "agent.zip")
    BCAgent(env, seed=0).save(folder / "bc.zip")
    AIMEAgent(env, seed=0, **small.TINY["aime"]).save(folder / "new.zip")
    save_minari(folder / "play", play, env)
    save_minari(folder / "demos", demos, env, actions=False)
    return folder


def test_a_diagnosis_is_printed_and_written(files, tmp_path, capsys):
    data = ["--demos", str(files / "demos"), "--play", str(files / "play"), "--demo-count", "3"]
    assert main(["diagnose", str(files / "agent.zip"), *data, "--out", str(tmp_path / "out")]) == 0
    assert "verdict: " in capsys.readouterr().out
    document = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    assert document["coverage"]["demonstrations"] == 3
    assert document["play"] == {"episodes": 12, "held_out": True, "outside": 0.0}
    assert (tmp_path / "out" / "diagnosis.png").is_file()


@pytest.mark.parametrize("out", ["labelled", "labelled.npz"])
def test_demonstrations_are_labelled(out, files, tmp_path, capsys):
    arguments = ["label", str(files / "agent.zip"), "--demos", str(files / "demos"), "--demo-count", "3"]
    assert main([*arguments, "--out", str(tmp_path / out)]) == 0
    assert "3 episodes, " in capsys.readouterr().out
    labelled = load_trajectories(tmp_path / out)
    demos = load_trajectories(files / "demos")[:3]
    inferred = load_agent(files / "agent.zip").infer_actions(demos)
    for one, demo, expected in zip(labelled, demos, inferred, strict=True):
        np.testing.assert_array_equal(one.observations, demo.observations)
        np.testing.assert_array_equal(one.actions, expected.actions)
        assert one.terminated != one.truncated


def test_more_demonstrations_than_there_are(files, tmp_path, capsys):
    count = len(load_trajectories(files / "demos"))
    for verb, more in {"label": [], "diagnose": ["--play", str(files / "play")]}.items():
        arguments = [verb, str(files / "agent.zip"), "--demos", str(files / "demos"), "--demo-count", "99", *more]
        with pytest.raises(SystemExit):
            main([*arguments, "--out", str(tmp_path / "out")])
        assert f"--demo-count: expected at most {count}, the episodes in" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agent": "nowhere.zip"}, "path: expected an agent's file, found none at nowhere.zip"),
        ({"agent": "bc.zip"}, "path: expected an agent with a world model, got BCAgent in bc.zip"),
        ({"agent": "new.zip"}, "diagnose: AIMEAgent has no world model yet; call pretrain first"),
        ({"--demos": "nowhere"}, "--demos: nothing is stored at nowhere"),
        ({"--play": "demos"}, "--play[0].actions: expected one action per transition, got None"),
        ({"--demo-count": "0"}, "--demo-count: expected at least 1, got 0"),
    ],
)
def test_bad_input_ends_in_one_line(changes, message, files, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(files)
    given = {"agent": "agent.zip", "--demos": "demos", "--play": "play", "--out": str(tmp_path / "out")} | changes
    with pytest.raises(SystemExit) as end:
        main(["diagnose", given.pop("agent"), *(part for option in given.items() for part in option)])
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
