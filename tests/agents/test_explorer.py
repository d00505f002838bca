"""Explorers: what novelty is, that it fills space, and that the task's reward makes an expert."""

import math
import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure

from aime_gym.agents.aime import AIMEAgent
from aime_gym.agents.explorer import Explorer
from aime_gym.data import TrajectoryDataset, check_trajectories, collect
from aime_gym.model_based.pretraining import WorldModelTrainingConfig
from aime_gym.model_based.task_model import JointSampler
from aime_gym.models.config import WorldModelConfig
from aime_gym.models.ensemble import Ensemble, novelty
from aime_gym.testing.toy import DiscretePointMass, PointMass, play_data, score
from aime_gym.training.optimizer import Optimizer

#: A few updates of everything.
TINY = {
    "world_model": WorldModelConfig(deter=8, stoch=4, hidden=8, decoder_hidden=8),
    "batch_size": 4,
    "sequence_length": 8,
    "imagination_horizon": 3,
    "imagination_starts": 16,
    "random_episodes": 2,
    "first_updates": 2,
    "updates_per_step": 0.05,
    "ensemble_hidden": 8,
}
#: Enough to learn the toy.
LEARNING = {
    "world_model": WorldModelConfig(deter=64, stoch=8, hidden=64, decoder_hidden=64),
    "batch_size": 16,
    "sequence_length": 16,
    "imagination_horizon": 8,
    "imagination_starts": 64,
    "ensemble_hidden": 64,
}


def interrupting(make, at):
    """The environment with a Ctrl-C at one of its steps."""

    class Interrupting(make):
        taken = 0

        def step(self, action):
            self.taken += 1
            if self.taken == at:
                os.kill(os.getpid(), signal.SIGINT)
            return super().step(action)

    return Interrupting()


# What novelty is


