"""A task that is learnt in seconds: push a point to the origin, seeing positions only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from aime_gym.data import HeldRandomPolicy, collect
from aime_gym.types import Array, Observation, Predictor, Trajectory

#: Length of an episode.
STEPS = 30


class PointMass(gym.Env):
    """Two axes with friction; the velocity is hidden, and an action is a push on each axis."""

    observation_space: spaces.Space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space: spaces.Space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1, 1, 2)
        self.velocity = np.zeros(2)
        self.steps = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.velocity = 0.7 * self.velocity + 0.1 * np.clip(self.push(action), -1, 1)
        self.position = self.position + self.velocity
        self.steps += 1
        return self.observe(), -float(np.abs(self.position).sum()), False, self.steps >= STEPS, {}

    def observe(self) -> Observation:
        """What an agent sees of the position."""
        return self.position.astype(np.float32)

    def push(self, action: Any) -> Array:
        """An action as a push (2,)."""
        return np.asarray(action)


class DiscretePointMass(PointMass):
    """The same with five pushes: none, or one along an axis.

    :param start: the first of the five actions.
    """

    pushes = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])

    def __init__(self, start: int = 0) -> None:
        self.action_space = spaces.Discrete(len(self.pushes), start=start)
        self.start = start

    def push(self, action: Any) -> Array:
        return self.pushes[action - self.start]


class ColumnPointMass(PointMass):
    """The same with a column (2, 1) of pushes in float64, each as far as a half."""

    action_space = spaces.Box(-0.5, 0.5, (2, 1), np.float64)

    def push(self, action: Any) -> Array:
        return 2 * np.asarray(action)[:, 0]


class DoublePointMass(PointMass):
    """The same in float64, as Gymnasium's own tasks are."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def observe(self) -> Observation:
        return self.position.copy()


class SensorsPointMass(PointMass):
    """The same with one sensor for each axis; the observations have another order than the space."""

    observation_space = spaces.Dict(
        {name: spaces.Box(-np.inf, np.inf, (1,), np.float32) for name in ("horizontal", "vertical")}
    )

    def observe(self) -> Observation:
        position = self.position.astype(np.float32)
        return {"vertical": position[1:], "horizontal": position[:1]}


class PixelPointMass(PointMass):
    """The same as an image: the position is a spot of light, and the origin a mark that does not move.

    The spot is a few pixels wide, and each of them as bright as it is near, so that it moves by fractions of a pixel.
    """

    observation_space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    #: What of the plane is seen, from the origin to each side.
    reach = 1.5

    def observe(self) -> Observation:
        return self.draw()

    def draw(self) -> Array:
        """(16, 16, 3); who leaves the picture is seen at its edge."""
        height, width = 16, 16
        column, row = (self.position.clip(-self.reach, self.reach) / self.reach + 1) / 2 * (width - 1, height - 1)
        down, across = (np.arange(height)[:, None] - row) ** 2, (np.arange(width) - column) ** 2
        image = np.zeros((height, width, 3), np.uint8)
        image[..., 0] = 255 * np.exp(-(down + across) / 2)
        image[height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1, 2] = 255
        return image


class MixedPointMass(PixelPointMass):
    """The same as an image and a vector."""

    observation_space = spaces.Dict(
        {"camera": PixelPointMass.observation_space, "position": spaces.Box(-np.inf, np.inf, (2,), np.float32)}
    )

    def observe(self) -> Observation:
        return {"camera": self.draw(), "position": self.position.astype(np.float32)}


class DiscretePixelPointMass(DiscretePointMass, PixelPointMass):
    """As an image, with five pushes."""


@functools.cache
def mixed(seen: type[PointMass], done: type[PointMass]) -> type[PointMass]:
    """The toy with the observations of one of these classes and the actions of another; the same class each time."""
    for one, other in ((seen, done), (done, seen)):
        if issubclass(one, other):
            return one
    return type(f"{seen.__name__}Of{done.__name__}", (seen, done), {})


class Task(NamedTuple):
    """An environment, play with actions, and an expert's demonstrations."""

    env: gym.Env
    play: list[Trajectory]
    demos: list[Trajectory]


def task(make: Callable[[], gym.Env] = PointMass, *, play: int = 12, demos: int = 6) -> Task:
    """A toy task with some episodes of play and of demonstrations; the same object for the same arguments."""
    return _recorded(make, play, demos)


@functools.cache
def _recorded(make: Callable[[], gym.Env], play: int, demos: int) -> Task:
    env = make()
    return Task(env, play_data(env, play), demonstrations(env, demos))


def expert(env: gym.Env) -> Callable[[Observation], Any]:
    """A controller that sees the hidden velocity."""

    def act(observation: Observation) -> Any:
        body: Any = env.unwrapped
        push = np.clip(-4 * body.position - 7 * body.velocity, -1, 1)
        if isinstance(env.action_space, spaces.Box):
            return push.reshape(env.action_space.shape) * env.action_space.high
        axis = int(np.abs(push).argmax())
        chosen = 0 if abs(push[axis]) < 0.2 else 1 + 2 * axis + int(push[axis] < 0)
        return chosen + int(getattr(env.action_space, "start", 0))

    return act


def play_data(env: gym.Env, episodes: int = 60, seed: int = 1) -> list[Trajectory]:
    """Random play with actions."""
    return collect(env, HeldRandomPolicy(env.action_space), episodes, seed=seed, progress=False)


def demonstrations(env: gym.Env, episodes: int = 10, seed: int = 2) -> list[Trajectory]:
    """What the expert does, with its actions, which agents must not see."""
    return collect(env, expert(env), episodes, seed=seed, progress=False)


def mean_return(env: gym.Env, policy: Predictor | Callable[..., Any] | str, episodes: int = 20, seed: int = 3) -> float:
    """Mean return of an agent, a function of the observation, or ``"random"``."""
    return float(np.mean([t.episode_return for t in collect(env, policy, episodes, seed=seed, progress=False)]))


def score(env: gym.Env, agent: Predictor, episodes: int = 20) -> float:
    """Return of an agent between random actions (0) and the expert (1)."""
    random, best = mean_return(env, "random", episodes), mean_return(env, expert(env), episodes)
    return (mean_return(env, agent, episodes) - random) / (best - random)
