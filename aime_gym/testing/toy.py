"""Toy task that agents learn in seconds: push a point to the origin, observing its position only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from aime_gym.data import HeldRandomPolicy, collect
from aime_gym.types import Array, Observation, Predictor, Trajectory

#: Steps of an episode.
STEPS = 30


class PointMass(gym.Env):
    """Point mass with friction on two axes; the velocity is hidden, and an action is a push on each axis."""

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
        """Return the observation of the position."""
        return self.position.astype(np.float32)

    def push(self, action: Any) -> Array:
        """Return an action as a push (2,)."""
        return np.asarray(action)


class DiscretePointMass(PointMass):
    """Point mass with five discrete actions: no push, or one along an axis.

    :param start: number of the first action.
    """

    pushes = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])

    def __init__(self, start: int = 0) -> None:
        self.action_space = spaces.Discrete(len(self.pushes), start=start)
        self.start = start

    def push(self, action: Any) -> Array:
        return self.pushes[action - self.start]


class ColumnPointMass(PointMass):
    """Point mass whose actions are a column (2, 1) of pushes in float64, bounded by 0.5."""

    action_space = spaces.Box(-0.5, 0.5, (2, 1), np.float64)

    def push(self, action: Any) -> Array:
        return 2 * np.asarray(action)[:, 0]


class DoublePointMass(PointMass):
    """Point mass with observations in float64, like those of Gymnasium's own tasks."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def observe(self) -> Observation:
        return self.position.copy()


class SensorsPointMass(PointMass):
    """Point mass with one sensor for each axis; observations have another order than the space."""

    observation_space = spaces.Dict(
        {name: spaces.Box(-np.inf, np.inf, (1,), np.float32) for name in ("horizontal", "vertical")}
    )

    def observe(self) -> Observation:
        position = self.position.astype(np.float32)
        return {"vertical": position[1:], "horizontal": position[:1]}


class PixelPointMass(PointMass):
    """Point mass as an image: the position is a spot of light, the origin a fixed mark.

    The spot is a Gaussian a few pixels wide, so that it moves by fractions of a pixel.
    """

    observation_space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    #: Distance from the origin to each side of the image.
    view_radius = 1.5

    def observe(self) -> Observation:
        return self.draw()

    def draw(self) -> Array:
        """Return the image (16, 16, 3); outside of it the point is drawn at its edge."""
        height, width = 16, 16
        radius = self.view_radius
        column, row = (self.position.clip(-radius, radius) / radius + 1) / 2 * (width - 1, height - 1)
        squared_distance = (np.arange(height)[:, None] - row) ** 2 + (np.arange(width) - column) ** 2
        image = np.zeros((height, width, 3), np.uint8)
        image[..., 0] = 255 * np.exp(-squared_distance / 2)
        image[height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1, 2] = 255
        return image


class MixedPointMass(PixelPointMass):
    """Point mass observed as an image and a vector."""

    observation_space = spaces.Dict(
        {"camera": PixelPointMass.observation_space, "position": spaces.Box(-np.inf, np.inf, (2,), np.float32)}
    )

    def observe(self) -> Observation:
        return {"camera": self.draw(), "position": self.position.astype(np.float32)}


class DiscretePixelPointMass(DiscretePointMass, PixelPointMass):
    """Point mass as an image, with five discrete actions."""


@functools.cache
def combined(observation_class: type[PointMass], action_class: type[PointMass]) -> type[PointMass]:
    """Return a class with the observations of one and the actions of another; the same class for the same arguments."""
    for one, other in ((observation_class, action_class), (action_class, observation_class)):
        if issubclass(one, other):
            return one
    return type(f"{observation_class.__name__}Of{action_class.__name__}", (observation_class, action_class), {})


class ToyTask(NamedTuple):
    """Environment, play with actions, and an expert's demonstrations."""

    env: gym.Env
    play: list[Trajectory]
    demos: list[Trajectory]


def task(make: Callable[[], gym.Env] = PointMass, *, play: int = 12, demos: int = 6) -> ToyTask:
    """Return a toy task with episodes of play and of demonstrations; the same object for the same arguments.

    :param make: class of the environment.
    :param play: episodes of play.
    :param demos: episodes of demonstrations.
    """
    return _cached_task(make, play, demos)


@functools.cache
def _cached_task(make: Callable[[], gym.Env], play: int, demos: int) -> ToyTask:
    env = make()
    return ToyTask(env, play_data(env, play), demonstrations(env, demos))


def expert(env: gym.Env) -> Callable[[Observation], Any]:
    """Return a controller that knows the hidden velocity."""

    def act(observation: Observation) -> Any:
        body: Any = env.unwrapped
        push = np.clip(-4 * body.position - 7 * body.velocity, -1, 1)
        if isinstance(env.action_space, spaces.Box):
            return push.reshape(env.action_space.shape) * env.action_space.high
        axis = int(np.abs(push).argmax())
        action = 0 if abs(push[axis]) < 0.2 else 1 + 2 * axis + int(push[axis] < 0)
        return action + int(getattr(env.action_space, "start", 0))

    return act


def play_data(env: gym.Env, episodes: int = 60, seed: int = 1) -> list[Trajectory]:
    """Collect random play with actions."""
    return collect(env, HeldRandomPolicy(env.action_space), episodes, seed=seed, progress=False)


def demonstrations(env: gym.Env, episodes: int = 10, seed: int = 2) -> list[Trajectory]:
    """Collect the expert's episodes, with its actions, which agents must not use."""
    return collect(env, expert(env), episodes, seed=seed, progress=False)


def mean_return(env: gym.Env, policy: Predictor | Callable[..., Any] | str, episodes: int = 20, seed: int = 3) -> float:
    """Return the mean return of an agent, of a function of the observation, or of ``"random"`` actions."""
    return float(np.mean([t.episode_return for t in collect(env, policy, episodes, seed=seed, progress=False)]))


@functools.cache
def _references(task: type[gym.Env], episodes: int) -> tuple[float, float]:
    """Return the mean returns of random actions and of the expert."""
    env = task()
    return mean_return(env, "random", episodes), mean_return(env, expert(env), episodes)


def score(env: gym.Env, agent: Predictor, episodes: int = 20) -> float:
    """Return the mean return of an agent in a toy task, normalised to 0 for random actions and 1 for the expert."""
    random, best = _references(type(env), episodes)  # type: ignore[arg-type]  # a class has a hash
    return (mean_return(env, agent, episodes) - random) / (best - random)