def test_novelty_equals_a_plain_version():
    predictions = torch.randn(5, 3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = novelty(predictions)
    assert values.shape == (3, 4)
    for t in range(3):
        for b in range(4):
            total = 0.0
            for i in range(2):
                heads = predictions[:, t, b, i].tolist()
                mean = sum(heads) / 5
                std = math.sqrt(sum((head - mean) ** 2 for head in heads) / 4)
                total += math.log(std) / 2
            assert values[t, b].item() == pytest.approx(0.1 * total, abs=1e-6)


def test_heads_that_agree_give_a_finite_novelty_and_gradient():
    predictions = torch.ones(5, 3, 2, requires_grad=True)
    value = novelty(predictions).sum()
    value.backward()
    assert value.isfinite()
    assert predictions.grad.isfinite().all()


def test_disagreement_is_high_where_data_is_missing_and_falls_with_data():
    torch.manual_seed(0)
    ensemble = Ensemble(2, 1, 3, heads=5, hidden=16)
    optimizer = Optimizer([ensemble], 1e-2)
    seen = torch.randn(100, 3) * 0.3 + torch.tensor([1.0, 0, 0])
    elsewhere = torch.randn(100, 3) * 0.3 - torch.tensor([1.0, 0, 0])

    def fit(inputs):
        for _ in range(80):
            optimizer.step(ensemble.loss(inputs[:, :2], inputs[:, 2:], torch.sin(3 * inputs)))

    def of(inputs):
        return novelty(ensemble(inputs[:, :2], inputs[:, 2:])).mean().item()

    before = of(seen)
    fit(seen)
    assert of(seen) < before - 0.05
    assert of(elsewhere) > of(seen) + 0.1
    known = of(elsewhere)
    fit(torch.cat([seen, elsewhere]))
    assert of(elsewhere) < known - 0.05


def test_the_actor_climbs_the_novelty_of_its_actions_through_the_dynamics():
    explorer = Explorer(PointMass(), seed=0, **TINY)
    explorer.explore(2, progress_bar=False)
    dataset = TrajectoryDataset(explorer.trajectories, explorer.action_encoding)
    sampler = JointSampler(
        None,
        dataset,
        WorldModelTrainingConfig(batch_size=4),
        play_ratio=0,
        start_fraction=0,
        generator=explorer.generator,
    )
    states, _ = explorer.task_model.update(*sampler.sample(), explorer._noise)
    frozen = [[p.clone() for p in module.parameters()] for module in (explorer.world_model, explorer.ensemble)]
    actor = [p.clone() for p in explorer.policy.parameters()]
    explorer._update_actor(type(states)(states.deter[0], states.stoch[0]))
    for module, before in zip((explorer.world_model, explorer.ensemble), frozen, strict=True):
        assert all(torch.equal(new, old) for new, old in zip(module.parameters(), before, strict=True))
    assert not all(torch.equal(new, old) for new, old in zip(explorer.policy.parameters(), actor, strict=True))


@pytest.mark.parametrize("reward", ["novelty", "task"])
def test_only_dreamer_sees_the_reward(reward):
    class Paid(PointMass):
        def step(self, action):
            observation, _, *rest = super().step(action)
            return observation, 5.0, *rest

    one, other = (
        Explorer(make(), reward=reward, seed=0, **TINY).explore(4, progress_bar=False) for make in (PointMass, Paid)
    )
    same = all(np.array_equal(a.actions, b.actions) for a, b in zip(one, other, strict=True))
    assert same == (reward == "novelty")
    assert (other[-1].rewards == 5).all()


# Episodes


@pytest.mark.parametrize("make", [PointMass, DiscretePointMass])
def test_same_seed_same_data_and_the_callers_random_numbers_stay(make):
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    runs = [Explorer(make(), seed=seed, **TINY).explore(4, progress_bar=False) for seed in (0, 0, 1)]
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    for first, again, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(first.observations, again.observations)
        np.testing.assert_array_equal(first.actions, again.actions)
        assert not np.array_equal(first.actions, other.actions)
    env = make()
    checked = check_trajectories(
        runs[0],
        argument="play",
        observation_space=env.observation_space,
        action_space=env.action_space,
        need_actions=True,
    )
    assert [len(episode) for episode in checked] == [30] * 4
    assert all(episode.truncated and not episode.terminated for episode in runs[0])


def test_exploring_goes_on_where_it_ended_whatever_was_asked_in_between():
    whole, parts = (Explorer(PointMass(), seed=0, **TINY) for _ in range(2))
    whole.explore(4, progress_bar=False)
    first = parts.explore(3, progress_bar=False)
    collect(PointMass(), parts, 1, deterministic=False, progress=False)
    (last,) = parts.explore(1, progress_bar=False)
    assert parts.trajectories == [*first, last]
    np.testing.assert_array_equal(last.actions, whole.trajectories[-1].actions)
    assert whole.num_timesteps == parts.num_timesteps == 120


def test_steps_are_taken_in_whole_episodes_of_all_copies():
    explorer = Explorer(make_vec_env(PointMass, n_envs=2), seed=0, **TINY).learn(100)
    assert explorer.num_timesteps == sum(map(len, explorer.trajectories)) == 120
    assert len(explorer.trajectories) == 4


def test_ctrl_c_keeps_the_complete_episodes():
    explorer = Explorer(interrupting(PointMass, at=100), seed=0, **TINY)
    with pytest.warns(UserWarning, match="interrupted after 3 of 10 episodes"):
        episodes = explorer.explore(10, progress_bar=False)
    assert [len(episode) for episode in episodes] == [30] * 3
    assert len(explorer.explore(1, progress_bar=False)) == 1


def test_a_callback_sees_every_step_and_stops(tmp_path):
    explorer, steps = Explorer(PointMass(), seed=0, **TINY), []
    explorer.set_logger(configure(str(tmp_path), ["csv"]))

    def callback(local_values, _):
        assert local_values["self"] is explorer
        steps.append(explorer.num_timesteps)
        return len(steps) < 70

    explorer.learn(300, callback=callback)
    assert steps == list(range(1, 71))
    assert explorer.interrupted
    assert [len(episode) for episode in explorer.trajectories] == [30, 30, 10]
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert {"rollout/ep_rew_mean", "time/total_timesteps", "time/fps"} <= set(header)


def test_it_works_outside_of_the_main_thread():
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(Explorer(PointMass(), seed=0, **TINY).explore, 3, progress_bar=False).result()) == 3


def test_progress_bar(capsys):
    Explorer(PointMass(), seed=0, **TINY).explore(1)
    assert "explore" in capsys.readouterr().err


# Files


