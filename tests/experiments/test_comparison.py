"""The main job, from a task's name to its files, with budgets of seconds."""

import json
import re
import zipfile
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from aime_gym.data import collect, save_minari
from aime_gym.experiments import comparison as job
from aime_gym.experiments import sources
from aime_gym.experiments.agents import AgentSpec
from aime_gym.experiments.comparison import Comparison, prepare, run
from aime_gym.experiments.evaluation import Score
from aime_gym.experiments.report import Row, normalised_return, percent_of_expert, plot_returns, results_table
from aime_gym.experiments.sources import Data
from aime_gym.experiments.task import TaskConfig, load_for

TINY_AIME = "aime:model_updates=2,inverse_updates=2,clone_updates=2,policy_updates=1,batch_size=2,sequence_length=4"
TINY = "min_epochs=1,max_epochs=1,min_updates=2"
CARTPOLE = TaskConfig("CartPole-v1", "state")


def agents(*texts):
    return tuple(map(AgentSpec.parse, texts))


def balance(observation):
    """A fair expert: push to where the pole falls."""
    return np.int64(observation[2] + observation[3] > 0)


@pytest.fixture(scope="module")
def demos():
    return collect(gym.make("CartPole-v1", max_episode_steps=50), balance, 4, seed=0, progress=False)


@pytest.fixture(scope="module")
def play():
    return collect(gym.make("CartPole-v1"), "play", 4, seed=1, progress=False)


@pytest.fixture(scope="module")
def reach(tmp_path_factory):
    """The demo, on a budget of seconds."""
    out = tmp_path_factory.mktemp("runs") / "reach"
    comparison = Comparison(
        TaskConfig("reach-v3", max_episode_steps=20),
        agents(TINY_AIME, f"bco:{TINY}", f"bc:{TINY}"),
        Data(play_episodes=3, demo_count=3),
        eval_episodes=2,
        video_episodes=1,
    )
    return run(prepare(comparison), out, progress=False), out


def test_the_job_writes_its_files(reach):
    results, out = reach
    assert {path.name for path in out.iterdir()} == {
        "results.json", "returns.png", "aime.mp4", "aime.zip", "bco.zip", "bc.zip"
    }  # fmt: skip
    assert set(results["files"]) == {path.name for path in out.iterdir()}
    assert all(path.stat().st_size > 500 for path in out.iterdir())
    assert zipfile.is_zipfile(out / "aime.zip")


def test_results_hold_all_that_was_measured(reach):
    results, out = reach
    written = json.loads((out / "results.json").read_text())
    assert written["policies"] == json.loads(json.dumps(results["policies"]))
    assert [row["policy"] for row in written["policies"]] == ["random", "expert", "aime", "bco", "bc"]
    assert [row["role"] for row in written["policies"]] == ["random", "expert", "agent", "agent", "oracle"]
    for row in written["policies"]:
        assert len(row["returns"]) == len(row["successes"]) == len(row["lengths"]) == 2
        assert row["return_mean"] == pytest.approx(np.mean(row["returns"]))
        assert row["normalised_return"] == pytest.approx(
            (row["return_mean"] - written["policies"][0]["return_mean"])
            / (written["policies"][1]["return_mean"] - written["policies"][0]["return_mean"])
        )
    aime = written["policies"][2]
    assert aime["train_seconds"] > 0
    assert aime["options"]["model_updates"] == aime["configuration"]["model_updates"] == 2
    assert written["task"]["env_id"] == "reach-v3"
    assert written["data"]["play"] | {"return_mean": 0} == {
        "source": "play", "episodes": 3, "transitions": 30, "return_mean": 0
    }  # fmt: skip
    assert set(written["seeds"]) == {"play", "demos", "evaluation", "agents"}
    assert written["machine"]["cores"] >= 1
    assert {"python", "torch", "gymnasium", "stable-baselines3", "metaworld"} <= set(written["packages"])
    assert written["not_finished"] == []
    assert written["interrupted"] is False


def test_only_the_oracle_gets_actions(demos, play, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        job, "train", lambda agent, play, demos, **_: seen.setdefault(type(agent).__name__, demos) and 0.0
    )
    monkeypatch.setattr(job, "evaluate", lambda *_, **__: Score((1.0,), (1,)))
    run(
        prepare(Comparison(CARTPOLE, agents("bco", "bc"), Data(play, demos=demos), video_episodes=0)),
        tmp_path,
        progress=False,
    )
    assert all(demo.actions is None for demo in seen["BCOAgent"])
    assert all(demo.actions is not None for demo in seen["BCAgent"])


