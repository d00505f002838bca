"""Pretraining is done once for the cells that have it in common, and changes nothing in their results."""

import json
import shutil

import numpy as np
import pytest

from aime_gym.agents import AIMEAgent
from aime_gym.data import collect, load_trajectories, save_minari
from aime_gym.experiments import jobs, runner
from aime_gym.experiments.config import DataConfig
from aime_gym.experiments.data import load_play
from aime_gym.experiments.evaluation import evaluate, evaluation_envs
from aime_gym.experiments.records import read_records
from aime_gym.experiments.results import load_results
from aime_gym.experiments.suite import read_suite
from aime_gym.tasks import TaskConfig

TINY_AIME = """options = { model_updates = 2, inverse_updates = 2, clone_updates = 2, policy_updates = 1, \
batch_size = 2, sequence_length = 4, world_model = "small", imagination_starts = 4 }"""
#: Two tasks of one body: the second one ends earlier, and shows the same.
SUITE = f"""
seeds = [3]
demonstrations = 2
eval_episodes = 2
[plays]
some = "some"
both = ["some", "more"]
[tasks.long]
id = "Pendulum-v1"
modality = "state"
max_episode_steps = 25
demos = "demos"
[tasks.short]
id = "Pendulum-v1"
modality = "state"
max_episode_steps = 20
demos = "more"
[agents.aime]
{TINY_AIME}
[agents.bc]
options = {{ min_epochs = 1, max_epochs = 1, min_updates = 2 }}
"""
PENDULUM = TaskConfig("Pendulum-v1", "state", max_episode_steps=30)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    with PENDULUM.make() as env:
        for seed, name in enumerate(("some", "more", "demos")):
            save_minari(folder / name, collect(env, "play", 3, seed=seed, progress=False), env)
    return folder


@pytest.fixture(autouse=True)
def in_the_folder_of_data(stored, monkeypatch):
    monkeypatch.chdir(stored)


def run(folder, text=SUITE, **options):
    folder.mkdir(exist_ok=True)
    (folder / "suite.toml").write_text(text)
    checked = runner.check(read_suite(folder / "suite.toml"))
    outcome = runner.run_suite(checked, folder / "out", **{"workers": None, "progress": False} | options)
    return outcome, read_records(folder / "out" / runner.RESULTS)


@pytest.fixture(scope="module")
def finished(stored, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(stored)
        folder = tmp_path_factory.mktemp("finished")
        outcome, records = run(folder)
    assert (outcome.done, outcome.failed) == (6, {})
    return folder, records


def cells(records, **about):
    found = [record for record in records if record["what"] == "cell"]
    return [record for record in found if all(record[name] == value for name, value in about.items())]


def test_tasks_with_the_same_play_share_their_pretraining(finished):
    _, records = finished
    pretraining = [record for record in records if record["what"] == "pretraining"]
    assert [record["data"]["play"] for record in pretraining] == ["some", ["some", "more"]]
    seconds = {record["trajectories"]["play"]["episodes"]: record["pretrain_seconds"] for record in pretraining}
    assert seconds.keys() == {3, 6}
    for record in cells(records, agent="aime"):
        assert record["pretrain_seconds"] == seconds[record["trajectories"]["play"]["episodes"]] > 0
        assert record["pretrain_share_seconds"] == record["pretrain_seconds"] / 2
        assert record["wall_seconds"] >= record["train_seconds"] > 0
        assert record["updates"] > pretraining[0]["updates"] > 0


def test_an_agent_that_needs_no_play_runs_once(finished):
    _, records = finished
    assert sorted(record["task"] for record in cells(records, agent="bc")) == ["long", "short"]
    assert sorted(record["task"] for record in cells(records, agent="aime")) == [
        "long/both", "long/some", "short/both", "short/some"
    ]  # fmt: skip
    references = [record["what"] for record in records if record["what"] in ("random", "expert")]
    assert sorted(references) == ["expert"] * 2 + ["random"] * 2


def test_a_shared_agent_is_what_one_becomes_by_hand(finished, tmp_path):
    folder, records = finished
    suite = read_suite(folder / "suite.toml")
    (cell,) = [cell for cell in suite.cells if (cell.task.label, cell.agent) == ("short/both", "aime")]
    with cell.task.config.make() as env:
        agent = AIMEAgent(env, seed=3, **cell.spec.options)
        agent.pretrain(["some", "more"], progress_bar=False)
        demos = load_trajectories("more", actions=False)[:2]
        agent.save(tmp_path / "agent.zip")
        loaded = AIMEAgent.load(tmp_path / "agent.zip", env=env)
        returns = []
        for one in (agent, loaded):
            one.imitate(demos, progress_bar=False)
            with evaluation_envs(cell.task.config, 2) as envs:
                returns.append(list(evaluate(one, envs, 2, seed=cell.task.seeds["evaluation"]).returns))
    (record,) = cells(records, task="short/both", agent="aime")
    assert returns == [record["returns"]] * 2


def test_learn_gets_the_play_again(tmp_path):
    learning = SUITE.replace("[agents.aime]", "[agents.aime]\nlearn = 20")
    _, shared = run(tmp_path / "shared", learning)
    alone = "seeds" + learning.split("seeds")[1].replace("[tasks.long]", "[tasks.long]\nplay = 'demos'")
    _, own = run(tmp_path / "own", alone)
    assert not any(record["what"] == "pretraining" for record in own)
    one, other = (cells(records, task="short/both", agent="aime")[0] for records in (shared, own))
    assert one["env_steps"] == other["env_steps"] >= 20
    assert one["returns"] == other["returns"]
    assert other["pretrain_share_seconds"] == other["pretrain_seconds"] > 0
    assert one["trajectories"] == other["trajectories"]
    assert one["key"] == other["key"]


def test_what_is_pretrained_is_kept_for_a_later_run(finished, tmp_path):
    """Also where a kill came between the agent's file and its record; without the file, it is made again."""
    folder, records = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    kept = [record for record in records if record["what"] in ("random", "expert") or record["task"] == "long/some"]
    text = "".join(json.dumps(record) + "\n" for record in kept)
    (tmp_path / "out" / runner.RESULTS).write_text(text)
    outcome, after = run(tmp_path)
    assert outcome.done == 6
    assert sum(record["what"] == "pretraining" for record in after[len(kept) :]) == 0
    by_key = {record["key"]: record["returns"] for record in cells(records)}
    assert {record["key"]: record["returns"] for record in cells(after)} == by_key
    shutil.rmtree(tmp_path / "out" / "data")
    (tmp_path / "out" / runner.RESULTS).write_text(text)
    outcome, after = run(tmp_path)
    assert outcome.done == 6
    assert sum(record["what"] == "pretraining" for record in after[len(kept) :]) == 2
    assert {record["key"]: record["returns"] for record in cells(after)} == by_key


def test_ctrl_c_in_pretraining_keeps_the_agent_and_the_same_call_goes_on(finished, tmp_path, monkeypatch):
    def interrupted(agent, *_, **__):
        if agent.must_pretrain:
            raise KeyboardInterrupt
        return 0.0

    keep = tmp_path / "kept"
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "pretrain", interrupted)
        outcome, _ = run(tmp_path, keep=keep)
    assert outcome.interrupted
    assert {path.name for path in keep.iterdir()} == {"bc.zip", "aime-interrupted.zip"}
    assert not list((tmp_path / "out" / "data").glob("pretrained-*"))
    outcome, records = run(tmp_path, keep=keep)
    assert outcome.done == 6
    assert {record["key"]: record["returns"] for record in cells(records)} == {
        record["key"]: record["returns"] for record in cells(finished[1])
    }


