"""Evaluation of policies: whole episodes with SB3's ``evaluate_policy``, the same ones for every policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym.data import EpisodicPolicy, HeldRandomPolicy
from aime_gym.data.recording import EPISODE_LIMIT, endless_episode, has_time_limit
from aime_gym.progress import progress_bar
from aime_gym.tasks import TaskConfig
from aime_gym.types import Array, Observation, Predictor

#: Copies of a task that a policy is evaluated in at once. Each takes some time and memory to make.
COPIES = 5
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


@contextmanager
def evaluation_envs(task: TaskConfig, episodes: int) -> Iterator[list[gym.Env]]:
    """Make the copies of a task in which [`evaluate`][] runs so many episodes."""
    with ExitStack() as stack:
        yield [stack.enter_context(task.make()) for _ in range(min(COPIES, episodes))]


def evaluate(
    policy: Policy,
    envs: gym.Env | Sequence[gym.Env],
    episodes: int,
    *,
    seed: int,
    title: str = "evaluate",
    progress: bool = False,
) -> Score:
    """Run a policy for whole episodes, without exploration.

    Episode ``k`` starts from ``seed + k`` in whichever copy of the task it runs. What a network chooses in a batch may
    differ in the last bits from what it chooses alone, so another number of copies may give slightly other scores.

    :param envs: a task, or copies of it; a policy with ``predict`` acts in all copies at once, a function in the first.
        The task's success is what it reports as ``is_success`` at the end of an episode.
    :param seed: seed of the first episode. The same seed gives every policy the same episodes to begin with.
    :param title: title of the progress bar.
    :raises ValueError: an episode that does not end.
    """
    copies = [envs] if isinstance(envs, gym.Env) else list(envs)
    copies = copies[: episodes if hasattr(policy, "predict") else 1]
    counts = [(episodes + index) // len(copies) for index in range(len(copies))]  # as evaluate_policy divides them
    seeded = [
        EpisodeSeeds(copy, seed + first) for copy, first in zip(copies, accumulate(counts, initial=0), strict=False)
    ]
    limit = None if has_time_limit(copies[0]) else EPISODE_LIMIT
    infos: list[list[dict[str, Any]]] = [[] for _ in copies]
    start = time.perf_counter()
    with progress_bar(title, episodes, enabled=progress) as advance:

        def at_step(inside: dict[str, Any], _: dict[str, Any]) -> None:
            if inside["done"]:
                infos[inside["i"]].append(inside["info"])
                advance(1, "")
            elif limit is not None and inside["current_lengths"].max() >= limit:
                raise endless_episode(limit)

        evaluate_policy(
            as_predictor(policy),
            DummyVecEnv([partial(Monitor, copy) for copy in seeded]),
            n_eval_episodes=episodes,
            deterministic=True,
            callback=at_step,
        )
    seconds = time.perf_counter() - start
    in_order = list(chain.from_iterable(infos))
    returns = tuple(float(info["episode"]["r"]) for info in in_order)
    lengths = tuple(int(info["episode"]["l"]) for info in in_order)
    known = all("is_success" in info for info in in_order)
    return Score(returns, lengths, tuple(bool(info["is_success"]) for info in in_order) if known else None, seconds)


def evaluate_random(env: gym.Env, episodes: int, *, seed: int, progress: bool = False) -> Score:
    """Evaluate uniform random actions."""
    policy = HeldRandomPolicy(env.action_space, magnitudes=(1.0,), hold=(1, 1), seed=seed)
    return evaluate(policy, env, episodes, seed=seed, title="random", progress=progress)