def test_discrete_actions_with_data_in_memory(demos, play, tmp_path):
    comparison = Comparison(
        CARTPOLE, agents(f"bco:{TINY}", f"bc:{TINY}"), Data(play, demos=demos), eval_episodes=2, video_episodes=0
    )
    results = run(prepare(comparison), tmp_path, progress=False)
    random, expert, *_ = results["policies"]
    assert expert["policy"] == "expert (demonstrations)"
    assert expert["returns"] == tuple(demo.episode_return for demo in demos)
    assert expert["successes"] is expert["train_seconds"] is expert["evaluation_seconds"] is None
    assert random["success_rate"] is None
    assert not (tmp_path / "bco.mp4").exists()


def test_same_seed_same_figures(demos, play, tmp_path):
    comparison = Comparison(
        CARTPOLE, agents(f"bc:{TINY}", f"bco:{TINY}"), Data(play, demos=demos), eval_episodes=2, video_episodes=0
    )
    other_order = replace(comparison, agents=comparison.agents[::-1])
    runs = [run(prepare(one), tmp_path, progress=False) for one in (comparison, comparison, other_order)]
    returns = [{row["policy"]: row["returns"] for row in results["policies"]} for results in runs]
    assert returns[0] == returns[1] == returns[2]


def test_a_dataset_without_actions_is_enough_for_all_but_oracles(demos, play, tmp_path):
    with CARTPOLE.make() as env:
        save_minari(tmp_path / "demos", demos, env, actions=False)
        save_minari(tmp_path / "play", play, env)
    data = Data(tmp_path / "play", demos=str(tmp_path / "demos"), demo_count=2)
    checked = prepare(Comparison(CARTPOLE, agents("bco"), data)).sources
    assert (len(checked.play()), len(checked.demos())) == (4, 2)
    with pytest.raises(ValueError, match=r"demos\[0\]\.actions: expected one action per transition"):
        prepare(Comparison(CARTPOLE, agents("bco", "bc"), data))


def test_sensors_of_a_dataset_are_joined_as_the_task_joins_them():
    task = TaskConfig("walker-walk", "position", max_episode_steps=8)
    with task.make(flatten=False) as env:
        recorded = collect(env, "play", 1, seed=0, progress=False)
    with task.make() as env:
        expected = collect(env, "play", 1, seed=0, progress=False)
    shuffled = [replace(one, observations=dict(sorted(one.observations.items()))) for one in recorded]
    (loaded,) = load_for(task, shuffled, argument="play", actions=True)
    np.testing.assert_array_equal(loaded.observations, expected[0].observations)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": TaskConfig("CartPole-v9", "state")}, "id: expected"),
        ({"task": TaskConfig("CartPole-v1", "stat")}, "modality: expected"),
        ({"agents": agents("ilpo"), "task": TaskConfig("Pendulum-v1", "state")}, "agent ilpo: action_space"),
        ({"data": Data("none", demos="none")}, "play: nothing is stored at none"),
        ({"data": Data()}, "expert: there is no script"),
    ],
)
def test_wrong_input_ends_before_any_work(changes, message, demos, play, monkeypatch):
    for room, name in ((sources, "collect"), (sources, "record_demonstrations"), (job, "train"), (job, "evaluate")):
        monkeypatch.setattr(room, name, lambda *_, **__: pytest.fail("worked before it checked"))
    good = Comparison(CARTPOLE, agents("bco"), Data(play, demos=demos))
    with pytest.raises((ValueError, FileNotFoundError, NotImplementedError), match=re.escape(message)):
        prepare(replace(good, **changes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Comparison(CARTPOLE, ()), "agents: expected at least one"),
        (lambda: Comparison(CARTPOLE, agents("bc", "bc")), "agents: expected each one once, got bc again"),
        (lambda: Comparison(CARTPOLE, eval_episodes=0), "eval_episodes: expected at least 1, got 0"),
        (lambda: Data(play_episodes=0), "play_episodes: expected at least 1, got 0"),
        (lambda: Data(demo_count=-1), "demo_count: expected at least 1, got -1"),
    ],
)
def test_numbers_and_agents_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_interruption_keeps_what_is_finished(demos, play, tmp_path, monkeypatch):
    def interrupted(agent, *_, **__):
        if type(agent).__name__ == "BCAgent":
            raise KeyboardInterrupt
        return 1.5

    monkeypatch.setattr(job, "train", interrupted)
    comparison = Comparison(CARTPOLE, agents("bco", "bc"), Data(play, demos=demos), eval_episodes=1, video_episodes=0)
    run(prepare(comparison), tmp_path, progress=False)
    written = json.loads((tmp_path / "results.json").read_text())
    assert [row["policy"] for row in written["policies"]] == ["random", "expert (demonstrations)", "bco"]
    assert written["interrupted"] is True
    assert written["not_finished"] == ["bc"]


