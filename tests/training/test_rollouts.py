"""The driver of environment steps: what it counts, when it stops, how it resumes; and the episodes of a policy."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym.testing import toy
from aime_gym.training.callbacks import StepCallbacks
from aime_gym.training.checkpoint import PhaseCheckpoint
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.optimizer import Optimizer
from aime_gym.training.rollouts import Rollouts, collect_episodes
from aime_gym.training.signals import DeferredSignals


class StepCounter(gym.Env):
    """Shows which episode it is and how many steps it took; the action comes back as the reward."""

    action_space = spaces.Box(-9, 9, (1,), np.float32)

    def __init__(self, length, sensors=False):
        self.length, self.sensors, self.episode = length, sensors, 0
        box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = spaces.Dict({"count": box}) if sensors else box

    def observe(self):
        value = np.array([self.episode, self.steps], np.float32)
        return {"count": value} if self.sensors else value

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.steps = 0
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        return self.observe(), float(action[0]), self.steps == self.length, False, {}


def act(observation, state, episode_start):
    """How many steps each copy has taken in its episode, by what the state remembers."""
    taken = np.where(episode_start, 0, 0 if state is None else state)
    return taken[:, None].astype(np.float32), taken + 1


def play(env, steps=1, seed=0, on_step=lambda now: True, policy=act):
    return collect_episodes(env, policy, steps=steps, seed=seed, on_step=lambda step: on_step(step.local_values()))


def seen(trajectory):
    observations = trajectory.observations
    return (observations["count"] if isinstance(observations, dict) else observations).tolist()


@pytest.mark.parametrize("sensors", [False, True])
def test_each_copy_finishes_an_episode_and_what_others_began_is_kept(sensors):
    env = DummyVecEnv([lambda: StepCounter(2, sensors), lambda: StepCounter(5, sensors)])
    episodes = play(env)
    assert [seen(episode) for episode in episodes] == [
        [[1, 0], [1, 1], [1, 2]],  # the last observation is the episode's, not the next one's first
        [[2, 0], [2, 1], [2, 2]],
        [[1, step] for step in range(6)],
        [[3, 0], [3, 1]],  # when the other was done
    ]
    assert [(episode.terminated, episode.truncated) for episode in episodes] == [(True, False)] * 3 + [(False, True)]
    for episode in episodes:  # the state starts anew with each
        assert episode.actions[:, 0].tolist() == episode.rewards.tolist() == list(range(len(episode)))


def test_a_copy_that_begins_nothing_adds_nothing():
    episodes = play(DummyVecEnv([lambda: StepCounter(3)]))
    assert [seen(episode) for episode in episodes] == [[[1, 0], [1, 1], [1, 2], [1, 3]]]


@pytest.mark.parametrize(("steps", "lengths"), [(1, [3]), (3, [3]), (4, [3, 1]), (6, [3, 3])])
def test_it_goes_on_until_enough_steps_are_taken(steps, lengths):
    assert [len(episode) for episode in play(DummyVecEnv([lambda: StepCounter(3)]), steps)] == lengths


def test_a_time_limit_is_no_termination():
    (cut,) = play(DummyVecEnv([lambda: TimeLimit(StepCounter(9), 4)]))
    assert (len(cut), cut.terminated, cut.truncated) == (4, False, True)
    (both,) = play(DummyVecEnv([lambda: TimeLimit(StepCounter(4), 4)]))
    assert (len(both), both.terminated, both.truncated) == (4, True, False)


def test_the_same_seed_plays_the_same_episodes():
    def once(seed):
        return play(DummyVecEnv([toy.PointMass] * 2), seed=seed, policy=lambda o, state, start: (np.sin(9 * o), None))

    for one, other in zip(once(3), once(3), strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
    first, second = once(3)
    assert not np.array_equal(first.observations, second.observations)  # the copies differ
    assert not np.array_equal(first.observations, once(4)[0].observations)


def test_a_round_knows_nothing_of_the_one_before():
    """Whatever the environment went through: a checkpoint holds none of it."""
    used = DummyVecEnv([toy.PointMass])
    used.reset()
    for _ in range(7):
        used.step(np.ones((1, 2), np.float32))
    for one, other in zip(play(used, seed=5), play(DummyVecEnv([toy.PointMass]), seed=5), strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)


def test_a_step_is_told_of_and_may_be_the_last():
    told = []

    def on_step(now):
        told.append(now)
        return len(told) < 4

    first, second = play(DummyVecEnv([lambda: StepCounter(3)] * 2), steps=100, on_step=on_step)[2:]
    assert len(told) == 4
    assert [len(first), len(second)] == [1, 1]
    assert first.truncated
    assert told[2]["dones"].tolist() == [True, True]
    assert told[2]["new_obs"].tolist() == [[2, 0]] * 2  # as SB3 shows it
    assert told[2]["infos"][0]["terminal_observation"].tolist() == [1, 3]
    assert told[2]["rewards"].tolist() == [2, 2]


def test_actions_of_a_discrete_space():
    episodes = play(
        DummyVecEnv([lambda: toy.DiscretePointMass(start=3)]), policy=lambda o, state, start: (np.full(len(o), 4), None)
    )
    assert episodes[0].actions.tolist() == [4] * toy.STEPS


# The driver


class MemoryWriter(KVWriter):
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

    def __init__(
        self, path=None, total=12, length=4, callback=None, interrupt_at=None, late=False, interval=1, **changes
    ):
        self.num_timesteps = self.num_updates = 0
        self.n_envs, self.log = 2, MemoryWriter()
        self.ep_info_buffer = self.ep_success_buffer = None
        torch.manual_seed(0)
        self.line = torch.nn.Linear(1, 1)
        self.optimizer = Optimizer([self.line], 0.1)
        self.generator = torch.Generator().manual_seed(0)
        checkpoint = None if path is None else PhaseCheckpoint(path, interval=interval, identity={"run": "this"})
        if checkpoint is not None and checkpoint.agent is None:
            checkpoint.begin({})
        self.loop = TrainingLoop(
            self, Logger(None, [self.log]), self.generator, progress_bar=False, checkpoint=checkpoint,
            total_timesteps=total, **changes,
        )  # fmt: skip
        self.loop.step_callbacks = StepCallbacks(callback, self)
        self.rollouts = Rollouts(self, self.loop, "learn", total, self.optimizer)
        self.length, self.interrupt_at, self.late = length, interrupt_at, late

    def interrupt(self, late):
        if self.num_timesteps == self.interrupt_at and late == self.late:
            raise KeyboardInterrupt

    def collect_and_update(self):
        for _ in range(self.length // 2):
            if not self.rollouts.step(2, {}):
                return {}
            self.interrupt(late=False)
        self.rollouts.end_rollout({})
        self.rollouts.run("learn", 1, self.update)
        self.interrupt(late=True)
        return {"rollout/also": 7.0}

    def update(self):
        loss = (self.line(torch.randn(3, 1, generator=self.generator)) - 1).square().mean()
        self.optimizer.step(loss)
        return {"loss": loss.detach(), "step": float(self.num_timesteps)}

    def __call__(self):
        with DeferredSignals(terminations=False) as self.loop.signals:
            self.completed = self.rollouts.repeat(self.collect_and_update)
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
    assert (run.completed, run.loop.interrupted, run.rollouts.stopped) == (False, True, True)
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


class ContinuedRun(Run):
    """Rollouts of two steps each, in an environment that continues from one to the next."""

    def __init__(self, path=None, length=5, **changes):
        super().__init__(path, **changes)
        self.seeds = []
        self.env = DummyVecEnv([lambda: StepCounter(length), lambda: StepCounter(3)])
        self.env.seed = self.seeds.append

    def _update_info_buffer(self, infos, dones):
        pass

    def collect_and_update(self):
        for step in itertools.islice(self.rollouts.continued_steps(act), 2):
            if not self.rollouts.record_step(step):
                return {}
            self.interrupt(late=False)
        self.rollouts.run("learn", 1, self.update)
        return {}


@pytest.mark.parametrize(
    ("length", "interval", "resets"),
    # After as many updates as the interval has, and when the longer of the two episodes is over.
    [(2, 1, [0, 8, 16, 24]), (5, 1, [0, 12, 24]), (5, 4, [0, 16]), (99, 1, [0])],
)
def test_an_environment_that_continues_is_reset_at_checkpoints_alone(length, interval, resets, tmp_path):
    """At which steps of both copies together; their rollouts have four."""
    for path, expected in ((None, [0]), (tmp_path / "learn.zip", resets)):
        run = ContinuedRun(path, length, total=28, interval=interval)
        run.env.seed = lambda seed, run=run: run.seeds.append(run.num_timesteps)
        run()
        assert run.seeds == expected


def test_a_continued_round_is_repeated_from_its_reset(tmp_path):
    whole = ContinuedRun(tmp_path / "whole.zip", total=28)()
    for stop in (2, 14, 14, 26):
        with pytest.raises(KeyboardInterrupt):
            ContinuedRun(tmp_path / "learn.zip", total=28, interrupt_at=stop)()
    resumed = ContinuedRun(tmp_path / "learn.zip", total=28)()
    assert_same(resumed, whole)
    assert resumed.seeds == whole.seeds[-1:]
