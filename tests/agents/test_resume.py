"""A phase that was stopped, in whatever way, goes on and ends as if it had not been."""

import itertools
import multiprocessing
import os
import random
import shutil
import signal
import time
import warnings

import pytest
import torch
from small import TINY
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym.agents.registry import AGENTS, get_agent_class, make_agent
from aime_gym.serialization import read_archive, write_archive
from aime_gym.testing import toy

#: Agents that take no environment step in a phase of data.
NAMES = [name for name, kind in AGENTS.items() if not kind.imitates_online]
#: Agents that imitate in their environment, with the algorithm that learns their policy.
ONLINE_NAMES = ["gaifo ppo", "gaifo sac"]
#: One of each kind: a world model, and regressions. The contract stops every agent, and so does a slow test here.
each_kind = pytest.mark.parametrize("name", ["aime", "bco"])
every_online_agent = pytest.mark.parametrize("name", ONLINE_NAMES)
PHASES = ("pretrain", "imitate")
#: Updates between checkpoints: few, and no divisor of a run's.
INTERVAL = 7
#: Runs of a second or so.
BUDGETS = TINY | {
    "aime": TINY["aime"] | {"model_updates": 25, "inverse_updates": 25, "clone_updates": 25, "policy_updates": 25},
    "mbbc": TINY["mbbc"] | {"model_updates": 40, "clone_updates": 40},
    **{
        name: TINY[name]
        | dict.fromkeys(("model_updates", "inverse_updates", "clone_updates", "policy_updates"), 15)
        | {"imagination_updates": 25}
        for name in ("ditto", "d-gail")
    },
    "bco": {"min_epochs": 3, "min_updates": 120, "max_epochs": 6, "batch_size": 32},
    "bc": {"min_epochs": 3, "min_updates": 120, "max_epochs": 6, "batch_size": 32},
    "iidm": TINY["iidm"] | {"model_updates": 40, "policy_updates": 40},
    "gaifo ppo": TINY["gaifo"] | {"timesteps": 320},
    "gaifo sac": TINY["gaifo"]
    | {
        "timesteps": 1536,
        "discriminator_updates": INTERVAL,  # a checkpoint every 512 steps
        "algorithm": "sac",
        # A replay buffer that is full in the middle, and is written over from then on.
        "algorithm_kwargs": {"learning_starts": 100, "batch_size": 32, "gradient_steps": 4, "buffer_size": 900},
    },
}
processes = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def data():
    env = toy.PointMass()
    return {"play": toy.play_data(env, 12), "demonstrations": toy.demonstrations(env, 6)}


def script(name, data, out, folder=None, phases=PHASES, callback=None, **changes):
    """What a user starts again and again."""
    torch.set_num_threads(1)
    budget = BUDGETS[name] | {"seed": 0, "env": toy.PointMass(), "checkpoint_interval": INTERVAL} | data | changes
    agent = make_agent(name.split()[0], checkpoint_dir=folder, **budget)
    for phase in phases:
        getattr(agent, phase)(callback=callback, progress_bar=False)
    agent.save(out)
    return agent


def differences(one, other):
    """What two agents' files do not have in common."""
    one, other = (dict(flat(read_archive(path))) for path in (one, other))
    for document in (one, other):
        for name in [name for name in document if name.startswith("checkpoint/")]:
            document.pop(name)
    return [
        name
        for name in one.keys() | other.keys()
        if not (
            torch.equal(one[name], other[name])
            if isinstance(one.get(name), torch.Tensor) and isinstance(other.get(name), torch.Tensor)
            else one.get(name) == other.get(name)
        )
    ]


def flat(value, name=""):
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(part, f"{name}/{key}" if name else key)
    else:
        yield name, value


class StopAfter(BaseCallback):
    """Ctrl-C, SIGTERM or another signal to this process, after some updates."""

    def __init__(self, updates, number=signal.SIGINT):
        super().__init__()
        self.updates, self.number = updates, number

    def _on_step(self):
        if self.num_timesteps == self.updates:
            os.kill(os.getpid(), self.number)
        return True


@each_kind
def test_ctrl_c_again_and_again(name, data, tmp_path):
    whole = script(name, data, tmp_path / "whole")
    stops = 0
    for updates in itertools.count(10, 23):
        try:
            agent = script(name, data, tmp_path / "end", tmp_path / "runs", callback=StopAfter(updates))
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops == len(range(10, whole.num_updates + 1, 23))
    assert agent.num_updates == whole.num_updates
    assert differences(tmp_path / "whole.zip", tmp_path / "end.zip") == []