def test_no_screen_and_no_video_cost_nothing_else(demos, play, tmp_path, monkeypatch, capsys):
    def no_renderer(path, *_, **__):
        raise RuntimeError("apt-get install libegl1")

    monkeypatch.setattr(job, "record_video", no_renderer)
    comparison = Comparison(CARTPOLE, agents(f"bc:{TINY}"), Data(play, demos=demos), eval_episodes=1)
    results = run(prepare(comparison), tmp_path, progress=False)
    assert "apt-get install libegl1" in capsys.readouterr().err
    assert results["files"] == ["results.json", "bc.zip", "returns.png"]


def test_two_of_a_kind_are_told_apart(demos, play, tmp_path):
    comparison = Comparison(
        CARTPOLE,
        agents(f"bc:{TINY}", f"bc:{TINY},stack=2"),
        Data(play, demos=demos),
        eval_episodes=1,
        video_episodes=0,
    )
    results = run(prepare(comparison), tmp_path, progress=False)
    labels = [row["policy"] for row in results["policies"][2:]]
    assert labels == [f"bc:{TINY}", f"bc:{TINY},stack=2"]
    assert all((tmp_path / row["file"]).is_file() for row in results["policies"][2:])
    assert results["policies"][2]["file"] != results["policies"][3]["file"]


# ---- the report ----


def row(label, role, mean, successes=None):
    return Row(label, role, Score((mean - 1.0, mean + 1.0), (5, 5), successes, 1.0))


def test_normalised_return_and_percent_of_the_expert():
    rows = [row("random", "random", 10), row("expert", "expert", 110), row("aime", "agent", 60)]
    assert normalised_return(rows[2], rows) == 0.5
    assert percent_of_expert(rows[2], rows) == pytest.approx(100 * 60 / 110)


def test_what_cannot_be_said_is_not_said():
    rows = [row("random", "random", -20), row("expert", "expert", -10), row("aime", "agent", -15)]
    assert normalised_return(rows[2], rows) == 0.5
    assert percent_of_expert(rows[2], rows) is None
    assert normalised_return(rows[2], rows[::2]) is None
    same = [row("random", "random", 5), row("expert", "expert", 5)]
    assert normalised_return(same[0], same) is None


def test_the_table_names_oracles_and_leaves_blank_what_is_unknown():
    table = results_table([row("aime", "agent", 3, (True, False)), row("bc", "oracle", 3)], "task")
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["aime", "bc (oracle: sees the actions)"]
    assert cells[1] == ["0.50", ""]


@pytest.mark.parametrize("successes", [None, (True, False)])
def test_the_figure_is_drawn(tmp_path, successes):
    rows = [row("random", "random", 1), row("aime", "agent", 2, successes), row("expert", "expert", 3)]
    plot_returns(rows, "task", tmp_path / "returns.png")
    assert (tmp_path / "returns.png").stat().st_size > 5000


def test_an_imported_world_model_needs_no_play(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pendulum = TaskConfig("Pendulum-v1", "state")
    spec = AgentSpec.parse(TINY_AIME)
    with pendulum.make() as env:
        agent = spec.build(pendulum, env, 0).pretrain(collect(env, "play", 2, seed=0, progress=False))
    agent.save_world_model("model.safetensors")
    data = Data(demos=collect(gym.make("Pendulum-v1"), "play", 2, seed=1, progress=False))
    imported = Comparison(pendulum, agents(f"{TINY_AIME},world_model=model.safetensors"), data, eval_episodes=1)
    results = run(prepare(replace(imported, video_episodes=0)), tmp_path / "out", progress=False)
    assert set(results["data"]) == {"demos"}
    assert prepare(replace(imported, agents=(*imported.agents, spec))).sources.needs_play
