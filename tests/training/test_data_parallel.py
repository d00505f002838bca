"""Updates that several processes share are those of one process with the whole batch."""

import os
import signal
import subprocess
import sys
import textwrap
import uuid

import numpy as np
import pytest
import torch
import torch.distributed as dist
from small import MODEL, TINY

from aime_gym.agents.registry import make_agent
from aime_gym.processes import ProcessEndedError, WorkerProcess, start_server
from aime_gym.testing import toy
from aime_gym.training import loop

BUDGET = {"world_model": MODEL, "model_updates": 12, "inverse_updates": 4, "batch_size": 8, "sequence_length": 10}


def aime(**options):
    return make_agent("aime", toy.PointMass(), **{"seed": 0, "mixed_precision": False} | BUDGET | options)


def pretrain(play, stop_after=None, kill=None, **options):
    """What pretrain leaves in this process: losses that the callback saw, weights, updates, random numbers."""
    torch.set_num_threads(1)
    pids = [os.getpid()]
    if dist.is_initialized():
        pids = [None] * dist.get_world_size()
        dist.all_gather_object(pids, os.getpid())
    losses = []

    def callback(local_values, _):
        losses.append(float(local_values["metrics"]["loss"]))
        if len(losses) == kill:
            os.kill(pids[-1], signal.SIGTERM)
        return len(losses) != stop_after

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_INTERVAL", 1)
        agent = aime(**options).pretrain(play, callback=callback, progress_bar=False)
    weights = torch.cat([weight.flatten() for weight in agent.world_model.state_dict().values()]).numpy()
    return losses, weights, agent.num_updates, agent.generator.get_state().numpy()


def refusals(play):
    """The errors of what cannot be divided."""
    errors = []
    tries = [
        lambda: aime(batch_size=7).pretrain(play),
        lambda: aime(seed=dist.get_rank()).pretrain(play),
        lambda: aime().pretrain(play[dist.get_rank() :]),
        lambda: aime(play=play).imitate(play),
        lambda: aime(play=play).learn(0),
        lambda: make_agent("bco", toy.PointMass(), seed=0, **TINY["bco"]).pretrain(play),
    ]
    for attempt in tries:
        try:
            attempt()
        except (ValueError, NotImplementedError) as error:
            errors.append(f"{type(error).__name__}: {error}")
    return errors


def serve(connection, rank, size, store, work, arguments, options):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    connection.send(work(*arguments, **options))
    dist.destroy_process_group()


@pytest.fixture
def in_processes(tmp_path):
    """Call a function in two processes that share their updates, and return the results."""

    def call(work, *arguments, **options):
        start_server(["test_data_parallel", "torch._dynamo"])
        store = tmp_path / uuid.uuid4().hex
        processes = [WorkerProcess(serve, rank, 2, store, work, arguments, options) for rank in range(2)]
        try:
            return [process.receive() for process in processes]
        finally:
            for process in processes:
                process.stop()

    return call


@pytest.fixture(scope="module")
def play():
    return toy.task()[1]


def test_two_processes_do_what_one_does(in_processes, play):
    (losses, weights, updates, generator), (none, others, _, other) = in_processes(pretrain, play)
    expected_losses, expected, expected_updates, expected_generator = pretrain(play)
    assert none == []  # the first process alone calls callbacks
    assert updates == expected_updates
    np.testing.assert_array_equal(weights, others)
    np.testing.assert_array_equal([generator, other], [expected_generator] * 2)
    # Every update enlarges the error of rounding: Muon multiplies matrices in bfloat16.
    np.testing.assert_allclose(losses[:12], expected_losses[:12], rtol=1e-3)
    np.testing.assert_allclose(losses[0], expected_losses[0], rtol=1e-6)
    assert losses[11] < 0.8 * losses[0]
    np.testing.assert_allclose(weights, expected, atol=0.02)