@each_kind
def test_the_same_object_goes_on_after_ctrl_c(name, data, tmp_path):
    script(name, data, tmp_path / "whole")
    agent = make_agent(
        name, toy.PointMass(), seed=0, checkpoint_dir=tmp_path / "runs", checkpoint_interval=INTERVAL,
        **BUDGETS[name], **data,
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        agent.learn(0, callback=StopAfter(10))
    agent.learn(0).save(tmp_path / "end")
    if agent.needs_play:
        assert differences(tmp_path / "whole.zip", tmp_path / "end.zip") == []
    assert agent.imitated


def run_and_say_so(started, *arguments):
    started.set()
    script(*arguments)


def in_a_process(*arguments, kill_after=None):
    """Run the script to its end, or kill -9 it after some seconds; returns its exit status and the seconds it took."""
    started = processes.Event()
    process = processes.Process(target=run_and_say_so, args=(started, *arguments))
    process.start()
    started.wait()
    start = time.perf_counter()
    process.join(kill_after)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode, time.perf_counter() - start


def kill_and_go_on(name, data, folder, kills, phases=PHASES):
    """Kill the script so often at random moments of each phase; returns what differs when it has gone on to its end."""
    # Where there are checkpoints, an agent in its environment resets it at each.
    script(name, data, folder / "whole", folder / "uninterrupted" if name in ONLINE_NAMES else None, phases)
    differing = []
    before = folder / "nothing"
    before.mkdir()
    for last, phase in enumerate(phases, 1):
        until = phases[:last]
        done = shutil.copytree(before, folder / f"{phase}-done")
        _, seconds = in_a_process(name, data, folder / "timed", done, until)
        for kill in range(kills):
            moment = random.uniform(0, seconds)
            status = None
            while status != -signal.SIGKILL:  # the run was faster than the one that was timed
                runs = shutil.copytree(before, folder / f"{phase}-{kill}-{moment}")
                status, _ = in_a_process(name, data, folder / "killed", runs, until, kill_after=moment)
                moment /= 2
            script(name, data, folder / "end", runs, phases)
            differing += differences(folder / "whole.zip", folder / "end.zip")
        before = done
    return differing


@each_kind
def test_kill_9(name, data, tmp_path):
    assert kill_and_go_on(name, data, tmp_path, kills=1) == []


@every_online_agent
def test_kill_9_in_its_environment(name, data, tmp_path):
    assert kill_and_go_on(name, data, tmp_path, kills=1, phases=("imitate",)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES + ONLINE_NAMES)
def test_kill_9_at_ten_moments_of_each_phase(name, data, tmp_path):
    assert kill_and_go_on(name, data, tmp_path, kills=10) == []


@every_online_agent
def test_the_interval_decides_where_the_environment_is_reset(name, data, tmp_path):
    """So another one is another run, as is another number of copies."""
    arguments = (name, data, tmp_path / "end", tmp_path / "runs", ("imitate",))
    with pytest.raises(KeyboardInterrupt):
        script(*arguments, callback=StopAfter(10))
    for changes, named in (
        ({"checkpoint_interval": INTERVAL + 1}, "checkpoint_interval"),
        ({"env": DummyVecEnv([toy.PointMass] * 2)}, "copies of the environment"),
    ):
        with pytest.raises(ValueError, match=f"^checkpoint_dir: .* was left by another run, of another {named};"):
            script(*arguments, **changes)


def test_another_number_of_threads_is_warned_of(data, tmp_path, monkeypatch):
    arguments = ("bc", data, tmp_path / "end", tmp_path / "runs")
    with pytest.raises(KeyboardInterrupt):
        script(*arguments, callback=StopAfter(10))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 3)
        with pytest.warns(UserWarning, match=r"^checkpoint_dir: expected .* threads=1, .*, got .* threads=3; "):
            script(*arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        script(*arguments)  # nothing is left to do


def test_sigterm_writes_a_checkpoint_first(data, tmp_path):
    callback = StopAfter(10, signal.SIGTERM)
    status, _ = in_a_process("bco", data, tmp_path / "end", tmp_path / "runs", PHASES, callback)
    assert status == -signal.SIGTERM
    run = read_archive(tmp_path / "runs" / "00-pretrain.zip")["checkpoint"]["runs"][-1]
    assert run["updates"] == 11  # held back by the callback's update, obeyed after the next


@each_kind
def test_without_a_seed(name, data, tmp_path):
    """What was left decides, not the weights that the next process starts with."""
    first = {"seed": None}
    with pytest.raises(KeyboardInterrupt):
        script(name, data, tmp_path / "end", tmp_path / "runs", callback=StopAfter(10), **first)
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    script(name, data, tmp_path / "one", tmp_path / "runs", **first)
    script(name, data, tmp_path / "other", tmp_path / "copy", **first)
    assert differences(tmp_path / "one.zip", tmp_path / "other.zip") == []


@pytest.mark.parametrize("seed", [0, None])
def test_play_that_the_agent_records_itself(data, tmp_path, seed):
    arguments = {"play": None, "play_timesteps": 60, "seed": seed}
    with pytest.warns(UserWarning, match="collecting 60 steps"):
        whole = script("bco", data, tmp_path / "whole", tmp_path / "all", ("imitate",), **arguments)
    runs = tmp_path / "runs"
    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="collecting 60 steps"):
        script("bco", data, tmp_path / "end", runs, ("imitate",), StopAfter(10), **arguments)
    with pytest.warns(UserWarning, match="collecting 60 steps"):
        agent = script("bco", data, tmp_path / "end", runs, ("imitate",), **arguments)
    assert agent.num_timesteps == whole.num_timesteps == 60
    if seed is not None:
        assert differences(tmp_path / "whole.zip", tmp_path / "end.zip") == []


