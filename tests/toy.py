"""A task that is learnt in seconds: push a point to the origin, seeing positions only."""

import gymnasium as gym
import numpy as np

from aime_gym.data import HeldRandomPolicy, collect

STEPS = 30


class PointMass(gym.Env):
    """Two axes with friction; the velocity is hidden, and an action is a push on each axis."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1, 1, 2)
        self.velocity = np.zeros(2)
        self.steps = 0
        return self.position.astype(np.float32), {}

    def step(self, action):
        self.velocity = 0.7 * self.velocity + 0.1 * np.clip(action, -1, 1)
        self.position = self.position + self.velocity
        self.steps += 1
        reward = -float(np.abs(self.position).sum())
        return self.position.astype(np.float32), reward, False, self.steps >= STEPS, {}


class DiscretePointMass(PointMass):
    """The same with five pushes: none, or one along an axis."""

    action_space = gym.spaces.Discrete(5)
    pushes = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])

    def step(self, action):
        return super().step(self.pushes[action])


class DoublePointMass(PointMass):
    """The same in float64, as Gymnasium's own tasks are."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        return observation.astype(np.float64), info

    def step(self, action):
        observation, *rest = super().step(action)
        return observation.astype(np.float64), *rest


class SensorsPointMass(PointMass):
    """The same with one sensor for each axis; the observations have another order than the space."""

    observation_space = gym.spaces.Dict(
        {name: gym.spaces.Box(-np.inf, np.inf, (1,), np.float32) for name in ("horizontal", "vertical")}
    )

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        return self._split(observation), info

    def step(self, action):
        observation, *rest = super().step(action)
        return self._split(observation), *rest

    def _split(self, observation):
        return {"vertical": observation[1:], "horizontal": observation[:1]}


def expert(env):
    """A controller that sees the hidden velocity."""

    def act(observation):
        push = np.clip(-4 * env.unwrapped.position - 7 * env.unwrapped.velocity, -1, 1)
        if isinstance(env.action_space, gym.spaces.Box):
            return push
        axis = int(np.abs(push).argmax())
        return 0 if abs(push[axis]) < 0.2 else 1 + 2 * axis + int(push[axis] < 0)

    return act


def play_data(env, episodes=60, seed=1):
    return collect(env, HeldRandomPolicy(env.action_space), episodes, seed=seed, progress=False)


def demonstrations(env, episodes=10, seed=2):
    return collect(env, expert(env), episodes, seed=seed, progress=False)


def mean_return(env, policy, episodes=20, seed=3):
    return float(np.mean([t.episode_return for t in collect(env, policy, episodes, seed=seed, progress=False)]))
