"""A suite runs whatever happens to it: kills, failures, changes. Nothing is done twice, and nothing bad is started."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium as gym
import pytest
from stable_baselines3.common.logger import Logger

from aime_gym.agents.registry import AGENTS
from aime_gym.cli import main
from aime_gym.data import load_trajectories
from aime_gym.experiments import runner
from aime_gym.experiments.cells import Resources
from aime_gym.experiments.jobs import jobs_of
from aime_gym.experiments.learning_curve import LearningCurve
from aime_gym.experiments.records import append_record, cut_torn_line, read_folder, read_records
from aime_gym.experiments.results import load_results
from aime_gym.experiments.shards import Shard
from aime_gym.experiments.suite import read_suite
from aime_gym.serialization import exclusively, new_folder
from aime_gym.tasks import TaskConfig

TINY = "options = { min_epochs = 1, max_epochs = 1, min_updates = 2 }"
#: Cells of a fraction of a second; the second task records what its cells share.
SUITE = f"""
seeds = [0, 1]
demonstrations = [2, 3]
eval_episodes = 2
[tasks.car]
id = "MountainCar-v0"
modality = "state"
max_episode_steps = 20
demos = "classic/MountainCar-v0"
play_episodes = 3
[tasks.pole]
id = "Pendulum-v1"
modality = "state"
max_episode_steps = 20
play_episodes = 3
expert = "sac:1"
demonstrations = 2
[agents.bco]
{TINY}
[agents.bc]
{TINY}
"""
CELLS = 12
PARENT = str(Path(runner.__file__).parents[2])


def write(path, text=SUITE):
    path.write_text(text)
    return path


def cells(out):
    return [record for record in read_records(out / runner.RESULTS) if record["what"] == "cell"]


def run(suite, out, **options):
    checked = runner.check(read_suite(suite, allow_imports=True))
    return runner.run_suite(checked, out, **{"workers": 2, "progress": False} | options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    outcome = run(write(folder / "suite.toml"), folder / "out")
    assert (outcome.done, outcome.cells, outcome.failed, outcome.interrupted) == (CELLS, CELLS, {}, False)
    return folder


@pytest.fixture
def failing():
    yield
    AGENTS.pop("failing", None)
    sys.modules.pop("failing_agents", None)


# ---- what a run leaves ----


def test_every_cell_has_one_line(finished):
    lines = cells(finished / "out")
    assert len({line["key"] for line in lines}) == len(lines) == CELLS
    assert {line["key"] for line in lines} == {cell.key for cell in read_suite(finished / "suite.toml").cells}
    for line in lines:
        assert line["status"] == "done"
        assert len(line["returns"]) == len(line["lengths"]) == 2
        assert line["updates"] > 0
        assert line["wall_seconds"] >= line["train_seconds"] > 0
        assert {"python", "torch", "aime-gym"} <= set(line["packages"])
        assert line["machine"]["torch_threads"] == 1
        assert line["env_steps"] == 0
        assert line["oracle"] == (line["agent"] == "bc")
        assert (line["trajectories"]["play"] is None) == (line["agent"] == "bc")
    assert not (finished / "out" / "logs").exists() or not list((finished / "out" / "logs").iterdir())


def test_what_cells_share_is_made_once(finished):
    shared = [line["what"] for line in read_records(finished / "out" / runner.RESULTS) if line["what"] != "cell"]
    assert sorted(shared) == ["expert"] * 2 + ["play"] * 2 + ["pretraining"] * 2 + ["random"] * 2


def test_only_oracles_find_actions(finished):
    (folder,) = (finished / "out" / "data").glob("demos-*")
    assert {path.name for path in folder.iterdir()} == {"observed", "with-actions", "expert.zip"}
    assert all(demo.actions is None for demo in load_trajectories(folder / "observed"))
    assert all(demo.actions is not None for demo in load_trajectories(folder / "with-actions"))
    checked = runner.check(read_suite(finished / "suite.toml"))
    jobs = jobs_of(checked.suite, checked.learners, finished / "data", None)
    cell_jobs = [job for job in jobs if job.is_cell and job.about["task"] == "pole"]
    sources = {job.about["agent"]: Path(job.work.keywords["demos_source"]).name for job in cell_jobs}
    assert sources == {"bc": "with-actions", "bco": "observed"}


def test_the_same_suite_gives_the_same_returns(finished, tmp_path):
    """Shared data, training and evaluation follow from the seeds; how many processes there are changes nothing."""
    run(finished / "suite.toml", tmp_path, workers=1)
    one, other = ({line["key"]: line["returns"] for line in cells(out)} for out in (finished / "out", tmp_path))
    assert one == other


@pytest.mark.parametrize(("workers", "recorders"), [(1, 1), (2, 1), (8, 4), (None, 3)])
def test_recordings_share_the_cores(tmp_path, monkeypatch, workers, recorders):
    class Seen(Exception):
        pass

    def jobs(*arguments, **options):
        for job in jobs_of(*arguments, **options):
            if job.about["what"] in ("play", "expert"):
                assert job.work.keywords["workers"] == recorders
        raise Seen

    monkeypatch.setattr(runner, "available_cores", lambda: 3)
    monkeypatch.setattr(runner, "jobs_of", jobs)
    with pytest.raises(Seen):
        run(write(tmp_path / "suite.toml"), tmp_path / "out", workers=workers)


# ---- going on ----


def test_a_finished_suite_does_nothing_again(finished):
    before = (finished / "out" / runner.RESULTS).read_bytes()
    assert run(finished / "suite.toml", finished / "out").done == CELLS
    assert (finished / "out" / runner.RESULTS).read_bytes() == before


def test_a_changed_suite_does_what_is_new(finished, tmp_path):
    shutil.copytree(finished / "out", tmp_path / "out")
    text = SUITE.replace(
        "[agents.bc]", "[agents.wide]\nagent = 'bc'\nseeds = [5]\ntasks = ['car']\n" + TINY + "\n[agents.bc]"
    )
    text += "[tasks.pole.options.bc]\nstack = 2\n"
    outcome = run(write(tmp_path / "suite.toml", text), tmp_path / "out")
    new = cells(tmp_path / "out")[CELLS:]
    assert outcome.done == outcome.cells == CELLS + 2
    assert [(line["agent"], line["task"], line["seed"], line["options"].get("stack")) for line in sorted(
        new, key=lambda line: (line["agent"], line["seed"], line["demonstrations"])
    )] == [("bc", "pole", 0, 2), ("bc", "pole", 1, 2), ("wide", "car", 5, None), ("wide", "car", 5, None)]  # fmt: skip
    # The cells that the suite no longer has are not in its report.
    assert len(load_results([tmp_path / "out"]).runs) == CELLS + 2


def test_a_killed_run_goes_on(tmp_path):
    suite, out = write(tmp_path / "suite.toml"), tmp_path / "out"
    command = [sys.executable, "-m", "aime_gym", "benchmark", str(suite), "--out", str(out), "--workers", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([PARENT, os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        while process.poll() is None and not (out.exists() and len(cells(out)) >= 2):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, process.stderr
    before = read_records(out / runner.RESULTS)
    assert 2 <= len([line for line in before if line["what"] == "cell"]) < CELLS
    with (out / runner.RESULTS).open("ab") as file:
        file.write(b'{"format": 1, "what": "cell", "key": "to')  # torn by the kill
    assert run(suite, out).done == CELLS
    after = read_records(out / runner.RESULTS)
    assert after[: len(before)] == before
    assert len({line["key"] for line in cells(out)}) == len(cells(out)) == CELLS


def test_ctrl_c_stops_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    suite, out = write(tmp_path / "suite.toml"), tmp_path / "out"

    finished_jobs = runner._finished

    def interrupted(running, poll_seconds):
        if len(cells(out)) == 3:
            raise KeyboardInterrupt
        return finished_jobs(running, poll_seconds)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "_finished", interrupted)
        assert main(["benchmark", str(suite), "--out", str(out), "--workers", "2"]) == 130
    printed = capsys.readouterr()
    assert "interrupted; the same command goes on" in printed.err
    assert f"3 of {CELLS} cells are done" in printed.out
    monkeypatch.setenv("COLUMNS", "120")  # no name is folded
    assert main(["benchmark", str(suite), "--out", str(out)]) == 0
    assert len({line["key"] for line in cells(out)}) == len(cells(out)) == CELLS
    printed = capsys.readouterr().out
    assert "bc, 2 demos (oracle)" in printed
    assert f"{CELLS} of {CELLS} cells are done" in printed


def test_two_runs_do_not_share_a_folder(finished):
    out = finished / "out"
    with (
        runner._locked(out, out / runner.RESULTS),
        pytest.raises(ValueError, match="out: another benchmark is running in"),
    ):
        run(finished / "suite.toml", finished / "out")


def test_agents_that_interact_have_a_learning_curve(tmp_path):
    text = """
