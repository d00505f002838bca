"""Contract of training: the phases, their seeds, data, counters and logs."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym.agents.base import ImitationAgent
from aime_gym.testing import toy
from aime_gym.testing.base import ContractBase, assert_identical, parameters
from aime_gym.types import Trajectory


class TrainingContract(ContractBase):
    """Methods ``pretrain``, ``imitate``, ``infer_actions`` and ``learn``."""

    @pytest.mark.parametrize(("task", "bound"), [(toy.PointMass, 0.6), (toy.DiscretePointMass, 0.5)])
    def test_learns_the_toy_task(self, task: type[toy.PointMass], bound: float) -> None:
        if self.learning is None:
            pytest.skip("learning = None")
        env, play, demos = toy.task(task, play=60, demos=10)
        self.skip_unless_supported(env)
        agent = self.learner(env)
        if not agent.pretrained:
            agent.pretrain(play, progress_bar=False)
        agent.imitate(demos, progress_bar=False)
        assert toy.score(env, agent) > bound

    def test_same_seed_same_agent_whatever_others_draw(self) -> None:
        def draw(*_: object) -> None:
            random.random()
            torch.rand(1)
            np.random.rand()  # noqa: NPY002

        first = self.trained()
        draw()
        assert_identical(parameters(first), parameters(self.trained(callback=draw)))
        other = self.trained(seed=1)
        assert any(not torch.equal(t, parameters(other)[name]) for name, t in parameters(first).items())

    def test_global_randomness_is_left_alone(self) -> None:
        agent = self.make()
        torch.rand(1)  # so that no seed gives this state
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
        agent.pretrain(self.task().play, progress_bar=False).imitate(self.task().demos, progress_bar=False)
        agent.predict(self.zero_observations())
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]  # noqa: NPY002

    def test_another_seed_of_an_agent_without_one(self) -> None:
        first, second = self.trained(seed=None), self.trained(seed=None)
        assert any(not torch.equal(t, parameters(second)[name]) for name, t in parameters(first).items())

    def test_a_second_imitate_is_a_new_policy(self) -> None:
        _, play, demos = self.task()
        fresh, again = self.make(), self.make()
        for agent in (fresh, again):
            agent.pretrain(play, progress_bar=False)
        again.imitate(demos[:2], progress_bar=False)
        for agent in (fresh, again):
            agent.set_random_seed(5)
            agent.imitate(demos, progress_bar=False)
        assert_identical(parameters(fresh), parameters(again))

    def test_poisoned_demonstration_actions_change_nothing(self) -> None:
        if self.agent_class.needs_demonstration_actions:
            pytest.skip("an oracle")
        env, play, demos = self.task()
        poisoned = [replace(demo, actions=np.full_like(demo.actions, np.nan, dtype=np.float64)) for demo in demos]
        assert_identical(parameters(self.trained()), parameters(self.trained(toy.ToyTask(env, play, poisoned))))

    def test_training_leaves_the_data_alone(self) -> None:
        _, play, demos = self.task()
        before = [(t.observations.copy(), t.actions.copy()) for t in (*play, *demos)]  # type: ignore[union-attr]
        self.trained()
        for t, (observations, actions) in zip((*play, *demos), before, strict=True):
            np.testing.assert_array_equal(t.observations, observations)
            np.testing.assert_array_equal(t.actions, actions)

    def test_phases_count_updates_and_environment_steps(self) -> None:
        agent = self.make()
        assert (agent.pretrained, agent.imitated, agent.num_updates) == (False, False, 0)
        agent.pretrain(self.task().play, progress_bar=False)
        assert agent.pretrained
        assert not agent.imitated
        before = agent.num_updates
        agent.imitate(self.task().demos, progress_bar=False)
        assert agent.imitated
        assert not agent.interrupted
        assert agent.num_updates > before, "imitate has to make its updates in loop.run, or to count them"
        assert (agent.num_timesteps > 0) == self.agent_class.imitates_online

    def test_metrics_reach_the_logger_of_sb3(self, tmp_path: Path) -> None:
        agent = self.make()
        agent.set_logger(configure(str(tmp_path), ["csv"]))
        agent.pretrain(self.task().play, progress_bar=False).imitate(self.task().demos, progress_bar=False)
        expected = "time/total_timesteps" if self.agent_class.imitates_online else "policy/loss"
        assert expected in (tmp_path / "progress.csv").read_text()

    def test_metrics_reach_tensorboard(self, tmp_path: Path) -> None:
        _, play, demos = self.task()
        for _ in range(2):
            self.trained(tensorboard_log=str(tmp_path))
        self.make(play=play, demonstrations=demos, tensorboard_log=str(tmp_path)).learn(0, tb_log_name="sb3")
        folders = {path.parent.name for path in tmp_path.rglob("events.out.tfevents*")}
        assert folders == {"pretrain_1", "imitate_1", "pretrain_2", "imitate_2", "sb3_pretrain_1", "sb3_imitate_1"}

    @pytest.mark.parametrize("task", [toy.PointMass, toy.DiscretePointMass])
    def test_infer_actions_keeps_everything_else(self, task: type[toy.PointMass]) -> None:
        env, play, demos = toy.task(task)
        self.skip_unless_supported(env)
        inferred = self.trained(toy.ToyTask(env, play, demos)).infer_actions(demos)
        assert len(inferred) == len(demos)
        for before, after in zip(demos, inferred, strict=True):
            np.testing.assert_array_equal(before.observations, after.observations)
            assert after.actions is not None
            assert len(after.actions) == len(before)
            assert all(env.action_space.contains(action) for action in after.actions)

    def test_trajectories_of_unequal_length(self) -> None:
        env, play, demos = self.task()
        self.trained(toy.ToyTask(env, [_short(play[0]), *play[1:5]], [_short(demos[0]), *demos[1:5]]))

    def test_one_short_trajectory_is_enough(self) -> None:
        env, play, demos = self.task()
        agent = self.trained(toy.ToyTask(env, [_short(play[0])], [_short(demos[0])]))
        assert np.isfinite(toy.mean_return(env, agent, 1))

    def test_imitate_alone_collects_the_play_that_it_needs(self) -> None:
        demos = self.task().demos
        agent = self.make(play_timesteps=2 * toy.STEPS)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            agent.imitate(demos, progress_bar=False)
        said = any("collecting" in str(warning.message) for warning in caught)
        assert said == agent.pretrained == self.agent_class.needs_play
        assert agent.imitated
        if not self.agent_class.imitates_online:
            assert agent.num_timesteps == 2 * toy.STEPS * self.agent_class.needs_play

    def test_an_accelerator_learns_what_the_cpu_can_use(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.undo()
        if not torch.cuda.is_available():
            pytest.skip("no accelerator")
        agent = self.trained(device="cuda")
        assert all(tensor.is_cuda for tensor in parameters(agent).values())
        agent.save(tmp_path / "agent")
        on_cpu = self.agent_class.load(tmp_path / "agent", device="cpu")
        observation = self.zero_observations(3)
        action, state = agent.predict(observation, deterministic=True)
        np.testing.assert_allclose(on_cpu.predict(observation, deterministic=True)[0], action, atol=1e-3)
        assert on_cpu.predict(observation, state)[0].shape == action.shape

    # learn

    def test_learn_zero_runs_the_phases_on_the_data_of_the_constructor(self, trained_agent: ImitationAgent) -> None:
        _, play, demos = self.task()
        agent = self.make(play=play, demonstrations=demos)
        assert agent.learn(0) is agent
        assert agent.pretrained
        assert agent.imitated
        assert (agent.num_timesteps > 0) == self.agent_class.imitates_online
        # Equal to pretrain and imitate, and not repeated.
        assert_identical(parameters(agent), parameters(trained_agent))
        updates = agent.num_updates
        agent.learn(0)
        assert agent.num_updates == updates
        assert_identical(parameters(agent), parameters(trained_agent))

    def test_learn_refuses_before_any_training(self) -> None:
        _, play, demos = self.task()
        agent = self.make(play=play, demonstrations=demos)
        if not agent.has_online_phase:
            with pytest.raises(NotImplementedError, match=r"use imitate"):
                agent.learn(5)
        if not self.agent_class.imitates_online:
            with pytest.raises(ValueError, match=r"^total_timesteps: expected None"):
                agent.imitate(demos, 5)
        else:
            with pytest.raises(ValueError, match=r"^total_timesteps: expected at least 1, got 0"):
                agent.imitate(demos, 0)
        with pytest.raises(ValueError, match=r"total_timesteps: expected at least 0, got -1"):
            agent.learn(-1)
        assert (agent.pretrained, agent.imitated, agent.num_updates) == (False, False, 0)
        agent = self.make(play=play)
        with pytest.raises(ValueError, match=r"^demonstrations: "):
            agent.learn(0)
        assert not agent.pretrained

    # learn, of agents with an online phase

    def _online(self) -> ImitationAgent:
        """Return an untrained agent with play and demonstrations, or skip the test without an online phase."""
        _, play, demos = self.task()
        agent = self.make(play=play, demonstrations=demos)
        if not agent.has_online_phase:
            pytest.skip("takes no environment step")
        return agent

    def test_learn_counts_environment_steps(self) -> None:
        agent = self._online().learn(1)
        demos = self.task().demos
        assert agent.imitated
        first = agent.num_timesteps  # a whole round
        assert first >= 1
        if self.agent_class.imitates_online:
            assert_identical(parameters(agent), parameters(self.make().imitate(demos, 1, progress_bar=False)))
        agent.learn(first, reset_num_timesteps=False)
        assert agent.num_timesteps == 2 * first
        agent.learn(first)
        assert agent.num_timesteps == first
        if self.agent_class.imitates_online:
            agent.imitate(demos, first, progress_bar=False)
            assert agent.num_timesteps == 2 * first

    def test_a_loaded_agent_learns_on_as_the_saved_one(self, tmp_path: Path) -> None:
        env, play, demos = self.task()
        agent = self._online().learn(1)
        agent.save(tmp_path / "agent")
        loaded = self.agent_class.load(tmp_path / "agent", env=env, demonstrations=demos, play=play)
        before = parameters(agent)
        for one in (agent, loaded):
            one.learn(2 * toy.STEPS, reset_num_timesteps=False)
        assert any(not torch.equal(tensor, before[name]) for name, tensor in parameters(agent).items())
        assert_identical(parameters(loaded), parameters(agent))
        assert loaded.num_timesteps == agent.num_timesteps
        without = self.agent_class.load(tmp_path / "agent", env=env)
        with pytest.raises(ValueError, match=r"^demonstrations: expected trajectories, got None"):
            without.learn(toy.STEPS)
        with pytest.raises(ValueError, match=r"^env: "):
            self.agent_class.load(tmp_path / "agent", demonstrations=demos).learn(toy.STEPS)

    def test_learn_stops_and_goes_on(self) -> None:
        agent = self._online().learn(0)
        steps: list[int] = []

        def stop(local_values: dict[str, Any], _: object) -> bool:
            steps.append(local_values["self"].num_timesteps)
            return len(steps) < 3

        agent.learn(10 * toy.STEPS, callback=stop)
        assert agent.interrupted
        assert agent.num_timesteps == steps[-1] == 3 * agent.n_envs
        agent.learn(1, reset_num_timesteps=False)
        assert not agent.interrupted
        assert agent.num_timesteps > steps[-1]

    def test_learn_with_copies_that_disagree_is_refused(self) -> None:
        agent = self._online()
        space = spaces.Box(-5, 5, (2,), np.float32)
        other = type("Bounded", (self.toy_class,), {"observation_space": space})
        agent.set_env(DummyVecEnv([self.toy_class, other]))
        with pytest.raises(ValueError, match=r"^env: expected copies that agree on observation_space.*copy 1"):
            agent.learn(5)
        assert not agent.pretrained


def _short(trajectory: Trajectory) -> Trajectory:
    """Return the first step of a trajectory."""
    assert trajectory.actions is not None
    assert isinstance(trajectory.observations, np.ndarray)
    return Trajectory(trajectory.observations[:2], trajectory.actions[:1])
