"""What the runs of a benchmark say together: means and interquartile means with stratified bootstrap intervals.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (arXiv 2108.13264),
with the authors' library, rliable. A run is one trained agent; its score is the mean return of its episodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from aime_gym.types import Array

#: Resamples of an interval.
REPETITIONS = 2000
#: Thresholds of a performance profile.
_THRESHOLDS = 101


@dataclass(frozen=True)
class Run:
    """One trained agent.

    :param policy: the agent's label; with the number of demonstrations where there are several.
    :param score: mean return.
    :param normalised: (score - random) / (expert - random); ``None`` where a reference is missing or both are equal.
    :param percent: of the expert; ``None`` where that is not positive.
    :param success: share of successful episodes, where the task says.
    """

    task: str
    policy: str
    seed: int
    score: float
    normalised: float | None
    percent: float | None
    success: float | None
    train_seconds: float
    curve: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval; ``None`` where one run says nothing of others."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Profile:
    """The share of runs that score above each threshold, and its 95% interval.

    :param shares: by policy, ``(thresholds,)``.
    :param intervals: by policy, ``(2, thresholds)``.
    """

    thresholds: Array
    shares: Mapping[str, Array]
    intervals: Mapping[str, Array]


def normalise(score: float, random: float | None, expert: float | None) -> float | None:
    """0 is random and 1 is the expert."""
    return None if random is None or expert is None or random == expert else (score - random) / (expert - random)


def interquartile_mean(values: Any) -> float:
    """Mean of the middle half: a quarter of the values, rounded down, is cut at each end."""
    ordered = np.sort(np.ravel(values))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def require_rliable() -> None:
    """:raises ImportError: it is not installed; the message has the command."""
    try:
        import rliable.library  # noqa: F401
    except ImportError as error:
        raise ImportError(f"a report needs rliable ({error}): pip install 'aime-gym[report]'") from error


def estimates(scores: Array, *, repetitions: int = REPETITIONS) -> tuple[Estimate, Estimate]:
    """Mean and interquartile mean of all runs on all tasks.

    :param scores: ``(runs, tasks)``; resampled within each task.
    """
    values = _mean_and_iqm(scores)
    if len(scores) < 2:
        return Estimate(values[0]), Estimate(values[1])
    from rliable import library

    with _numpy_seeded():
        _, intervals = library.get_interval_estimates({"": scores}, _mean_and_iqm, reps=repetitions)
    low, high = intervals[""]
    return tuple(Estimate(float(v), (float(a), float(b))) for v, a, b in zip(values, low, high, strict=True))  # type: ignore[return-value]


def probability_of_improvement(scores: Array, of: Array, *, repetitions: int = REPETITIONS) -> Estimate:
    """How probably a run of one policy beats a run of another on the same task, averaged over tasks; ties count half.

    :param scores: ``(runs, tasks)``.
    :param of: the other's, ``(runs, tasks)``; as many tasks.
    """

    def probability(one: Array, other: Array) -> Array:
        # rliable's own goes through a test of SciPy, for the same number in a thousand times the time.
        pairs = np.sign(one[:, None] - other[None])
        return np.array([(1 + pairs.mean()) / 2])

    value = float(probability(scores, of)[0])
    if len(scores) < 2 or len(of) < 2:
        return Estimate(value)
    from rliable import library

    with _numpy_seeded():
        _, intervals = library.get_interval_estimates({"": [scores, of]}, probability, reps=repetitions)
    low, high = intervals[""].ravel()
    return Estimate(value, (float(low), float(high)))


def performance_profile(scores: Mapping[str, Array], *, repetitions: int = REPETITIONS) -> Profile:
    """Score distributions.

    :param scores: ``(runs, tasks)`` by policy, normalised.
    """
    from rliable import library

    every = np.concatenate([np.ravel(values) for values in scores.values()])
    thresholds = np.linspace(min(0.0, every.min()), max(1.0, every.max()), _THRESHOLDS)
    with _numpy_seeded():
        shares, intervals = library.create_performance_profile(dict(scores), thresholds, reps=repetitions)
    return Profile(thresholds, shares, intervals)


def matrix(runs: Sequence[Run], policy: str, tasks: Sequence[str]) -> Array | None:
    """Normalised scores ``(runs, tasks)`` of the seeds that a policy has on all tasks; ``None`` where there is none."""
    by_task = [{run.seed: run.normalised for run in runs if (run.task, run.policy) == (task, policy)} for task in tasks]
    seeds = sorted(set.intersection(*map(set, by_task))) if by_task else []
    scores = [[scores[seed] for scores in by_task] for seed in seeds]
    rows = [row for row in scores if None not in row]
    return np.array(rows, dtype=float) if rows else None


def _mean_and_iqm(scores: Array) -> Array:
    return np.array([np.mean(scores), interquartile_mean(scores)])


@contextmanager
def _numpy_seeded() -> Iterator[None]:
    """The same numbers, the same intervals: rliable 1.2 draws from NumPy's global generator, whatever it is given."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