def test_what_needs_a_failed_pretraining_fails_with_it(tmp_path, monkeypatch):
    def fails(agent, *_, **__):
        if agent.must_pretrain:
            raise RuntimeError("broken")
        return 0.0

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "pretrain", fails)
        outcome, records = run(tmp_path)
    assert (outcome.done, outcome.failed_cells) == (2, 4)
    errors = {record["task"]: record["error"] for record in cells(records, agent="aime")}
    assert errors["short/some"] == "it needs long/some, aime, pretraining, seed 3, which failed"
    assert "long/some, aime, pretraining, seed 3" in load_results([tmp_path / "out"]).failed
    assert run(tmp_path)[0].failed_cells == 4
    assert run(tmp_path, retry_failed=True)[0].done == 6


def test_a_table_has_the_share_in_its_seconds(finished):
    folder, records = finished
    (run_,) = load_results([folder / "out"]).of("long/both", "aime")
    (record,) = cells(records, task="long/both", agent="aime")
    assert run_.train_seconds == record["train_seconds"] + record["pretrain_share_seconds"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seeds = [3]", "seeds = [4]"),
        ("model_updates = 2", "model_updates = 3"),
        ('both = ["some", "more"]', 'both = ["some", "demos"]'),
    ],
)
def test_other_seeds_hyper_parameters_and_play_are_not_shared(tmp_path, old, new):
    keys = []
    for text in (SUITE, SUITE.replace(old, new)):
        (tmp_path / "suite.toml").write_text(text)
        checked = runner.check(read_suite(tmp_path / "suite.toml"))
        planned = jobs.jobs_of(checked.suite, checked.learners, tmp_path, None)
        keys.append([job.about["key"] for job in planned if job.about["what"] == "pretraining"])
    assert keys[0][1] != keys[1][1]


def test_play_of_several_datasets():
    play = load_play(PENDULUM, ("some", "more"), limit=2)
    expected = [*load_trajectories("some")[:2], *load_trajectories("more")[:2]]
    for one, other in zip(play, expected, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
    for bad in ((), ("some", "random")):
        with pytest.raises(ValueError, match="play: expected datasets in a list, got"):
            DataConfig(bad)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('some = "some"', "some = 1", "plays.some: expected text or a list of texts, got 1"),
        ('some = "some"', 'some = ["play"]', "plays.some: play: expected datasets in a list"),
        ('some = "some"', 'some = "none"', "tasks.long/some: play: nothing is stored at none"),
        ("[tasks.long]", "[tasks.long]\nplay = [1]", "tasks.long.play: expected text or a list of texts, got [1]"),
    ],
)
def test_bad_plays_are_named(tmp_path, old, new, message):
    (tmp_path / "suite.toml").write_text(SUITE.replace(old, new))
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        runner.check(read_suite(tmp_path / "suite.toml"))
    assert message in str(error.value)
