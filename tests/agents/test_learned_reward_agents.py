"""Agents that learn a reward: where it points, what episodes' ends are worth, and what others can do with it."""

import gymnasium as gym
import numpy as np
import pytest
import small
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.nn.utils import parameters_to_vector

from aime_gym.agents import GAIfOAgent, GAILAgent, IMRLAgent, PMIILAgent
from aime_gym.data import collect
from aime_gym.learned_reward.vec_envs import LearnedRewardVecEnv
from aime_gym.testing import toy

AGENTS = [GAIfOAgent, GAILAgent]
FORMS = ["logit", "positive", "negative"]
#: Agents whose reward is fitted to the demonstrations before the first step.
FITTED = [IMRLAgent, PMIILAgent]
#: Agents with the options that choose their reward; GAIL's has the forms of GAIfO's.
REWARDS = [(GAIfOAgent, {"reward": form}) for form in FORMS] + [(kind, {}) for kind in (GAILAgent, *FITTED)]
STEPS = 20


class Line(gym.Env):
    """A walk on a line for a fixed number of steps: left, nowhere, right."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps = self.np_random.uniform(-0.5, 0.5), 0
        return self.observe(), {}

    def observe(self):
        return np.array([self.position], np.float32)

    def step(self, action):
        self.position += 0.1 * (float(action) - 1)
        self.steps += 1
        return self.observe(), float(action) - 1, False, self.steps == STEPS, {}


class Exit(Line):
    """The same, until the walker leaves by the right, which it may or may not want."""

    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, self.position > 0.8, truncated, info


#: Enough for a line.
LEARNING = {
    "algorithm_kwargs": {"n_steps": 32, "batch_size": 128, "learning_rate": 3e-3, "n_epochs": 5},
    "discriminator_hidden": 32,
    "discriminator_updates": 10,
    "batch_size": 128,
    "learning_rate": 3e-3,
    # A few rounds, of which the average would still hold the first ones.
    "policy_ema_decay": 0.0,
    "policy_kwargs": {"hidden": 32},
    "device": "cpu",
}
#: The same of a fitted reward.
FITTED_LEARNING = {name: LEARNING[name] for name in ("algorithm_kwargs", "policy_ema_decay", "policy_kwargs", "device")}
FITTED_LEARNING |= {"hidden": 32, "updates": 1000, "batch_size": 128}


def learning(kind):
    return LEARNING if kind in AGENTS else FITTED_LEARNING


def walk(env, action, episodes=8):
    return collect(env, lambda _: action, episodes, seed=1, progress=False)


def mean_action(env, agent):
    """-1 ... 1"""
    return float(np.mean([t.actions.mean() - 1 for t in collect(env, agent, 10, seed=2, progress=False)]))


def rewards(agent, trajectories):
    second = (lambda t: t.actions) if isinstance(agent, GAILAgent) else (lambda t: t.observations[1:])
    return np.concatenate([agent.reward_fn(t.observations[:-1], second(t)) for t in trajectories])


@pytest.mark.parametrize(("kind", "reward"), REWARDS)
@pytest.mark.parametrize("direction", [0, 2])
def test_the_reward_leads_to_the_expert(kind, reward, direction):
    demos = walk(Line(), direction)
    agent = kind(DummyVecEnv([Line] * 16), seed=0, **reward, **learning(kind))
    agent.imitate(demos, 512, progress_bar=False)
    # Still a beginner: the expert's transitions are worth more than those of others.
    assert rewards(agent, demos).mean() > rewards(agent, walk(Line(), 2 - direction)).mean() + 0.1
    # A reward that is positive everywhere tells actions apart less: its policy takes longer, with any seed.
    agent.learn(28_000 if reward.get("reward") == "positive" else 4000, reset_num_timesteps=False)
    assert (direction - 1) * mean_action(Line(), agent) > 0.7


@pytest.mark.parametrize("kind", AGENTS)
def test_trpo_learns_too(kind):
    options = {"algorithm": "trpo", "algorithm_kwargs": {"n_steps": 32, "batch_size": 128}}
    agent = kind(DummyVecEnv([Line] * 16), seed=0, **(LEARNING | options))
    agent.imitate(walk(Line(), 2), 8000, progress_bar=False)
    assert mean_action(Line(), agent) > 0.7


@pytest.mark.parametrize("reward", FORMS)
@pytest.mark.parametrize("leaves", [True, False])
def test_episodes_end_where_the_experts_do(reward, leaves):
    """The termination alone decides: the reward is told nothing by what it sees."""

    class Blind(Exit):
        def observe(self):
            return np.zeros(1, np.float32)

    # The expert's way out, or its time until the limit; either way it looks like nothing.
    demos = walk(TimeLimit(Blind(), 100), 2 if leaves else 0)
    assert all(demo.terminated == leaves for demo in demos)
    agent = GAIfOAgent(DummyVecEnv([Blind] * 16), seed=0, reward=reward, **LEARNING)
    agent.imitate(demos, 8000, progress_bar=False)
    assert (mean_action(Blind(), agent) > 0.5) == leaves


@pytest.mark.parametrize("kind", FITTED)
def test_an_end_is_worth_what_the_expert_makes_of_it(kind):
    """To end is no worse than to go on where the expert ends, and no better than to do anything where it does not."""

    def agent_of(demos, **options):
        agent = kind(Exit(), seed=0, **FITTED_LEARNING | options)
        return agent.imitate(demos, 64, progress_bar=False)

    demos = collect(TimeLimit(Exit(), 100), lambda x: 2 if x[0] > -0.3 else 1, 8, seed=1, progress=False)
    leaving = [demo for demo in demos if demo.terminated]
    staying = [demo for demo in demos if not demo.terminated]
    assert leaving
    assert staying
    values = []
    for given in (leaving, demos, staying):
        agent = agent_of([demo.without_actions() for demo in given])
        own = rewards(agent, given)
        assert own.mean() == pytest.approx(0, abs=1e-3)
        values.append((float(agent.reward_model.absorbing_reward), own.max()))
        assert agent.reward_model.terminal_value() == pytest.approx(agent.trainer.effective_horizon * values[-1][0])
    assert values[0][0] == pytest.approx(values[0][1], abs=1e-4)
    assert values[1][0] < values[1][1]
    assert values[2][0] <= 1e-4
    silent = [toy.Trajectory(demo.observations) for demo in leaving]
    for unsettled in (agent_of(leaving, absorbing=False, updates=10), agent_of(silent, updates=10)):
        assert unsettled.reward_model.terminal_value() == 0


def test_demonstrations_that_do_not_say_how_they_end_leave_terminal_states_alone():
    demos = [toy.Trajectory(demo.observations) for demo in walk(Exit(), 2)]
    agent = GAIfOAgent(Exit(), seed=0, **small.TINY["gaifo"]).imitate(demos, progress_bar=False)
    assert not agent.discriminator.absorbing
    for absorbing in (True, False):
        agent = GAIfOAgent(Exit(), seed=0, absorbing=absorbing, **small.TINY["gaifo"])
        agent.imitate(walk(Exit(), 2), progress_bar=False)
        assert agent.discriminator.absorbing == absorbing


@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize("task", [toy.PointMass, toy.SensorsPointMass, toy.DiscretePointMass])
def test_the_reward_is_for_others_too(kind, task):
    env, _, demos = toy.task(task)
    agent = kind(env, seed=0, **small.TINY["gaifo"]).imitate(demos, progress_bar=False)
    rewarded = LearnedRewardVecEnv(DummyVecEnv([task] * 3), agent.transition_reward)
    before = rewarded.reset()
    actions = np.array([rewarded.action_space.sample() for _ in range(3)])
    after, values, _, _ = rewarded.step(actions)
    assert values.shape == (3,)
    np.testing.assert_allclose(values, agent.reward_fn(before, after if kind is GAIfOAgent else actions), rtol=1e-5)
    policy = "MultiInputPolicy" if isinstance(before, dict) else "MlpPolicy"
    PPO(policy, rewarded, n_steps=16, batch_size=16, device="cpu").learn(48)
    with pytest.raises(ValueError, match=r"^(next_obs|actions): expected"):
        agent.reward_fn(before, np.zeros((3, 7), np.float32))


def test_the_value_of_a_termination_comes_once():
    agent = GAIfOAgent(Exit(), seed=0, **small.TINY["gaifo"]).imitate(walk(Exit(), 2), progress_bar=False)
    first, second = np.zeros((2, 1), np.float32), np.ones((2, 1), np.float32)
    plain = agent.reward_fn(first, second)
    rewarded = agent.transition_reward(first, np.zeros(2, int), second, np.array([False, True]))
    assert rewarded[0] == plain[0]
    assert rewarded[1] == pytest.approx(plain[1] + 0.99 * agent.discriminator.terminal_value())
    assert agent.discriminator.terminal_value() > 0


def test_gail_uses_actions_and_gaifo_does_not():
    demos = walk(Line(), 2)
    flipped = [demo.with_actions(2 - demo.actions) for demo in demos]
    for kind in AGENTS:
        one, other = (
            kind(Line(), seed=0, **small.TINY["gaifo"]).imitate(given, progress_bar=False).get_parameters()["policy"]
            for given in (demos, flipped)
        )
        assert all(torch.equal(one[name], other[name]) for name in one) == (kind is GAIfOAgent)


@pytest.mark.parametrize("averaging", [0, 0.5, 0.9])
def test_what_acts_is_the_average_of_past_policies(averaging):
    agent, learnt = GAIfOAgent(Line(), seed=0, **(LEARNING | {"policy_ema_decay": averaging})), []

    def keep(*_):
        learnt.append(parameters_to_vector(agent.learner.parameters()).detach())

    agent.imitate(walk(Line(), 2), 64, callback=keep, progress_bar=False)  # two rounds
    agent.learn(96, callback=keep)
    rounds = [*learnt[32::32], parameters_to_vector(agent.learner.parameters())]
    expected = rounds[0]
    for number, last in enumerate(rounds[1:], 2):
        expected = expected.lerp(last, max(1 - averaging, 1 / number))
    assert len(rounds) == 5
    torch.testing.assert_close(parameters_to_vector(agent.policy.parameters()), expected)


def test_all_policies_share_the_statistics_of_observations(tmp_path):
    agent = GAIfOAgent(DummyVecEnv([Line] * 2), seed=0, **small.TINY["gaifo"])
    agent.imitate(walk(Line(), 2), progress_bar=False)
    agent.save(tmp_path / "agent")
    loaded = GAIfOAgent.load(tmp_path / "agent")
    for one in (agent, loaded):
        standardizer = one.policy.features_extractor.standardizer
        assert standardizer is one.learner.features_extractor.standardizer
        assert standardizer.count == agent.policy.features_extractor.standardizer.count > 64  # the demonstrations' too


def test_an_error_in_learn_leaves_an_agent_to_go_on_with():
    agent = GAIfOAgent(Line(), seed=0, **small.TINY["gaifo"]).imitate(walk(Line(), 2), progress_bar=False)

    def fail(*_):
        raise RuntimeError("of the user")

    with pytest.raises(RuntimeError, match="of the user"):
        agent.learn(64, callback=fail)
    assert agent.imitated
    agent.learn(64)
    assert agent.num_timesteps == 64


def test_the_log_has_both_sides(tmp_path):
    env, _, demos = toy.task()
    agent = GAIfOAgent(env, seed=0, **small.TINY["gaifo"])
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    agent.imitate(demos, progress_bar=False)
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    expected = {"loss", "penalty", "expert_logit", "agent_logit", "reward", "terminal_value", "updates"}
    assert {f"discriminator/{name}" for name in expected} <= set(header)
    assert {"rollout/ep_rew_mean", "time/total_timesteps"} <= set(header)


@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "ddpg"}, "algorithm: expected ppo or trpo or sac, got 'ddpg'"),
        ({"reward": "airl"}, "reward: expected logit or positive or negative, got 'airl'"),
        ({"absorbing": 1}, "absorbing: expected True or False, got 1"),
        ({"timesteps": 0}, "timesteps: expected at least 1, got 0"),
        ({"policy_ema_decay": 1.5}, "policy_ema_decay: expected 0 to 1, got 1.5"),
        ({"penalty": -1}, "penalty: expected at least 0, got -1"),
        ({"algorithm_kwargs": 3}, "algorithm_kwargs: expected a dict, got 3"),
        ({"algorithm_kwargs": {"n_step": 3}}, "algorithm_kwargs: expected some of .*n_steps.*, got 'n_step'"),
        ({"algorithm_kwargs": {"seed": 3}}, "algorithm_kwargs: expected some of .*, got 'seed'"),
        ({"algorithm_kwargs": {"gamma": 1.0}}, "algorithm_kwargs: expected gamma below 1"),
        ({"algorithm_kwargs": {"batch_size": 1}}, "algorithm_kwargs: expected what PPO accepts"),
        ({"algorithm_kwargs": {"learning_rate": print}}, "algorithm_kwargs: expected JSON values"),
    ],
)
def test_hyper_parameters_are_named(kind, options, message):
    with pytest.raises(ValueError, match=rf"^{message}"):
        kind(toy.PointMass(), **options)


@pytest.mark.slow
@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize("task", [toy.PointMass, toy.DiscretePointMass])
def test_learns_the_toy_task(kind, task):
    """The test of the contract has one environment and seconds, which is not enough for this."""
    env, _, demos = toy.task(task, play=60, demos=10)
    options = {"n_steps": 64, "learning_rate": 1e-3, "batch_size": 128}
    agent = kind(DummyVecEnv([task] * 16), seed=0, device="cpu", algorithm_kwargs=options)
    agent.imitate(demos, 60_000, progress_bar=False)
    assert toy.score(env, agent) > 0.5


@pytest.mark.slow
def test_balances_the_pole_from_observations_alone():
    def balance(observation):
        return int(observation @ np.array([0.02, 0.05, 1.0, 0.5]) > 0)

    demos = collect(gym.make("CartPole-v1"), balance, 10, seed=1, progress=False)
    agent = GAIfOAgent(make_vec_env("CartPole-v1", 8), seed=0, device="cpu")
    agent.imitate([demo.without_actions() for demo in demos], 50_000, progress_bar=False)
    returns = [t.episode_return for t in collect(gym.make("CartPole-v1"), agent, 10, seed=2, progress=False)]
    assert np.mean(returns) > 300
