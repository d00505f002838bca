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
from stable_baselines3.common.logger import configure
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
    with pytest.raises(ValueError, match="episode_start: expected shape"):
        agent.predict(np.zeros((3, 2), np.float32), state, np.array([True]))


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
    damages = (
        content[: len(content) // 2],
        b"not an archive",
        content.replace(b'"format": 1', b'"format": 9'),
        content.replace(b'"pretrained"', b'"otherwise.."'),
        content.replace(b"generator", b"elsewhere"),
    )
    for damaged in damages:
        (tmp_path / "damaged.zip").write_bytes(damaged)
        with pytest.raises(ValueError, match="path: expected an agent's file"):
            type(agent).load(tmp_path / "damaged")


@every_agent
def test_learn_says_which_verb_to_use(name, point_mass):
    with pytest.raises(NotImplementedError, match="use imitate"):
        make_agent(name, point_mass[0], **small.TINY[name]).learn(100)


@every_agent
def test_sensors_of_a_dict_observation(name, tmp_path):
    env = toy.SensorsPointMass()
    agent = trained(name, (env, toy.play_data(env, 4), toy.demonstrations(env, 3)))
    one = {"vertical": np.float32([0.3]), "horizontal": np.float32([-0.5])}
    other = {"horizontal": one["horizontal"], "vertical": one["vertical"]}
    action, _ = agent.predict(one, deterministic=True)
    np.testing.assert_array_equal(agent.predict(other, deterministic=True)[0], action)
    agent.save(tmp_path / "agent")
    np.testing.assert_array_equal(type(agent).load(tmp_path / "agent").predict(one, deterministic=True)[0], action)
    for wrong in ({"vertical": one["vertical"]}, one | {"depth": one["vertical"]}, one["vertical"]):
        with pytest.raises(ValueError, match="observation: expected the sensors"):
            agent.predict(wrong)


@every_agent
def test_observations_in_float64(name):
    env = toy.DoublePointMass()
    agent = trained(name, (env, toy.play_data(env, 4), toy.demonstrations(env, 3)))
    assert np.isfinite(toy.mean_return(env, agent, 2))


@every_agent
def test_another_environment_after_load(name, point_mass, tmp_path):
    trained(name, point_mass).save(tmp_path / "agent")
    agent = agent_class(name).load(tmp_path / "agent")
    agent.set_env(DummyVecEnv([toy.PointMass] * 3))
    assert agent.get_env().num_envs == 3
    with pytest.raises(ValueError, match="env: expected the spaces"):
        agent.set_env(gym.make("Pendulum-v1"))


@every_agent
def test_a_second_imitate_is_a_new_policy(name, point_mass):
    _, _, demos = point_mass
    agent = trained(name, point_mass)
    again = trained(name, point_mass)
    with again._initial_weights():
        torch.nn.init.normal_(next(again.policy.parameters()))
    for one in (agent, again):
        one.set_random_seed(5)
        one.imitate(demos, progress_bar=False)
    assert_identical(parameters(agent), parameters(again))


@every_agent
def test_metrics_reach_the_logger_of_sb3(name, point_mass, tmp_path):
    env, play, demos = point_mass
    agent = make_agent(name, env, seed=0, **small.TINY[name])
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    agent.pretrain(play, progress_bar=False).imitate(demos, progress_bar=False)
    assert "policy/loss" in (tmp_path / "progress.csv").read_text()


@every_agent
def test_ctrl_c_keeps_a_policy(name, point_mass):
    env, play, demos = point_mass
    agent = make_agent(name, env, seed=0, **small.TINY[name]).pretrain(play, progress_bar=False)

    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted after"):
        agent.imitate(demos, callback=interrupt, progress_bar=False)
    assert agent.interrupted
    assert np.isfinite(toy.mean_return(env, agent, 1))


@every_agent
def test_one_short_trajectory_is_enough(name, point_mass):
    env, play, demos = point_mass
    trained(name, (env, [short(play[0])], [short(demos[0])]))


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
    "infinite rewards": (lambda t: [replace(t, rewards=np.full(len(t), np.inf))], "inf|finite"),
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
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        make_agent(name, env, batch_size=0)
    with pytest.raises(ValueError, match="policy: expected MlpPolicy or MultiInputPolicy, got 'CnnPolicy'"):
        make_agent(name, env, policy="CnnPolicy")
    with pytest.raises(ValueError, match="policy_kwargs: .*'net_arch'"):
        make_agent(name, env, policy_kwargs={"net_arch": [64]})
    with pytest.raises(ValueError, match="infer_actions: .* has learnt nothing yet"):
        make_agent(name, env, **small.TINY[name]).infer_actions(demos)
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
        assert (toy.mean_return(env, agent) - random) / (expert - random) > 0.5
    with pytest.raises(NotImplementedError, match="action_space: AIMEAgent expects a Box"):
        make_agent("aime", env)


def test_wrong_actions_in_play_are_named(point_mass):
    env, play, _ = point_mass
    agent = make_agent("bco", env, **small.TINY["bco"])
    for actions in (play[0].actions * 0 + 3, play[0].actions * np.nan, play[0].actions[:, :1]):
        with pytest.raises(ValueError, match=r"^play\[0\].actions: expected"):
            agent.pretrain([play[0].with_actions(actions)], progress_bar=False)


def test_discrete_actions_that_do_not_start_at_zero():
    env = toy.DiscretePointMass()
    env.action_space = gym.spaces.Discrete(5, start=3)
    env.pushes = np.concatenate([np.zeros((3, 2)), env.pushes])
    agent = trained("bco", (env, toy.play_data(env, 4), toy.play_data(env, 3, seed=5)))
    assert all(
        env.action_space.contains(action) for t in agent.infer_actions(toy.play_data(env, 1)) for action in t.actions
    )


def test_without_a_seed_agents_differ(point_mass):
    first, second = (make_agent("bc", point_mass[0], **small.TINY["bc"]) for _ in range(2))
    assert any(
        not torch.equal(one, two)
        for one, two in zip(parameters(first).values(), parameters(second).values(), strict=True)
    )


def test_unknown_agents_are_named():
    with pytest.raises(ValueError, match="unknown agent 'aim'; did you mean aime"):
        make_agent("aim", toy.PointMass())
