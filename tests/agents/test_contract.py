"""What every registered agent does, whatever its algorithm."""

import os
import subprocess
import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import small
import torch
import toy
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym.agents.registry import agent_class, list_agents, make_agent
from aime_gym.types import Trajectory

every_agent = pytest.mark.parametrize("name", list_agents())


def trained(name, data, seed=0, **changes):
    env, play, demos = data
    agent = make_agent(name, env, seed=seed, **{**small.TINY[name], **changes})
    agent.pretrain(play, progress_bar=False)
    return agent.imitate(demos, progress_bar=False)


def parameters(agent):
    return {f"{m}/{n}": t for m, state in agent.get_parameters().items() for n, t in state.items()}


def assert_identical(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@every_agent
def test_learns_the_toy_task(name, point_mass):
    env, play, demos = point_mass
    agent = make_agent(name, env, seed=0, **small.LEARNING[name])
    agent.pretrain(play, progress_bar=False)
    agent.imitate(demos, progress_bar=False)
    random, expert = toy.mean_return(env, "random"), toy.mean_return(env, toy.expert(env))
    learnt = (toy.mean_return(env, agent) - random) / (expert - random)
    assert learnt > 0.6


@every_agent
def test_same_seed_same_agent(name, point_mass):
    first, second = trained(name, point_mass), trained(name, point_mass)
    assert_identical(parameters(first), parameters(second))
    other = trained(name, point_mass, seed=1)
    pairs = zip(parameters(first).values(), parameters(other).values(), strict=True)
    assert any(not torch.equal(one, two) for one, two in pairs)


@every_agent
def test_predict_has_the_contract_of_recurrent_policies(name, point_mass):
    env = point_mass[0]
    agent = trained(name, point_mass)
    batch = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    actions, state = agent.predict(batch, deterministic=True)
    assert actions.shape == (3, 2)
    assert actions.dtype == env.action_space.dtype
    assert all(isinstance(part, np.ndarray) and len(part) == 3 for part in state)
    # One observation is a batch of one.
    action, single = agent.predict(batch[0], deterministic=True)
    assert action.shape == (2,)
    assert all(len(part) == 1 for part in single)
    np.testing.assert_allclose(action, actions[0], atol=1e-6)
    # A started row is as fresh as no state at all; the others go on.
    second, _ = agent.predict(batch, state, np.array([False, True, False]), deterministic=True)
    ongoing, _ = agent.predict(batch, state, deterministic=True)
    np.testing.assert_array_equal(second[1], actions[1])
    np.testing.assert_array_equal(second[[0, 2]], ongoing[[0, 2]])


@every_agent
def test_predict_names_what_is_wrong(name, point_mass):
    agent = trained(name, point_mass)
    with pytest.raises(ValueError, match="observation, info"):
        agent.predict((np.zeros(2, np.float32), {}))
    with pytest.raises(ValueError, match="observation shape"):
        agent.predict(np.zeros(5, np.float32))
    _, state = agent.predict(np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="state: expected arrays of shapes"):
        agent.predict(np.zeros((2, 2), np.float32), state)


@every_agent
def test_evaluate_policy_runs_on_one_and_several_environments(name, point_mass):
    agent = trained(name, point_mass)
    one, _ = evaluate_policy(agent, DummyVecEnv([toy.PointMass]), n_eval_episodes=2, warn=False)
    several, _ = evaluate_policy(agent, DummyVecEnv([toy.PointMass] * 3), n_eval_episodes=3, warn=False)
    assert np.isfinite([one, several]).all()


LOAD_AND_ACT = """
import sys, numpy as np
from aime_gym.agents.registry import agent_class
agent = agent_class(sys.argv[1]).load(sys.argv[2])
state, actions = None, []
for observation in np.load(sys.argv[3]):
    for deterministic in (True, False):
        action, state = agent.predict(observation, state, deterministic=deterministic)
        actions.append(action)
np.save(sys.argv[4], np.stack(actions))
"""


@every_agent
def test_save_then_load_in_a_new_process_acts_the_same(name, point_mass, tmp_path):
    env, play, demos = point_mass
    observations = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    np.save(tmp_path / "observations.npy", observations)
    agent = make_agent(name, env, seed=0, **small.TINY[name])
    phases = {
        "before": lambda: None,
        "pretrained": lambda: agent.pretrain(play, progress_bar=False),
        "imitated": lambda: agent.imitate(demos, progress_bar=False),
    }
    for phase, run in phases.items():
        run()
        agent.save(tmp_path / phase)
        arguments = [name, tmp_path / f"{phase}.zip", tmp_path / "observations.npy", tmp_path / "actions.npy"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", LOAD_AND_ACT, *map(str, arguments)], check=True, env=environment)
        state, expected = None, []
        for observation in observations:
            for deterministic in (True, False):
                action, state = agent.predict(observation, state, deterministic=deterministic)
                expected.append(action)
        np.testing.assert_array_equal(np.load(tmp_path / "actions.npy"), np.stack(expected), err_msg=phase)


@every_agent
def test_a_loaded_agent_goes_on_with_its_environment(name, point_mass, tmp_path):
    _, _, demos = point_mass
    agent = trained(name, point_mass)
    agent.save(tmp_path / "agent")
    loaded = agent_class(name).load(tmp_path / "agent", env=toy.PointMass())
    assert loaded.config == agent.config
    assert loaded.pretrained
    assert loaded.imitated
    loaded.imitate(demos, progress_bar=False)


@every_agent
def test_files_of_others_are_refused(name, point_mass, tmp_path):
    agent = trained(name, point_mass)
    agent.save(tmp_path / "agent")
    other = next(other for other in list_agents() if other != name)
    with pytest.raises(ValueError, match=f"expected a file of {agent_class(other).__name__}"):
        agent_class(other).load(tmp_path / "agent")
    with pytest.raises(ValueError, match="env: expected the spaces"):
        type(agent).load(tmp_path / "agent", env=gym.make("Pendulum-v1"))
    with pytest.raises(FileNotFoundError):
        type(agent).load(tmp_path / "nothing")
    content = (tmp_path / "agent.zip").read_bytes()
    for damaged in (content[: len(content) // 2], b"not an archive", content.replace(b'"format": 1', b'"format": 9')):
        (tmp_path / "damaged.zip").write_bytes(damaged)
        with pytest.raises(ValueError, match="path: expected an agent's file"):
            type(agent).load(tmp_path / "damaged")


@every_agent
def test_learn_says_which_verb_to_use(name, point_mass):
    with pytest.raises(NotImplementedError, match="use imitate"):
        make_agent(name, point_mass[0], **small.TINY[name]).learn(100)


@every_agent
def test_sensors_of_a_dict_observation(name):
    env = toy.SensorsPointMass()
    data = env, toy.play_data(env, 4), toy.demonstrations(env, 3)
    agent = trained(name, data)
    assert np.isfinite(toy.mean_return(env, agent, 2))


@every_agent
def test_actions_beyond_the_unit_box(name):
    env = gym.make("Pendulum-v1")
    data = env, toy.play_data(env, 2), toy.play_data(env, 2, seed=5)
    agent = trained(name, data)
    inferred = agent.infer_actions(data[2])
    assert all(np.abs(t.actions).max() <= 2 for t in inferred)
    assert np.isfinite(toy.mean_return(env, agent, 1))


@every_agent
def test_infer_actions_keeps_everything_else(name, point_mass):
    agent = trained(name, point_mass)
    demos = point_mass[2]
    inferred = agent.infer_actions(demos)
    assert len(inferred) == len(demos)
    for before, after in zip(demos, inferred, strict=True):
        np.testing.assert_array_equal(before.observations, after.observations)
        assert after.actions.shape == before.actions.shape


@pytest.mark.parametrize("name", [name for name in list_agents() if not agent_class(name).needs_demonstration_actions])
def test_poisoned_demonstration_actions_change_nothing(name, point_mass):
    env, play, demos = point_mass
    poisoned = [replace(demo, actions=np.full_like(demo.actions, np.nan)) for demo in demos]
    assert_identical(parameters(trained(name, (env, play, demos))), parameters(trained(name, (env, play, poisoned))))


@every_agent
def test_offline_phases_log_and_call_back_without_counting_environment_steps(name, point_mass):
    env, play, demos = point_mass
    seen = []
    agent = make_agent(name, env, seed=0, **small.TINY[name])
    agent.pretrain(play, callback=seen.append, progress_bar=False)
    agent.imitate(demos, callback=seen.append, progress_bar=False)
    assert seen
    assert all(np.isfinite(progress.metrics["loss"]) for progress in seen)
    assert agent.num_timesteps == 0
    assert agent.num_updates >= len(seen)


def short(trajectory):
    return Trajectory(trajectory.observations[:2], trajectory.actions[:1])


@every_agent
def test_trajectories_of_unequal_length(name, point_mass):
    env, play, demos = point_mass
    trained(name, (env, [short(play[0]), *play[1:5]], [short(demos[0]), *demos[1:5]]))


BAD = {
    "empty": (lambda t: [], "at least one trajectory"),
    "shape": (lambda t: [Trajectory(np.zeros((5, 3), np.float32), np.zeros((4, 2), np.float32))], "shape"),
    "not a number": (lambda t: [replace(t, observations=np.full_like(t.observations, np.nan))], "NaN|nan|finite"),
    "images": (lambda t: [replace(t, observations=t.observations.astype(np.uint8))], "uint8"),
}


@every_agent
@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_named_before_any_training(name, case, point_mass):
    env, play, demos = point_mass
    spoil, message = BAD[case]
    agent = make_agent(name, env, seed=0, **small.TINY[name])
    before = {key: value.clone() for key, value in parameters(agent).items()}
    with pytest.raises(ValueError, match=f"^play.*({message})"):
        agent.pretrain(spoil(play[0]), progress_bar=False)
    with pytest.raises(ValueError, match=f"^demos.*({message})"):
        agent.imitate(spoil(demos[0]), progress_bar=False)
    assert_identical(before, parameters(agent))


@every_agent
def test_bad_arguments_are_named(name, point_mass):
    env, _, demos = point_mass
    with pytest.raises(ValueError, match="batch_siz: unknown hyper-parameter.*batch_size"):
        make_agent(name, env, batch_siz=3)
    with pytest.raises(ValueError, match="preset: .*'nothing'"):
        make_agent(name, env, preset="nothing")
    agent = make_agent(name, env, **small.TINY[name])
    with pytest.raises(ValueError, match="play: expected trajectories, got None"):
        agent.pretrain()
    if not agent_class(name).needs_demonstration_actions:
        with pytest.raises(ValueError, match=r"play\[0\].*actions"):
            agent.pretrain([demo.without_actions() for demo in demos])
    images = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    env = toy.PointMass()
    env.observation_space = images
    with pytest.raises(NotImplementedError, match="image"):
        make_agent(name, env)


def test_discrete_actions():
    env = toy.DiscretePointMass()
    data = env, toy.play_data(env), toy.demonstrations(env)
    for name in ("bco", "bc"):
        agent = make_agent(name, env, seed=0, **small.LEARNING[name])
        agent.pretrain(data[1], progress_bar=False).imitate(data[2], progress_bar=False)
        random, expert = toy.mean_return(env, "random"), toy.mean_return(env, toy.expert(env))
        assert (toy.mean_return(env, agent) - random) / (expert - random) > 0.4
    with pytest.raises(NotImplementedError, match="action_space: AIMEAgent expects a Box"):
        make_agent("aime", env)


def test_unknown_agents_are_named():
    with pytest.raises(ValueError, match="expected one of aime, .*'aim'.*did you mean aime"):
        make_agent("aim", toy.PointMass())
