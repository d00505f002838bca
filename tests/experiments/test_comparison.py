"""A comparison, from a task's name to its files, with budgets of seconds."""

import fcntl
import json
import re
import zipfile
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from aime_gym.data import collect, load_trajectories, save_minari
from aime_gym.experiments import comparison as comparing
from aime_gym.experiments import data as recording
from aime_gym.experiments import jobs
from aime_gym.experiments.agent_spec import AgentSpec
from aime_gym.experiments.comparison import check_comparison, comparison_suite, run_comparison
from aime_gym.experiments.config import DataConfig
from aime_gym.experiments.data import derived_seeds, load_for_task, prepare_data
from aime_gym.tasks import TaskConfig

TINY_AIME = "aime:model_updates=2,inverse_updates=2,clone_updates=2,policy_updates=1,batch_size=2,sequence_length=4"
TINY = "min_epochs=1,max_epochs=1,min_updates=2"
CARTPOLE = TaskConfig("CartPole-v1", "state")


def agents(*texts):
    return tuple(map(AgentSpec.parse, texts))


def balance(observation):
    """A fair expert: push to where the pole falls."""
    return np.int64(observation[2] + observation[3] > 0)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Play, demonstrations, and demonstrations without actions, as folders."""
    folder = tmp_path_factory.mktemp("data")
    demos = collect(gym.make("CartPole-v1", max_episode_steps=50), balance, 4, seed=0, progress=False)
    with CARTPOLE.make() as env:
        save_minari(folder / "demos", demos, env)
        save_minari(folder / "observed", demos, env, actions=False)
        save_minari(folder / "play", collect(env, "play", 4, seed=1, progress=False), env)
    return folder


def stored_data(stored, demos="demos"):
    return DataConfig(str(stored / "play"), demos=str(stored / demos))


def compare(stored, *texts, data=None, eval_episodes=2):
    return comparison_suite(CARTPOLE, agents(*texts), data or stored_data(stored), eval_episodes=eval_episodes)


def run(suite, out, *, video_episodes=0, progress=False):
    return run_comparison(check_comparison(suite), out, video_episodes=video_episodes, progress=progress)


@pytest.fixture(scope="module")
def reach(tmp_path_factory):
    """The demo, on a budget of seconds."""
    out = tmp_path_factory.mktemp("runs") / "reach"
    suite = comparison_suite(
        TaskConfig("reach-v3", max_episode_steps=20),
        agents(TINY_AIME, f"bco:{TINY}", f"bc:{TINY}"),
        DataConfig(play_episodes=3, demo_count=3),
        eval_episodes=2,
    )
    return run(suite, out, video_episodes=1), out


def test_the_job_writes_its_files(reach):
    results, out = reach
    assert {path.name for path in out.iterdir()} == {
        "results.json", "results.jsonl", "plan.json", "returns.png", "aime.mp4", "aime.zip", "bco.zip", "bc.zip"
    }  # fmt: skip
    assert set(results["files"]) == {path.name for path in out.iterdir()}
    assert all(path.stat().st_size > 200 for path in out.iterdir())
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


def test_only_the_oracle_gets_actions(stored, tmp_path, monkeypatch):
    seen = {}

    def train(agent, play, demos, **_):
        seen[type(agent).__name__] = demos
        return 0.0

    monkeypatch.setattr(jobs, "train", train)
    monkeypatch.setattr(jobs, "evaluate", lambda *_, **__: jobs.Score((1.0,), (1,)))
    run(compare(stored, f"bco:{TINY}", f"bc:{TINY}"), tmp_path)
    assert all(demo.actions is None for demo in seen["BCOAgent"])
    assert all(demo.actions is not None for demo in seen["BCAgent"])


def test_discrete_actions_with_stored_data(stored, tmp_path):
    results = run(compare(stored, f"bco:{TINY}", f"bc:{TINY}"), tmp_path)
    random, expert, *_ = results["policies"]
    assert expert["policy"] == "expert (demonstrations)"
    assert expert["returns"] == [demo.episode_return for demo in load_trajectories(stored / "demos")]
    assert expert["successes"] is expert["train_seconds"] is expert["eval_seconds"] is None
    assert random["success_rate"] is None
    assert not (tmp_path / "bco.mp4").exists()


def test_same_seed_same_figures(stored, tmp_path):
    suite = compare(stored, f"bc:{TINY}", f"bco:{TINY}")
    other_order = compare(stored, f"bco:{TINY}", f"bc:{TINY}")
    runs = [run(one, tmp_path) for one in (suite, suite, other_order)]
    returns = [{row["policy"]: row["returns"] for row in results["policies"]} for results in runs]
    assert returns[0] == returns[1] == returns[2]


@pytest.mark.parametrize("killed", [False, True])
def test_a_second_comparison_leaves_nothing_of_the_first(killed, stored, tmp_path):
    (tmp_path / "mine.txt").write_text("not of a comparison")
    first = run(compare(stored, f"bco:{TINY}", f"bc:{TINY}"), tmp_path)
    if killed:  # before bco was reported
        first |= {"files": ["results.json"], "policies": [], "not_finished": ["bco", "bc"]}
        (tmp_path / "results.json").write_text(json.dumps(first))
        (tmp_path / ".data" / "play-0").mkdir(parents=True)
    results = run(compare(stored, f"bc:{TINY}", eval_episodes=1), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*results["files"], "mine.txt"}
    assert "bco.zip" not in results["files"]
    assert [row["policy"] for row in results["policies"]] == ["random", "expert (demonstrations)", "bc"]


def test_a_running_comparison_keeps_its_files(stored, tmp_path):
    before = run(compare(stored, f"bc:{TINY}"), tmp_path)
    with (tmp_path / "results.jsonl").open("a+b") as results:
        fcntl.flock(results, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="^out: another benchmark is running in"):
            run(compare(stored, f"bc:{TINY}"), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(before["files"])


def test_files_elsewhere_stay_whatever_a_document_says(stored, tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("kept")
    (tmp_path / "out").mkdir()
    document = {
        "format": 1,
        "files": ["../outside.txt", str(outside), 3],
        "policies": [],
        "not_finished": ["../outside"],
    }
    (tmp_path / "out" / "results.json").write_text(json.dumps(document))
    run(compare(stored, f"bc:{TINY}"), tmp_path / "out")
    assert outside.read_text() == "kept"


def test_the_folder_of_a_benchmark_is_refused(stored, tmp_path):
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(ValueError, match="out: expected a new folder, or that of another comparison"):
        run(compare(stored, f"bc:{TINY}"), tmp_path)


def test_a_dataset_without_actions_is_enough_for_all_but_oracles(stored, tmp_path):
    data = replace(stored_data(stored, "observed"), demo_count=2)
    results = run(compare(stored, f"bco:{TINY}", data=data, eval_episodes=1), tmp_path)
    assert (results["data"]["play"]["episodes"], results["data"]["demos"]["episodes"]) == (4, 2)
    with pytest.raises(ValueError, match=r"demos\[0\]\.actions: expected one action per transition"):
        check_comparison(compare(stored, "bco", "bc", data=data))


def test_sensors_of_a_dataset_are_joined_as_the_task_joins_them():
    task = TaskConfig("walker-walk", "position", max_episode_steps=8)
    with task.make(flatten=False) as env:
        recorded = collect(env, "play", 1, seed=0, progress=False)
    with task.make() as env:
        expected = collect(env, "play", 1, seed=0, progress=False)
    shuffled = [replace(one, observations=dict(sorted(one.observations.items()))) for one in recorded]
    (loaded,) = load_for_task(task, shuffled, argument="play", actions=True)
    np.testing.assert_array_equal(loaded.observations, expected[0].observations)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": TaskConfig("CartPole-v9", "state")}, "id: expected"),
        ({"task": TaskConfig("CartPole-v1", "stat")}, "modality: expected"),
        ({"agents": agents("ilpo"), "task": TaskConfig("Pendulum-v1", "state")}, "agent ilpo: action_space"),
        ({"data": DataConfig("none", demos="none")}, "play: nothing is stored at none"),
        ({"data": DataConfig()}, "expert: there is no script"),
    ],
)
def test_wrong_input_ends_before_any_work(changes, message, stored, monkeypatch):
    works = ((recording, "collect"), (recording, "record_demonstrations"), (jobs, "train"), (jobs, "evaluate"))
    for room, name in works:
        monkeypatch.setattr(room, name, lambda *_, **__: pytest.fail("worked before it checked"))
    good = {"task": CARTPOLE, "agents": agents("bco"), "data": stored_data(stored)}
    with pytest.raises((ValueError, FileNotFoundError, NotImplementedError), match=re.escape(message)):
        check_comparison(comparison_suite(**good | changes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: comparison_suite(CARTPOLE, (), DataConfig()), "agents: expected at least one"),
        (
            lambda: comparison_suite(CARTPOLE, agents("bc", "bc"), DataConfig()),
            "agents: expected each one once, got bc again",
        ),
        (
            lambda: comparison_suite(CARTPOLE, agents("bc"), DataConfig(), eval_episodes=0),
            "eval_episodes: expected at least 1, got 0",
        ),
        (lambda: DataConfig(play_episodes=0), "play_episodes: expected at least 1, got 0"),
        (lambda: DataConfig(demo_count=-1), "demo_count: expected at least 1, got -1"),
    ],
)
def test_numbers_and_agents_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_interruption_keeps_what_is_finished(stored, tmp_path, monkeypatch):
    train = jobs.train

    def interrupted(agent, *arguments, **options):
        if type(agent).__name__ == "BCAgent":
            raise KeyboardInterrupt
        return train(agent, *arguments, **options)

    monkeypatch.setattr(jobs, "train", interrupted)
    run(compare(stored, f"bco:{TINY}", f"bc:{TINY}", "ilpo", eval_episodes=1), tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert [row["policy"] for row in written["policies"]] == ["random", "expert (demonstrations)", "bco"]
    assert written["interrupted"] is True
    assert written["not_finished"] == ["bc", "ilpo"]
    assert (tmp_path / "bc-interrupted.zip").is_file()
    assert not (tmp_path / "bc.zip").exists()
    assert set(written["files"]) == {path.name for path in tmp_path.iterdir()}


def test_an_agent_that_ends_its_phase_at_ctrl_c_is_not_finished(stored, tmp_path, monkeypatch):
    def ends_early(agent, demos, **_):
        agent.interrupted = True

    monkeypatch.setattr("aime_gym.agents.bc.BCAgent.imitate", ends_early)
    results = run(compare(stored, f"bc:{TINY}"), tmp_path)
    assert results["interrupted"] is True
    assert results["policies"] == []
    assert (tmp_path / "bc-interrupted.zip").is_file()


def test_a_recording_that_was_interrupted_is_not_used(stored, tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "collect", lambda env, policy, episodes, **_: collect(env, policy, 1, seed=0))
    data = replace(stored_data(stored), play="play", play_episodes=3)
    results = run(compare(stored, "bco", data=data), tmp_path)
    assert results["interrupted"] is True
    assert results["not_finished"] == ["bco"]


def test_an_agent_that_fails_costs_itself_alone(stored, tmp_path, monkeypatch):
    def fails(agent, *_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr("aime_gym.agents.bco.BCOAgent.imitate", fails)
    results = run(compare(stored, f"bco:{TINY}", f"bc:{TINY}"), tmp_path)
    assert list(results["failed"].values()) == ["RuntimeError: broken"]
    assert [row["policy"] for row in results["policies"][2:]] == ["bc"]
    assert results["not_finished"] == ["bco"]


def test_no_screen_and_no_video_cost_nothing_else(stored, tmp_path, monkeypatch, capsys):
    def no_renderer(path, *_, **__):
        raise RuntimeError("apt-get install libegl1")

    monkeypatch.setattr(comparing, "record_video", no_renderer)
    suite = compare(stored, f"bc:{TINY}", eval_episodes=1)
    results = run(suite, tmp_path, video_episodes=1, progress=True)
    assert "apt-get install libegl1" in capsys.readouterr().err
    assert results["files"] == ["results.json", "results.jsonl", "plan.json", "bc.zip", "returns.png"]
    assert results["interrupted"] is False


def test_two_of_a_kind_are_told_apart(stored, tmp_path):
    results = run(compare(stored, f"bc:{TINY}", f"bc:{TINY},stack=2"), tmp_path)
    labels = [row["policy"] for row in results["policies"][2:]]
    assert labels == [f"bc:{TINY}", f"bc:{TINY},stack=2"]
    assert all((tmp_path / row["file"]).is_file() for row in results["policies"][2:])
    assert results["policies"][2]["file"] != results["policies"][3]["file"]


def test_more_data_than_there_is_names_both_numbers(stored):
    for limit in ("demo_count", "play_episodes"):
        data = replace(stored_data(stored), **{limit: 99})
        with pytest.raises(ValueError, match=rf"^{limit}: expected at most 4, the episodes in .*, got 99$"):
            prepare_data(CARTPOLE, data, seeds=derived_seeds(0))


def test_an_imported_world_model_needs_no_play(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pendulum = TaskConfig("Pendulum-v1", "state")
    spec = AgentSpec.parse(TINY_AIME)
    with pendulum.make() as env:
        play = collect(env, "play", 2, seed=0, progress=False)
        spec.build(pendulum, env, 0).pretrain(play).save_world_model("model.safetensors")
        save_minari(tmp_path / "demos", play, env, actions=False)
    demos = DataConfig(demos="./demos")
    imported = AgentSpec.parse(f"{TINY_AIME},world_model=model.safetensors")
    results = run(comparison_suite(pendulum, [imported], demos, eval_episodes=1), tmp_path / "out")
    assert set(results["data"]) == {"demos"}
    both = check_comparison(comparison_suite(pendulum, [imported, spec], demos))
    assert sorted(learner is None for learner in both.learners.values()) == [False, True]
