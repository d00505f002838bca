"""``predict``: SB3's contract of recurrent policies."""

from __future__ import annotations

import random
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym.agents.base import ImitationAgent
from aime_gym.testing import toy
from aime_gym.testing.base import ContractBase
from aime_gym.types import Array

#: Absolute tolerance between batch sizes, whose float32 sums have another order.
TOLERANCE = 1e-5


class PredictContract(ContractBase):
    """Shapes, states, episode starts, determinism."""

    def test_a_batch_and_one_observation(self, trained_agent: ImitationAgent) -> None:
        batch = self.observations()[0]
        actions, state = trained_agent.predict(batch, deterministic=True)
        assert actions.shape == (3, *trained_agent.action_space.shape)
        assert actions.dtype == trained_agent.action_space.dtype
        assert state is not None
        assert all(isinstance(part, np.ndarray) and len(part) == 3 for part in state)
        action, single = trained_agent.predict(batch[0], deterministic=True)
        assert isinstance(action, np.ndarray)
        assert action.shape == trained_agent.action_space.shape
        assert single is not None
        assert all(len(part) == 1 for part in single)
        np.testing.assert_allclose(action, actions[0], atol=TOLERANCE)
        again, _ = trained_agent.predict(batch[0], single, deterministic=True)
        assert again.shape == trained_agent.action_space.shape

    def test_environments_do_not_see_each_other(self, trained_agent: ImitationAgent) -> None:
        starts = np.random.default_rng(1).random((6, 3)) < 0.4
        starts[0] = True
        together = []
        state = None
        for batch, start in zip(self.observations(), starts, strict=True):
            actions, state = trained_agent.predict(batch, state, start, deterministic=True)
            together.append(actions)
        for column in range(3):
            state = None
            for t, observation in enumerate(self.observations()[:, column]):
                # An episode start is equivalent to no state.
                state = None if starts[t, column] else state
                action, state = trained_agent.predict(observation, state, deterministic=True)
                np.testing.assert_allclose(together[t][column], action, atol=TOLERANCE)

    def test_one_bool_starts_one_observation(self, trained_agent: ImitationAgent) -> None:
        first, second = self.observations()[:2, 0]
        _, state = trained_agent.predict(first, deterministic=True)
        fresh = trained_agent.predict(second, deterministic=True)[0]
        np.testing.assert_array_equal(trained_agent.predict(second, state, True, deterministic=True)[0], fresh)

    def test_a_started_row_has_forgotten(self, trained_agent: ImitationAgent) -> None:
        batches = self.observations()
        fresh, state = trained_agent.predict(batches[0], deterministic=True)
        for batch in batches[1:]:
            _, state = trained_agent.predict(batch, state, deterministic=True)
        mixed, after = trained_agent.predict(batches[0], state, np.array([False, True, False]), deterministic=True)
        ongoing, gone_on = trained_agent.predict(batches[0], state, deterministic=True)
        np.testing.assert_array_equal(mixed[1], fresh[1])
        np.testing.assert_array_equal(mixed[[0, 2]], ongoing[[0, 2]])
        started = trained_agent.predict(batches[0], deterministic=True)[1]
        assert after is not None
        assert gone_on is not None
        assert started is not None
        for part, old, new in zip(after, gone_on, started, strict=True):
            np.testing.assert_array_equal(part[1], new[1])
            np.testing.assert_array_equal(part[[0, 2]], old[[0, 2]])

    def test_the_state_is_the_callers_own(self, trained_agent: ImitationAgent) -> None:
        batch = self.observations()[0].copy()
        _, state = trained_agent.predict(batch, deterministic=True)
        assert state is not None
        kept = [part.copy() for part in state]
        expected, _ = trained_agent.predict(self.observations()[1], state, deterministic=True)
        batch[:] = 7
        trained_agent.predict(batch, state, np.ones(3, bool))
        for part, copy in zip(state, kept, strict=True):
            np.testing.assert_array_equal(part, copy)
        # Neither the observation nor later calls changed the state.
        np.testing.assert_array_equal(
            trained_agent.predict(self.observations()[1], state, deterministic=True)[0], expected
        )

    def test_the_forms_of_a_state(self, trained_agent: ImitationAgent) -> None:
        batch = self.observations()[1]
        _, state = trained_agent.predict(self.observations()[0], deterministic=True)
        assert state is not None
        expected, _ = trained_agent.predict(batch, state, deterministic=True)
        forms: tuple[Any, ...] = (list(state), tuple(part.astype(np.float64) for part in state))
        for form in forms:
            np.testing.assert_array_equal(trained_agent.predict(batch, form, deterministic=True)[0], expected)

    @pytest.mark.filterwarnings("error")
    def test_the_memory_layout_of_observations_does_not_matter(self, trained_agent: ImitationAgent) -> None:
        batch = self.observations()[0]
        expected, _ = trained_agent.predict(batch, deterministic=True)
        backwards, _ = trained_agent.predict(batch[::-1], deterministic=True)
        np.testing.assert_allclose(backwards[::-1], expected, atol=TOLERANCE)
        fortran, _ = trained_agent.predict(np.asfortranarray(batch), deterministic=True)
        np.testing.assert_array_equal(fortran, expected)
        locked = batch.copy()
        locked.flags.writeable = False
        np.testing.assert_array_equal(trained_agent.predict(locked, deterministic=True)[0], expected)
        if batch.dtype == np.float32:
            np.testing.assert_array_equal(
                trained_agent.predict(batch.astype(np.float64), deterministic=True)[0], expected
            )

    def test_deterministic_actions_draw_nothing(self, trained_agent: ImitationAgent) -> None:
        batch = self.observations()[0]
        before = trained_agent.acting_generator.get_state()
        first, second = (trained_agent.predict(batch, deterministic=True)[0] for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert torch.equal(trained_agent.acting_generator.get_state(), before)

    def test_sampled_actions_follow_the_seed_alone(self, trained_agent: ImitationAgent) -> None:
        def rollout(disturb: bool) -> Array:
            agent = self.make()
            agent.set_parameters(trained_agent.get_parameters())
            agent.set_random_seed(3)
            actions = []
            state = None
            for batch in self.observations():
                if disturb:
                    random.random()
                    torch.rand(1)
                    np.random.rand()  # noqa: NPY002
                    trained_agent.predict(batch)
                action, state = agent.predict(batch, state)
                actions.append(action)
            return np.stack(actions)

        np.testing.assert_array_equal(rollout(disturb=False), rollout(disturb=True))

    def test_acting_leaves_training_alone(self, trained_agent: ImitationAgent) -> None:
        before = trained_agent.generator.get_state()
        trained_agent.predict(self.observations()[0])
        assert torch.equal(trained_agent.generator.get_state(), before)

    @pytest.mark.parametrize("envs", [1, 3])
    @pytest.mark.parametrize("deterministic", [True, False])
    def test_evaluate_policy(self, trained_agent: ImitationAgent, envs: int, deterministic: bool) -> None:
        mean, _ = evaluate_policy(
            trained_agent,
            DummyVecEnv([self.toy_class] * envs),
            n_eval_episodes=envs + 1,
            deterministic=deterministic,
            warn=False,
        )
        assert np.isfinite(mean)

    # Other spaces

    @pytest.mark.parametrize("start", [0, 3])
    def test_discrete_actions(self, start: int) -> None:
        env = toy.DiscretePointMass(start)
        self.skip_unless_supported(env)
        agent = self.trained(toy.ToyTask(env, toy.play_data(env, 6), toy.demonstrations(env, 4)))
        for deterministic in (True, False):
            action, _ = agent.predict(np.zeros(2, np.float32), deterministic=deterministic)
            assert isinstance(action, np.ndarray)
            assert action.shape == ()
            assert action.dtype == env.action_space.dtype
            assert env.action_space.contains(action.item())
            actions, _ = agent.predict(np.zeros((4, 2), np.float32), deterministic=deterministic)
            assert actions.shape == (4,)
        assert np.isfinite(toy.mean_return(env, agent, 1))

    def test_only_agents_that_refuse_the_toy_task_have_another(self) -> None:
        assert self.supports(toy.PointMass()) == (self.toy_class is toy.PointMass)

    def test_actions_of_another_shape_and_dtype(self) -> None:
        task = toy.task(toy.ColumnPointMass)
        self.skip_unless_supported(task.env)
        agent = self.trained(task)
        for deterministic in (True, False):
            action, _ = agent.predict(np.zeros(2, np.float32), deterministic=deterministic)
            assert task.env.action_space.contains(action)
            assert agent.predict(np.zeros((4, 2), np.float32), deterministic=deterministic)[0].shape == (4, 2, 1)
        assert all(t.actions.shape == (toy.STEPS, 2, 1) for t in agent.infer_actions(task.demos))

    def test_actions_beyond_the_unit_box(self) -> None:
        env = gym.make("Pendulum-v1")
        self.skip_unless_supported(env)
        task = toy.ToyTask(env, toy.play_data(env, 2), toy.play_data(env, 2, seed=5))
        agent = self.trained(task)
        inferred = agent.infer_actions(task.demos)
        assert all(np.abs(t.actions).max() <= 2 for t in inferred)
        assert np.isfinite(toy.mean_return(env, agent, 1))

    def test_observations_in_float64(self) -> None:
        task = self.task(toy.DoublePointMass)
        self.skip_unless_supported(task.env)
        assert np.isfinite(toy.mean_return(task.env, self.trained(task), 2))

    def test_sensors_of_a_dict_observation(self) -> None:
        task = self.task(toy.SensorsPointMass)
        self.skip_unless_supported(task.env)
        agent = self.trained(task)
        one = {"vertical": np.array([0.3], np.float32), "horizontal": np.array([-0.5], np.float32)}
        other = {"horizontal": one["horizontal"], "vertical": one["vertical"]}
        action, _ = agent.predict(one, deterministic=True)
        np.testing.assert_array_equal(agent.predict(other, deterministic=True)[0], action)
        batch = {name: np.stack([values] * 3) for name, values in one.items()}
        np.testing.assert_allclose(agent.predict(batch, deterministic=True)[0][2], action, atol=TOLERANCE)
        for wrong in (
            {"vertical": one["vertical"]},
            one | {"depth": one["vertical"]},
            one["vertical"],
            one | {"vertical": batch["vertical"]},
            batch | {"vertical": batch["vertical"][:2]},
        ):
            with pytest.raises(ValueError, match=r"observation: expected"):
                agent.predict(wrong)
