"""Statistics over runs: means and interquartile means with stratified bootstrap intervals.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (arXiv 2108.13264),
with the authors' library, rliable. A run is one trained agent; its score is the mean return of its episodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
class Estimate:
    """A number with its 95% interval; ``None`` where there is one run alone."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Profile:
    """The share of runs that score above each threshold, and its 95% interval.

    :param shares: shares ``(thresholds,)`` of each policy.
    :param intervals: lower and upper bounds ``(2, thresholds)`` of each policy.
    """

    thresholds: Array
    shares: Mapping[str, Array]
    intervals: Mapping[str, Array]


def normalise(score: float, random: float | None, expert: float | None) -> float | None:
    """Return a score on the scale where 0 is random and 1 the expert; ``None`` where that is unknown."""
    return None if random is None or expert is None or random == expert else (score - random) / (expert - random)


def interquartile_mean(values: Any) -> float:
    """Return the mean of the middle half: a quarter of the values, rounded down, is cut at each end."""
    ordered = np.sort(np.ravel(values))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def estimates(scores: Array, *, repetitions: int = REPETITIONS) -> tuple[Estimate, Estimate]:
    """Return mean and interquartile mean of all runs on all tasks.

    :param scores: scores ``(runs, tasks)``; resampled within each task.
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
    """Return the probability that a run of one policy beats a run of another on the same task; ties count half.

    It is averaged over tasks.

    :param scores: scores ``(runs, tasks)`` of the one policy.
    :param of: scores of the other ``(runs, tasks)``, on as many tasks.
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
    """Return score distributions.

    :param scores: normalised scores ``(runs, tasks)`` of each policy.
    """
    from rliable import library

    every = np.concatenate([np.ravel(values) for values in scores.values()])
    thresholds = np.linspace(min(0.0, every.min()), max(1.0, every.max()), _THRESHOLDS)
    with _numpy_seeded():
        shares, intervals = library.create_performance_profile(dict(scores), thresholds, reps=repetitions)
    return Profile(thresholds, shares, intervals)


def _mean_and_iqm(scores: Array) -> Array:
    return np.array([np.mean(scores), interquartile_mean(scores)])


@contextmanager
def _numpy_seeded() -> Iterator[None]:
    """Seed NumPy's global generator, from which rliable 1.2 draws, whatever it is given: intervals repeat."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