def test_what_cannot_be_divided_is_refused(in_processes, play):
    errors = in_processes(refusals, play)
    starts = [
        "ValueError: batch_size: expected a multiple of the 2 processes, got 7",
        "ValueError: torchrun: expected processes with the same seed",
        "ValueError: torchrun: expected processes with the same data",
        "NotImplementedError: imitate: expected one process, got 2 of torchrun",
        "NotImplementedError: learn: expected one process, got 2 of torchrun",
        "NotImplementedError: pretrain: expected one process, got 2 of torchrun",
    ]
    for own in errors:
        assert [message[: len(start)] for message, start in zip(own, starts, strict=True)] == starts


@pytest.mark.slow
def test_all_stop_where_one_is_stopped_and_go_on(in_processes, play, tmp_path):
    whole, whole_other = in_processes(pretrain, play)
    options = {"checkpoint_dir": tmp_path / "checkpoints", "checkpoint_interval": 5}
    with pytest.raises(ProcessEndedError, match="SIGTERM"):
        in_processes(pretrain, play, kill=7, **options)  # the other process than the one that writes
    (resumed, other) = in_processes(pretrain, play, **options)
    assert resumed[0] == whole[0][8:]
    for one, expected in ((resumed, whole), (other, whole_other)):
        for part in (1, 2, 3):
            np.testing.assert_array_equal(one[part], expected[part])
    with pytest.raises(ProcessEndedError, match="SIGTERM"):
        in_processes(pretrain, play, kill=7, checkpoint_dir=tmp_path / "others")
    with pytest.warns(UserWarning, match="expected processes=2, threads=1, .* got processes=1"):
        alone = pretrain(play, checkpoint_dir=tmp_path / "others")
    np.testing.assert_allclose(alone[1], whole[1], atol=0.02)


@pytest.mark.slow
def test_all_stop_where_the_callback_says_so(in_processes, play):
    stopped, other = in_processes(pretrain, play, stop_after=5, inverse_updates=3)
    assert len(stopped[0]) == 5
    assert stopped[2] == other[2] == 8  # the inverse model is fitted all the same
    np.testing.assert_array_equal(stopped[1], other[1])


@pytest.mark.slow
def test_torchrun(tmp_path):
    """Check that the first process alone logs and shows a bar, and that Ctrl-C leaves a checkpoint to go on from."""
    script = tmp_path / "script.py"
    code = """
        import os, signal, sys
        import torch
        from small import TINY
        from aime_gym.agents.registry import make_agent
        from aime_gym.testing import toy

        def stop(local_values, _):
            if local_values["self"].num_updates == 7 and "stop" in sys.argv:
                os.kill(os.getppid(), signal.SIGINT)

        env, play, demos = toy.task()
        budget = TINY["aime"] | {"model_updates": 40}
        agent = make_agent("aime", env, seed=0, checkpoint_dir=sys.argv[1], verbose=1, **budget)
        agent.pretrain(play, callback=stop)
        print("pretrained", os.environ["RANK"], agent.num_updates)
        if os.environ["RANK"] == "0":
            agent.save(sys.argv[1] + "/agent.zip")
        agent.imitate(demos)
    """
    script.write_text(textwrap.dedent(code))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    folder = tmp_path / "checkpoints"

    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    shown = {"capture_output": True, "text": True, "timeout": 300, "env": environment}

    def run(*arguments):
        return subprocess.run([*command, str(folder), *arguments], **shown)

    stopped = run("stop")
    assert stopped.returncode != 0
    assert "pretrained" not in stopped.stdout
    assert [path.name for path in folder.iterdir()] == ["00-pretrain.zip"]
    result = run()
    assert sorted(line for line in result.stdout.splitlines() if "pretrained" in line) == [
        "pretrained 0 43",
        "pretrained 1 43",
    ]
    assert result.stdout.count("| inverse/ ") == 1
    assert "imitate: expected one process, got 2 of torchrun" in result.stderr
    assert (folder / "agent.zip").is_file()