seeds = [0]
demonstrations = 2
eval_episodes = 1
curve_steps = 40
curve_episodes = 2
[tasks.car]
id = "MountainCar-v0"
modality = "state"
max_episode_steps = 20
demos = "classic/MountainCar-v0"
[agents.gaifo]
options = { timesteps = 100, batch_size = 8, algorithm_kwargs = { n_steps = 13, batch_size = 52 } }
"""
    assert run(write(tmp_path / "suite.toml", text), tmp_path / "out").done == 1
    (line,) = cells(tmp_path / "out")
    assert line["env_steps"] == 104  # whole rounds of eight copies
    assert [point["env_steps"] for point in line["curve"]] == [40, 80]
    assert all(point["returns"] == [-20.0, -20.0] for point in line["curve"])


# ---- several machines ----


def run_shards(suite, out, numbers=(1, 2), **options):
    """Run shards at the same time, as two machines would."""
    with ThreadPoolExecutor(len(numbers)) as threads:
        shards = [Shard(number, 2) for number in numbers]
        return list(threads.map(lambda shard: run(suite, out, workers=1, shard=shard, **options), shards))


def returns(out):
    return {(line["what"], line["key"]): line.get("returns") for line in read_folder(out)}


def test_shards_share_a_folder(finished, tmp_path):
    outcomes = run_shards(finished / "suite.toml", tmp_path)
    assert [(outcome.done, outcome.cells, outcome.failed) for outcome in outcomes] == [(6, 6, {}), (6, 6, {})]
    assert returns(tmp_path) == returns(finished / "out")
    assert len(read_folder(tmp_path)) == len(read_folder(finished / "out"))  # shared data is made once
    assert run(finished / "suite.toml", tmp_path, shard=Shard(1, 2)).done == 6
    assert run(finished / "suite.toml", tmp_path).done == CELLS
    assert (tmp_path / runner.RESULTS).read_bytes() == b""

    together = load_results([tmp_path])
    assert together.missing == ()
    for number in (1, 2):  # as if each had had a folder of its own
        (tmp_path / str(number)).mkdir()
        shutil.copy(tmp_path / f"results-{number}-of-2.jsonl", tmp_path / str(number))
        shutil.copy(tmp_path / runner.PLAN, tmp_path / str(number))
    assert len(load_results([tmp_path / "1"]).missing) == 6
    apart = load_results([tmp_path / "1", tmp_path / "2"])
    assert (apart.runs, apart.missing) == (together.runs, ())


def test_a_wait_for_other_shards_takes_no_core(monkeypatch):
    calls = []
    monkeypatch.setattr(runner.time, "sleep", lambda seconds, sleep=time.sleep: calls.append(sleep(seconds)))
    monkeypatch.setattr(runner, "_RETRY_SECONDS", 0.1)
    assert runner._finished([], runner.ThisProcess(None, False).poll_seconds) == []
    assert len(calls) == 1


def test_a_recording_of_another_process_is_left_alone(finished, tmp_path):
    """A job of a cluster may outlive the run that started it, and records the same demonstrations."""
    checked = runner.check(read_suite(finished / "suite.toml"))
    (job,) = (job for job in jobs_of(checked.suite, checked.learners, tmp_path, None) if job.title == "pole, expert")
    folder = job.work.args[2]
    with new_folder(folder) as unfinished:
        (unfinished / "written").touch()
        assert "expected one writer at a time" in job.run().error
        assert (unfinished / "written").is_file()


def test_a_shard_waits_for_what_another_one_makes(finished, tmp_path):
    suite = read_suite(finished / "suite.toml")
    play = next(record for record in read_folder(finished / "out") if record["what"] == "play")
    with ThreadPoolExecutor(1) as thread:
        with exclusively(tmp_path / "data" / f"claim-play-{play['key']}"):
            outcome = thread.submit(run_shards, finished / "suite.toml", tmp_path, numbers=(1,))
            results = tmp_path / "results-1-of-2.jsonl"
            while len([line for line in read_records(results) if line["what"] == "cell"]) < 4:
                time.sleep(0.05)
            time.sleep(2 * runner._RETRY_SECONDS)
            assert not outcome.done()
            append_record(tmp_path / "results-2-of-2.jsonl", play | {"status": "failed", "error": "no space"})
        (outcome,) = outcome.result()
    assert suite.tasks[0].label == play["task"] == "car"
    assert outcome.failed["car, play"] == "no space"
    assert outcome.failed["car, bco, 2 demonstrations, seed 0"] == "it needs car, play, which failed"
    assert (outcome.done, outcome.failed_cells) == (4, 2)


def test_a_shard_is_refused_where_it_is_wrong_or_runs(finished, tmp_path, capsys):
    suite, out = str(finished / "suite.toml"), finished / "out"
    for shard, message in [
        ("3/2", "--shard: expected 1/2 to 2/2, got 3/2"),
        ("half", "--shard: expected a part and the number of parts, as in 1/2, got 'half'"),
    ]:
        with pytest.raises(SystemExit):
            main(["benchmark", suite, "--out", str(tmp_path), "--shard", shard])
        assert message in capsys.readouterr().err
    with runner._locked(out, out / "results-1-of-2.jsonl"):
        with runner._locked(out, out / "results-2-of-2.jsonl"):
            pass
        with pytest.raises(FileExistsError, match="shard: expected one writer at a time"):
            run(finished / "suite.toml", out, shard=Shard(1, 2))
        with pytest.raises(ValueError, match="out: another benchmark is running in"):
            run(finished / "suite.toml", out)


def test_a_suite_states_what_jobs_take(tmp_path):
    text = SUITE.replace("eval_episodes = 2", "eval_episodes = 2\nresources = { minutes = 5 }")
    text = text.replace("[agents.bc]", "[agents.bc]\nresources = { threads = 2, gpus = 1 }")
    suite = read_suite(write(tmp_path / "suite.toml", text))
    assert {cell.agent: cell.resources for cell in suite.cells} == {
        "bco": Resources(minutes=5),
        "bc": Resources(threads=2, gpus=1),
    }
    jobs = jobs_of(suite, dict.fromkeys([("car", "bc"), ("pole", "bc")]) | {("car", "bco"): "a", ("pole", "bco"): "b"},
                   tmp_path, None)  # fmt: skip
    taken = {(job.about["what"], job.about.get("agent")): job.resources for job in jobs}
    assert taken["play", None] == taken["pretraining", "bco"] == taken["cell", "bco"] == Resources(minutes=5)
    assert taken["cell", "bc"] == Resources(threads=2, gpus=1)
    for old, new, message in [
        ("gpus = 1", "gpu = 1", "agents.bc.resources: unknown key 'gpu'; did you mean gpus?"),
        ("threads = 2", "threads = 0", "agents.bc.resources: expected at least 1, got 0"),
        ("{ minutes = 5 }", "5", "resources: expected a table, got 5"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_suite(write(tmp_path / "suite.toml", text.replace(old, new)))


@pytest.mark.parametrize("name", ["submitit", "ray"])
def test_a_missing_executor_has_its_command(name, finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit):
        main(["benchmark", str(finished / "suite.toml"), "--out", str(tmp_path / "out"), "--executor", name])
    assert f"pip install 'aime-gym[{name}]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["submitit", "ray"])
def test_a_cluster_gives_the_same_returns(name, finished, tmp_path, monkeypatch):
    pytest.importorskip(name)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([PARENT, *sys.path]))
    arguments = ["benchmark", str(finished / "suite.toml"), "--out", str(tmp_path / "out"), "--executor", name]
    assert main(arguments) == 0
    assert returns(tmp_path / "out") == returns(finished / "out")


# ---- failures ----

FAILING = f"""
imports = ["failing_agents"]
demonstrations = 2
eval_episodes = 1
[tasks.car]
id = "MountainCar-v0"
modality = "state"
max_episode_steps = 20
demos = "classic/MountainCar-v0"
[agents.failing]
{TINY}
"""


def test_a_failing_cell_is_kept_and_the_rest_runs(tmp_path, failing, capsys):
    suite, out = write(tmp_path / "suite.toml", FAILING), tmp_path / "out"
    assert main(["benchmark", str(suite), "--out", str(out), "--allow-imports"]) == 1
    assert {line["seed"]: line.get("error", "")[:38] for line in cells(out)} == {
        0: "",
        1: "RuntimeError: broken on purpose",
        2: "the process ended with SIGKILL (out of",
    }
    assert "_imitate" in next(line for line in cells(out) if line["seed"] == 1)["traceback"]
    printed = capsys.readouterr().out
    assert "failed: car, failing, 2 demonstrations, seed 1: RuntimeError: broken on purpose" in printed
    assert "1 of 3 cells are done" in printed
    # Not again, unless it is asked for.
    assert run(suite, out).failed_cells == 2
    assert len(cells(out)) == 3
    assert run(suite, out, retry_failed=True).failed_cells == 2
    assert sorted(line["seed"] for line in cells(out)[3:]) == [1, 2]


def test_what_needs_failed_data_fails_with_it(tmp_path):
    suite, out = write(tmp_path / "suite.toml"), tmp_path / "out"
    out.mkdir()
    (out / "data").write_text("where a folder should be")
    outcome = run(suite, out)
    errors = {(line["task"], line["agent"]): line.get("error") for line in cells(out)}
    assert errors["car", "bc"] is None  # needs nothing that was to be recorded
    assert errors["car", "bco"] == "it needs car, play, which failed"
    assert errors["pole", "bc"] == "it needs pole, expert, which failed"
    assert outcome.done == CELLS - outcome.failed_cells == 4
    assert {"car, play", "pole, play", "pole, expert"} <= outcome.failed.keys()
    (out / "data").unlink()
    assert run(suite, out).done == 4
    assert run(suite, out, retry_failed=True).done == CELLS


def test_a_module_beside_the_suite_is_there_for_every_job(tmp_path):
    """Play, random and the expert act in an environment that the module registers."""
    (tmp_path / "beside_the_suite.py").write_text(
        "import gymnasium as gym\n"
        "gym.register('beside/Pole-v0', 'gymnasium.envs.classic_control:PendulumEnv', max_episode_steps=20)\n"
    )
    text = f"""
