"""Evaluation of policies: whole episodes with SB3's ``evaluate_policy``, the same ones for every policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from aime_gym.data import EpisodicPolicy, HeldRandomPolicy
from aime_gym.data.recording import EPISODE_LIMIT, endless_episode, has_time_limit
from aime_gym.progress import progress_bar
from aime_gym.types import Array, Observation, Predictor

#: An agent, an SB3 model, or any function of one observation.
Policy: TypeAlias = Predictor | Callable[[Observation], Any]


@dataclass(frozen=True)
class Score:
    """Returns, lengths and successes of some episodes.

    :param returns: undiscounted sum of rewards of each episode.
    :param lengths: decisions in each episode.
    :param successes: whether each episode succeeded; ``None`` where the task does not say.
    :param seconds: wall time of all episodes; ``None`` when they were not run here.
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    successes: tuple[bool, ...] | None = None
    seconds: float | None = None

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the return over the episodes."""
        return float(np.std(self.returns))

    @property
    def success_rate(self) -> float | None:
        """Share of successful episodes."""
        return None if self.successes is None else float(np.mean(self.successes))


class EpisodeSeeds(gym.Wrapper):
    """Seed every episode by its number: episode ``k`` starts from ``seed + k``, whatever happened before it.

    An environment that is seeded once goes on drawing from its generator: a policy that ends its episodes earlier could
    then get other goals than its competitors.

    :param env: the environment.
    :param seed: seed of the first episode.
    """

    def __init__(self, env: gym.Env, seed: int) -> None:
        super().__init__(env)
        self._next = seed

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the next episode; a given ``seed`` is ignored."""
        self._next += 1
        return self.env.reset(seed=self._next - 1, options=options)


class _FunctionPredictor:
    """A function of one observation, with the ``predict`` of a model in one environment."""

    def __init__(self, function: Callable[[Observation], Any]) -> None:
        self._function = function

    def predict(
        self,
        observation: Observation,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, None]:
        if episode_start is not None and episode_start[0] and isinstance(self._function, EpisodicPolicy):
            self._function.reset()
        one = {k: v[0] for k, v in observation.items()} if isinstance(observation, dict) else observation[0]
        return np.asarray(self._function(one))[None], None


def as_predictor(policy: Policy) -> Predictor:
    """Return the policy as something with SB3's ``predict``, for batches of one observation."""
    return policy if hasattr(policy, "predict") else _FunctionPredictor(policy)


def evaluate(
    policy: Policy, env: gym.Env, episodes: int, *, seed: int, title: str = "evaluate", progress: bool = False
) -> Score:
    """Run a policy for whole episodes, without exploration.

    :param env: a task; its success is what it reports as ``is_success`` at the end of an episode.
    :param seed: seed of the first episode. The same seed gives every policy the same episodes to begin with.
    :param title: title of the progress bar.
    :raises ValueError: an episode that does not end.
    """
    successes: list[bool] = []
    limit = None if has_time_limit(env) else EPISODE_LIMIT
    start = time.perf_counter()
    with progress_bar(title, episodes, enabled=progress) as advance:

        def at_step(inside: dict[str, Any], _: dict[str, Any]) -> None:
            if inside["done"]:
                if "is_success" in inside["info"]:
                    successes.append(bool(inside["info"]["is_success"]))
                advance(1, "")
            elif limit is not None and inside["current_lengths"].max() >= limit:
                raise endless_episode(limit)

        returns, lengths = evaluate_policy(
            as_predictor(policy),
            Monitor(EpisodeSeeds(env, seed)),
            n_eval_episodes=episodes,
            deterministic=True,
            callback=at_step,
            return_episode_rewards=True,
        )
    assert isinstance(returns, list)
    assert isinstance(lengths, list)
    seconds = time.perf_counter() - start
    known = tuple(successes) if len(successes) == episodes else None
    return Score(tuple(map(float, returns)), tuple(map(int, lengths)), known, seconds)


def evaluate_random(env: gym.Env, episodes: int, *, seed: int, progress: bool = False) -> Score:
    """Evaluate uniform random actions."""
    policy = HeldRandomPolicy(env.action_space, magnitudes=(1.0,), hold=(1, 1), seed=seed)
    return evaluate(policy, env, episodes, seed=seed, title="random", progress=progress)
