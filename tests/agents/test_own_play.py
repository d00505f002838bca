"""Play that an agent records by itself: in its own environment, as it observes it itself."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import small
from gymnasium import spaces
from gymnasium.wrappers import NormalizeObservation, TimeLimit
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnvWrapper,
    VecExtractDictObs,
    VecFrameStack,
)

from aime_gym import make_agent
from aime_gym.data import collect, recording
from aime_gym.experiments.evaluation import evaluate_random
from aime_gym.testing import toy


class Millimetres(VecEnvWrapper):
    """A user's wrapper: observations in other units."""

    def __init__(self, venv):
        super().__init__(venv, spaces.Box(-np.inf, np.inf, venv.observation_space.shape, np.float32))

    def reset(self):
        return 1000 * self.venv.reset()

    def step_wait(self):
        observations, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = 1000 * info["terminal_observation"]
        return 1000 * observations, rewards, dones, infos


class Sensors(gym.ObservationWrapper):
    def __init__(self, env):
        super().__init__(env)
        self.observation_space = spaces.Dict({"seen": env.observation_space, "other": spaces.Box(0, 1, (1,))})

    def observation(self, observation):
        return {"seen": observation, "other": np.zeros(1, np.float32)}


def recorded(env, steps=100):
    agent = make_agent("bco", env, seed=0, play_timesteps=steps, **small.TINY["bco"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return agent, agent._record_play(progress_bar=False)


WRAPPED = {
    "frame stack": lambda: VecFrameStack(DummyVecEnv([toy.PointMass]), 3),
    "one sensor": lambda: VecExtractDictObs(DummyVecEnv([lambda: Sensors(toy.PointMass())]), "seen"),
    "units": lambda: Millimetres(DummyVecEnv([toy.PointMass])),
    "two copies": lambda: DummyVecEnv([toy.PointMass] * 2),
    "processes": lambda: SubprocVecEnv([toy.PointMass] * 2, start_method="fork"),
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_play_is_recorded_through_the_wrappers(kind):
    env = WRAPPED[kind]()
    agent, play = recorded(env)
    assert sum(map(len, play)) >= 100
    plain = recorded(DummyVecEnv([toy.PointMass] * env.num_envs))[1]
    for one, other in zip(play, plain, strict=True):
        assert one.observations.shape[1:] == env.observation_space.shape
        np.testing.assert_array_equal(one.actions, other.actions)
        scale = 1000 if kind == "units" else 1
        np.testing.assert_allclose(one.observations[:, -2:], scale * other.observations, rtol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        agent.imitate([one.without_actions() for one in play], progress_bar=False)
    env.close()


def test_play_in_one_copy_is_that_of_collect():
    agent, play = recorded(toy.PointMass(), steps=1)
    seed = agent.generator.initial_seed() % 2**31
    (expected,) = collect(toy.PointMass(), "play", 1, seed=seed, progress=False)
    np.testing.assert_array_equal(play[0].observations, expected.observations)
    np.testing.assert_array_equal(play[0].actions, expected.actions)


@pytest.mark.parametrize(
    "wrap",
    [
        NormalizeObservation,
        lambda env: Monitor(NormalizeObservation(env)),
        lambda env: DummyVecEnv([lambda: TimeLimit(NormalizeObservation(env), 9)]),
        lambda env: VecFrameStack(DummyVecEnv([lambda: NormalizeObservation(env)]), 2),
    ],
)
def test_moving_units_are_refused(wrap):
    with pytest.raises(ValueError, match="^env: .*NormalizeObservation"):
        make_agent("bco", wrap(toy.PointMass()), **small.TINY["bco"])


# Environments that never end, or break


class Line(gym.Env):
    """Never ends; its observation is ``value`` from step 7 on."""

    observation_space = spaces.Box(-9, 9, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, value=0.5):
        self.value = value

    def observe(self):
        return np.full(2, self.value if self.t >= 7 else self.t / 10, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        return self.observe(), 0.0, False, False, {}


def demonstrations():
    return collect(TimeLimit(Line(), 12), "play", 3, seed=0, progress=False)


def agent_for(name, env, **options):
    return make_agent(name, env, seed=0, play=demonstrations(), demonstrations=demonstrations(), **small.TINY[name])


ENDLESS = {
    "collect": lambda env: collect(env, "play", 1, progress=False),
    "evaluation": lambda env: evaluate_random(env, 1, seed=0),
    "own play": lambda env: recorded(env),
    "bco": lambda env: agent_for("bco", env).learn(30),
    "aime": lambda env: agent_for("aime", env).learn(30),
}


@pytest.mark.parametrize("run", ENDLESS)
@pytest.mark.filterwarnings("ignore")
def test_an_episode_without_an_end_is_an_error(run, monkeypatch):
    for module in ("aime_gym.data.collecting", "aime_gym.training.rollouts", "aime_gym.experiments.evaluation"):
        monkeypatch.setattr(f"{module}.EPISODE_LIMIT", 200)
    assert recording.EPISODE_LIMIT >= 10_000  # so that no episode of a benchmark is cut
    with pytest.raises(ValueError, match="^env: expected episodes that end, got .* 200 steps .*TimeLimit"):
        ENDLESS[run](Line())
    if run == "collect":  # a limit of the environment's own is its own affair
        assert len(collect(TimeLimit(Line(), 300), "play", 1, progress=False)[0]) == 300


BROKEN = {
    "own play": recorded,
    **{name: lambda env, name=name: agent_for(name, env).learn(30) for name in ("bco", "aime", "gaifo")},
}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.filterwarnings("ignore")
def test_an_observation_that_is_not_finite_is_named(name, value):
    with pytest.raises(ValueError, match="^observation: expected finite numbers from the environment, got (nan|inf)"):
        BROKEN[name](TimeLimit(Line(value), 12))


@pytest.mark.parametrize("name", ["bco", "aime"])
def test_predict_is_not_poisoned(name):
    agent = make_agent(name, TimeLimit(Line(), 12), seed=0, **small.TINY[name])
    good = np.zeros(2, np.float32)
    _, state = agent.predict(good)
    with pytest.raises(ValueError, match="^observation: expected finite numbers"):
        agent.predict(np.full(2, np.nan, np.float32), state)
    assert np.isfinite(agent.predict(good, state)[0]).all()


@pytest.mark.filterwarnings("ignore:.*no play data|.*collecting")
def test_demonstrations_in_other_units_than_play_are_warned_of():
    agent = make_agent("bco", toy.PointMass(), seed=0, **small.TINY["bco"])
    _, play, demos = toy.task()
    agent.pretrain(play, progress_bar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.imitate(demos, progress_bar=False)
    far = [type(one)(10_000 * one.observations) for one in demos]
    with pytest.warns(
        UserWarning, match=r"^demos: 2 of 2 entries of 'observation' .* in play; are they in other units"
    ):
        agent.imitate(far, progress_bar=False)