imports = ["beside_the_suite"]
demonstrations = 2
seeds = [0]
eval_episodes = 1
[tasks."beside/Pole-v0"]
modality = "state"
play_episodes = 2
expert = "sac:1"
[agents.bco]
{TINY}
"""
    suite, out = write(tmp_path / "suite.toml", text), tmp_path / "out"
    try:
        outcome = run(suite, out)
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("beside_the_suite", None)
        del gym.registry["beside/Pole-v0"]
    assert (outcome.done, outcome.failed) == (1, {})
    assert {line["what"] for line in read_records(out / runner.RESULTS)} == {"random", "play", "expert", "cell"}


# ---- bad suites ----

#: Suite in which an expert may not fit its task.
CHECKED = SUITE.replace("Pendulum-v1", "CartPole-v1").replace("sac:1", "ppo:1")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", "nonsense", "suite.toml: Expected '=' after a key"),
        ("seeds = [0, 1]", "sedes = [0]", "suite.toml: sedes: unknown key; did you mean seeds?"),
        ("seeds = [0, 1]", "seeds = 3", "seeds: expected a list of whole numbers, got 3"),
        ("seeds = [0, 1]", "seeds = []", "seeds: expected at least one number, got none"),
        ("seeds = [0, 1]", "seeds = [-1]", "seeds: expected at least 0, got -1"),
        ("seeds = [0, 1]", "seeds = [1, 1]", "seeds: expected each number once, got [1, 1]"),
        ("demonstrations = [2, 3]", "demonstrations = 0", "demonstrations: expected at least 1, got 0"),
        ("eval_episodes = 2", "eval_episodes = true", "eval_episodes: expected a whole number, got True"),
        ("eval_episodes = 2", "curve_episodes = 2", "curve_episodes: expected together with curve_steps"),
        ("eval_episodes = 2", "imports = ['os']", "imports: expected none without --allow-imports"),
        ('id = "MountainCar-v0"', 'id = "os:MountainCar-v0"', "tasks.car.id: expected no module without --allow"),
        (
            'id = "MountainCar-v0"',
            'id = "MountainCar-v0"\nenv_kwargs = { env_id = "os:Env-v0" }',
            "tasks.car.env_kwargs: expected no text with a colon without --allow-imports",
        ),
        (
            'id = "MountainCar-v0"',
            'id = "MountainCar-v0"\nenv_kwargs = { goal = 3 }',
            "env_kwargs: expected arguments of MountainCar-v0, got goal=3",
        ),
        ('expert = "ppo:1"', 'expert = "ppo:m.zip"', "tasks.pole.expert: expected no SB3 model without --allow"),
        ("eval_episodes = 2", "tasks = 1", "Cannot overwrite a value"),
        ("[agents.bc]", "[agents.bcc]", "agents.bcc: agent: unknown agent 'bcc'; did you mean"),
        ("min_updates = 2", "min_update = 2", "agents.bco: agent bco: unknown option 'min_update'; did you mean"),
        ("min_updates = 2", "min_updates = 'two'", "agents.bco: agent bco: min_updates: expected int, got 'two'"),
        ("min_updates = 2", "min_updates = 0", "tasks.car: agent bco"),
        ("[agents.bco]", "[agents.bco]\ntasks = ['cart']", "agents.bco.tasks: unknown name 'cart'; did you mean car?"),
        ("[agents.bco]", "[tasks.car.options.bcc]\n[agents.bco]", "tasks.car.options: unknown name 'bcc'"),
        ("[agents.bco]", "[tasks.car.options.bc]\nstuck = 1\n[agents.bco]", "tasks.car.options.bc: agent bc: unknown"),
        ('id = "MountainCar-v0"', 'id = "MountinCar-v0"', "tasks.car: id: expected"),
        ('modality = "state"', 'modality = "stat"', "tasks.car.modality: expected one of"),
        (
            'modality = "state"',
            'modality = "position"',
            "tasks.car: modality: which entries of MountainCar-v0 are positions is unknown",
        ),
        ('modality = "state"', 'modality = "state"\naction_repeat = 0', "tasks.car: action_repeat: expected an"),
        ('modality = "state"', "modality = 1", "tasks.car.modality: expected one of"),
        ('modality = "state"', 'modality = "state"\nimage_size = 32', "tasks.car.image_size: expected with"),
        ('modality = "state"', 'modality = "state"\nquality = "fast"', "tasks.car.quality: expected with"),
        ("play_episodes = 3", "play_episodes = 0", "tasks.car.play_episodes: expected at least 1, got 0"),
        ('"classic/MountainCar-v0"', '"classic/MountainCar"', "tasks.car: demos: nothing is stored at"),
        ('"classic/MountainCar-v0"', '"classic/CartPole-v1"', "tasks.car: demos[0].observations: expected shape"),
        ("demonstrations = [2, 3]", "demonstrations = 21", "tasks.car: demos: expected at least 21 trajectories in"),
        ('expert = "ppo:1"', "", "tasks.pole: expert: there is no script for CartPole-v1"),
        ('expert = "ppo:1"', 'expert = "sac:1"', "tasks.pole: expert: sac does not fit CartPole-v1"),
        (CHECKED[CHECKED.index("[agents.bco]") :], "", "agents: expected at least one [agents.NAME], got none"),
    ],
)  # fmt: skip
def test_a_bad_suite_ends_in_one_line_before_any_work(old, new, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert old in CHECKED
    write(tmp_path / "suite.toml", CHECKED.replace(old, new, 1) if old else new)
    with pytest.raises(SystemExit) as end:
        main(["benchmark", "suite.toml", "--out", "out"])
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


SUITES = sorted((Path(PARENT) / "benchmarks" / "suites").glob("*.toml"))


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_the_suites_of_this_repository_fit(path):
    suite = read_suite(path)
    assert suite.cells
    if path.stem not in ("cheetah", "continuous", "walker"):  # which name data that has to be recorded first
        runner.check(suite)


# ---- the parts ----


def test_a_torn_line_is_cut_and_a_damaged_one_named(tmp_path):
    path = tmp_path / "results.jsonl"
    assert read_records(path) == []
    append_record(path, {"what": "cell"})
    whole = path.read_bytes()
    for torn in (b"{", whole[:-1]):
        path.write_bytes(whole + torn)
        assert read_records(path) == [{"format": 1, "what": "cell"}]
        cut_torn_line(path)
        assert path.read_bytes() == whole
    path.write_bytes(b"{\n" + whole)
    with pytest.raises(ValueError, match=r"results.jsonl:1: expected a line of JSON"):
        read_records(path)
    path.write_bytes(whole + json.dumps({"format": 2}).encode() + b"\n")
    with pytest.raises(ValueError, match=r"results.jsonl:2: expected a result of format 1"):
        read_records(path)


def test_a_learning_curve_follows_the_agent_s_environment_steps():
    class Agent:
        num_timesteps = 0
        logger = Logger(None, [])

        def dump_logs(self):
            evaluations.append((self.num_timesteps, self.logger.name_to_value["eval/mean_reward"]))

        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            assert deterministic
            return [self.num_timesteps // 10 % 2], None

    evaluations = []
    agent = Agent()
    with TaskConfig("CartPole-v1", "state").make() as env:
        curve = LearningCurve(agent, env, 10, 2, 0)
        for steps in (0, 4, 8, 12, 16, 20, 45, 48):
            agent.num_timesteps = steps
            assert curve._on_step()
    assert [point["env_steps"] for point in curve.points] == [12, 20, 45]
    assert all(len(point["returns"]) == 2 for point in curve.points)
    assert evaluations == [(point["env_steps"], sum(point["returns"]) / 2) for point in curve.points]