def test_a_file_acts_as_what_was_saved_and_goes_on(tmp_path):
    explorer = Explorer(PointMass(), seed=0, **TINY)
    explorer.explore(3, progress_bar=False)
    explorer.save(tmp_path / "explorer.zip")
    loaded = Explorer.load(tmp_path / "explorer.zip", PointMass(), seed=1)
    one, other = (collect(PointMass(), policy, 1, seed=3, progress=False)[0] for policy in (explorer, loaded))
    np.testing.assert_array_equal(one.actions, other.actions)
    assert len(loaded.explore(3, progress_bar=False)) == 3
    with pytest.raises(ValueError, match="env: expected the spaces"):
        Explorer.load(tmp_path / "explorer.zip", DiscretePointMass())
    with pytest.raises(ValueError, match="path: expected a file of AIMEAgent, got one of Explorer"):
        AIMEAgent.load(tmp_path / "explorer.zip")
    with pytest.raises(FileNotFoundError, match="path: expected an agent's file, found none"):
        Explorer.load(tmp_path / "nowhere.zip", PointMass())


def test_a_loaded_explorer_goes_on_with_its_policy_in_the_units_it_was_trained_in(tmp_path, monkeypatch):
    explorer = Explorer(PointMass(), seed=0, **TINY)
    explorer.explore(3, progress_bar=False)
    explorer.save(tmp_path / "explorer.zip")
    loaded = Explorer.load(tmp_path / "explorer.zip", PointMass())
    updates = loaded.num_updates
    units = [value.clone() for value in loaded.world_model.standardizers.state_dict().values()]
    monkeypatch.setattr(Explorer, "_act_at_random", lambda *_: pytest.fail("acted at random"))
    loaded.explore(1, progress_bar=False)
    assert loaded.num_updates == updates + round(0.05 * 30)
    for before, after in zip(units, loaded.world_model.standardizers.state_dict().values(), strict=True):
        assert torch.equal(before, after)


def test_an_explorer_that_was_saved_before_it_learnt_begins_at_random(tmp_path):
    explorer = Explorer(PointMass(), seed=0, **TINY)
    explorer.explore(1, progress_bar=False)
    explorer.save(tmp_path / "explorer.zip")
    loaded = Explorer.load(tmp_path / "explorer.zip", PointMass())
    loaded.explore(1, progress_bar=False)
    assert loaded.num_updates == 0
    loaded.explore(1, progress_bar=False)
    assert loaded.num_updates == 2


# What comes of it


@pytest.mark.slow
def test_exploration_covers_more_than_random_play():
    explored = Explorer(PointMass(), seed=0, **LEARNING).explore(20, progress_bar=False)
    played = play_data(PointMass(), 20)

    def cells(trajectories):
        positions = np.concatenate([trajectory.observations for trajectory in trajectories])
        return len(np.unique(np.floor(4 * positions).astype(int), axis=0))

    assert cells(explored) > 1.3 * cells(played)


@pytest.mark.slow
@pytest.mark.parametrize("make", [PointMass, DiscretePointMass])
def test_dreamer_learns_the_task(make):
    budget = {"random_episodes": 15, "first_updates": 200, "updates_per_step": 1.0, "gamma": 0.95}
    explorer = Explorer(make(), reward="task", seed=0, **budget, **LEARNING).learn(750)
    assert score(make(), explorer) > 0.5


# Wrong input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "fun"}, "reward: expected novelty or task, got 'fun'"),
        ({"ensemble": 1}, "ensemble: expected at least 2, got 1"),
        ({"imagination_horizon": 0}, "imagination_horizon: expected at least 1, got 0"),
        ({"sequence_length": 1}, "sequence_length: expected at least 2, got 1"),
        ({"random_episodes": 0}, "random_episodes: expected at least 1, got 0"),
        ({"updates_per_steps": 1}, "updates_per_steps: unknown hyper-parameter of Explorer; did you mean"),
    ],
)
def test_bad_hyper_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        Explorer(PointMass(), **options)


def test_bad_budgets_and_environments():
    explorer = Explorer(PointMass(), **TINY)
    with pytest.raises(ValueError, match="episodes: expected at least 1, got 0"):
        explorer.explore(0)
    with pytest.raises(ValueError, match="total_timesteps: expected at least 1, got 0"):
        explorer.learn(0)
    with pytest.raises(ValueError, match="env: expected a Gymnasium environment"):
        Explorer(3)

    class Many(PointMass):
        action_space = spaces.MultiDiscrete([2, 2])

    with pytest.raises(ValueError, match="action_space: expected Box or Discrete"):
        Explorer(Many())
    assert isinstance(Explorer(gym.make("CartPole-v1")).action_encoding.space, spaces.Discrete)
