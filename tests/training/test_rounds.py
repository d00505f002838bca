"""The loop of an online phase: what it counts, when it stops, and how it goes on."""

import pytest
import torch
from stable_baselines3.common.logger import KVWriter, Logger

from aime_gym.training.callbacks import StepCallbacks
from aime_gym.training.checkpoint import PhaseCheckpoint
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.optimizer import Optimizer
from aime_gym.training.rounds import Rounds
from aime_gym.training.signals import DeferredSignals


class Kept(KVWriter):
    def __init__(self):
        self.entries = []

    def write(self, key_values, key_excluded, step=0):
        self.entries.append((step, dict(key_values)))

    def close(self):
        pass


class Run:
    """Rounds of ``length`` steps, in two environments at a time, and a gradient step each; all of it on a line.

    :param interrupt_at: the environment step at which Ctrl-C comes, before its round's update or after (``late``).
    """

    def __init__(self, path=None, total=12, length=4, callback=None, interrupt_at=None, late=False, **changes):
        self.num_timesteps = self.num_updates = 0
        self.n_envs, self.log = 2, Kept()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(1, 1)
        self.optimizer = Optimizer([self.line], 0.1)
        self.generator = torch.Generator().manual_seed(0)
        checkpoint = None if path is None else PhaseCheckpoint(path, interval=1, identity={"run": "this"})
        if checkpoint is not None and checkpoint.agent is None:
            checkpoint.begin({})
        self.loop = TrainingLoop(
            self, Logger(None, [self.log]), self.generator, progress_bar=False, checkpoint=checkpoint,
            total_timesteps=total, **changes,
        )  # fmt: skip
        self.loop.step_callbacks = StepCallbacks(callback, self)
        self.rounds = Rounds(self.loop, "learn", total, self.optimizer)
        self.length, self.interrupt_at, self.late = length, interrupt_at, late

    def interrupt(self, late):
        if self.num_timesteps == self.interrupt_at and late == self.late:
            raise KeyboardInterrupt

    def play(self):
        for _ in range(self.length // 2):
            if not self.rounds.step(2, {}):
                return {}
            self.interrupt(late=False)
        self.rounds.collected({})
        loss = (self.line(torch.randn(3, 1, generator=self.generator)) - 1).square().mean()
        self.optimizer.step(loss)
        self.rounds.update({"loss": loss.detach(), "step": float(self.num_timesteps)})
        self.interrupt(late=True)
        return {"rollout/also": 7.0}

    def __call__(self):
        with DeferredSignals(terminations=False) as self.loop.signals:
            self.completed = self.rounds.run(self.play)
        return self


def state(run):
    return run.optimizer.state_dict(), run.generator.get_state()


def assert_same(one, other):
    torch.testing.assert_close(state(one), state(other), rtol=0, atol=0)
    assert (one.num_timesteps, one.num_updates) == (other.num_timesteps, other.num_updates)


@pytest.mark.parametrize(("total", "rounds"), [(1, 1), (4, 1), (5, 2), (12, 3)])
def test_whole_rounds_until_all_steps_are_taken(total, rounds):
    run = Run(total=total)()
    assert run.completed
    assert (run.num_timesteps, run.num_updates) == (4 * rounds, rounds)
    assert not run.loop.interrupted


@pytest.mark.parametrize(("interval", "logged"), [(1, [4, 8, 12]), (2, [8, 12]), (5, [12])])
def test_the_log(interval, logged):
    run = Run(log_interval=interval)()
    assert [step for step, _ in run.log.entries] == logged
    entry = run.log.entries[-1][1]
    assert entry["learn/step"] == entry["time/total_timesteps"] == 12  # of the last round's updates
    assert entry["learn/updates"] == 3
    assert entry["rollout/also"] == 7
    assert entry["time/fps"] > 0


def test_a_callback_sees_steps_and_rounds_and_stops():
    steps, events = [], []

    class Callback:
        """What is asked of one of SB3's."""

        def __getattr__(self, name):
            return lambda *_: events.append(name)

        def on_step(self):
            steps.append(run.num_timesteps)
            return len(steps) < 3

    run = Run()
    run.loop.step_callbacks._callback = Callback()
    run()
    assert steps == [2, 4, 6]
    assert (run.completed, run.loop.interrupted, run.rounds.stopped) == (False, True, True)
    assert run.num_updates == 1  # not of the round that was stopped
    events = [event for event in events if event != "update_locals"]
    assert events == [
        "init_callback", "on_training_start", "on_rollout_start", "on_rollout_end", "on_rollout_start",
        "on_training_end",
    ]  # fmt: skip


def test_ctrl_c_without_a_checkpoint_keeps_what_was_learnt():
    run = Run(interrupt_at=8)
    with pytest.warns(UserWarning, match=r"^learn: interrupted after 4 of 12 steps; what was learnt is kept"):
        run()
    assert (run.completed, run.loop.interrupted) == (False, True)
    assert run.num_updates == 1


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("stops", [[2], [6], [12], [8, 10], [8, 8, 8], [4, 8, 12]])
def test_ctrl_c_with_a_checkpoint_plays_the_round_again(stops, late, tmp_path):
    """Wherever in a round it came, and however often."""
    stops = [stop + stop % 4 for stop in stops] if late else stops
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            Run(tmp_path / "learn.zip", interrupt_at=stop, late=late)()
    resumed = Run(tmp_path / "learn.zip")()
    assert resumed.completed
    assert_same(resumed, Run()())
    again = Run(tmp_path / "learn.zip")()  # nothing is left to do
    assert_same(again, resumed)
    assert again.log.entries == []


def test_a_phase_that_a_callback_stopped_stays_stopped(tmp_path):
    stopped = Run(tmp_path / "learn.zip", callback=lambda now, _: now["self"].num_timesteps < 8)()
    again = Run(tmp_path / "learn.zip")()
    assert not again.completed
    assert_same(again, stopped)


def test_a_loss_that_is_no_number_ends_the_phase():
    run = Run()
    run.line.weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="diverged"):
        run()