def test_a_second_imitate_is_another_phase(data, tmp_path):
    phases = (*PHASES, "imitate")
    script("bc", data, tmp_path / "whole", None, phases)
    for _ in range(2):
        script("bc", data, tmp_path / "end", tmp_path / "runs", phases)
        assert differences(tmp_path / "whole.zip", tmp_path / "end.zip") == []
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "00-pretrain.zip",
        "01-imitate.zip",
        "02-imitate.zip",
    ]


def test_a_finished_checkpoint_is_an_agent_s_file(data, tmp_path):
    agent = script("bc", data, tmp_path / "end", tmp_path / "runs")
    loaded = get_agent_class("bc").load(tmp_path / "runs" / "01-imitate.zip")
    assert loaded.imitated
    for one, other in zip(agent.policy.parameters(), loaded.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_middle_of_a_phase_is_none(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        script("bco", data, tmp_path / "end", tmp_path / "runs", callback=StopAfter(10))
    with pytest.raises(ValueError, match="expected a finished agent, got the checkpoint of an unfinished phase"):
        get_agent_class("bco").load(tmp_path / "runs" / "00-pretrain.zip")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed, starting weights"),
        ({"batch_size": 31}, "hyper-parameters"),
        ({"policy_kwargs": {"hidden": 16}}, "hyper-parameters, starting weights"),
        ({"play": "less"}, "data"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(data, tmp_path, changes, named):
    if "play" in changes:
        changes = {"play": data["play"][:-1]}
    with pytest.raises(KeyboardInterrupt):
        script("bco", data, tmp_path / "end", tmp_path / "runs", callback=StopAfter(10))
    content = (tmp_path / "runs" / "00-pretrain.zip").read_bytes()
    with pytest.raises(ValueError, match=f"checkpoint_dir: .*00-pretrain.zip was left by .* of another {named};"):
        script("bco", data | changes, tmp_path / "end", tmp_path / "runs", **changes)
    assert (tmp_path / "runs" / "00-pretrain.zip").read_bytes() == content


def test_the_checkpoint_of_another_agent_is_refused(data, tmp_path):
    script("bc", data, tmp_path / "end", tmp_path / "runs")
    with pytest.raises(ValueError, match="was left by another run, of another agent"):
        script("bco", data, tmp_path / "end", tmp_path / "runs")


def test_a_damaged_checkpoint_is_refused(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        script("bco", data, tmp_path / "end", tmp_path / "runs", callback=StopAfter(10))
    path = tmp_path / "runs" / "00-pretrain.zip"
    content = path.read_bytes()
    document = read_archive(path)
    document["checkpoint"].pop("runs")
    for damage in (lambda: path.write_bytes(content[: len(content) // 2]), lambda: write_archive(path, document)):
        damage()
        with pytest.raises(ValueError, match="path: expected a checkpoint, got .*00-pretrain.zip"):
            script("bco", data, tmp_path / "end", tmp_path / "runs")


def test_what_a_killed_writer_left_behind_goes(data, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".00-pretrain.zip.12345").write_bytes(b"torn")
    script("bc", data, tmp_path / "end", tmp_path / "runs")
    assert not list((tmp_path / "runs").glob(".*"))


def test_intervals_are_checked():
    with pytest.raises(ValueError, match="checkpoint_interval: expected at least 1, got 0"):
        make_agent("bc", toy.PointMass(), checkpoint_interval=0)
