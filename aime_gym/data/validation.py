"""Checks of trajectories before any training: errors for what cannot be learnt from, warnings of units that differ."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from aime_gym.data.spaces import first_not_finite, first_true
from aime_gym.types import Array, Observation, Trajectory, sensors

#: Distance that an action may lie outside a Box, relative to its width: float32 rounding, no more.
ACTION_TOLERANCE = 1e-5
#: Distance that observations may lie outside a Box without a warning, relative to its width.
_MARGIN = 0.01
#: Standard deviations of play that demonstrations may be away from it.
_FAR = 100
#: Numbers of float32 that a spread should span, where float32 has steps as large as the second one.
_STEPS, _COARSE = 16, 1e-3
#: Std that is no noise, and how small beside a typical one it may be before standardising hides it.
_LEAST_SIGNAL, _HIDDEN = 1e-3, 0.01
#: Share of the entries that has to be hidden for a warning: some of many hardly move.
_MANY = 0.1


def check_trajectories(
    trajectories: Sequence[Trajectory],
    *,
    argument: str,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    need_actions: bool,
    rendering: str | None = None,
) -> list[Trajectory]:
    """Check trajectories against the spaces of an environment, and return them in its dtypes.

    Observations take the dtype of their space (``uint8`` images stay ``uint8``), rewards become ``float32``, actions
    ``float32`` in a Box and ``int64`` in a Discrete space. Arrays that have that dtype already are not copied.

    :param argument: name of this data for the user (``"play"``, ``"demos"``): errors start with it.
    :param observation_space: Box, or Dict of Boxes, as the trajectories should have it: images as the user sees them.
    :param need_actions: ``False`` drops the actions before anything looks at them; the result has none.
    :param rendering: the quality in which the environment draws its images (see [`Trajectory`][]); ``None`` when
        unknown, or without images. Images of another quality would be told from the environment's by that alone.
    :raises ValueError: nothing there; another shape, kind of dtype or set of sensors than the space; NaN or infinity;
        actions that are missing, of another shape, or outside the space; images that are known to be drawn otherwise
        than the environment's. The message names the argument, the trajectory, what was expected and what came.

    Warns of observations outside the bounds of the space, and of those that float32 cannot tell apart.
    """
    checked = list(iterate_checked(trajectories, argument, observation_space, action_space, need_actions, rendering))
    _warn_of_units(checked, observation_space, argument)
    return checked


def iterate_checked(
    trajectories: Sequence[Trajectory],
    argument: str,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    need_actions: bool,
    rendering: str | None,
) -> Iterator[Trajectory]:
    """Yield what [`check_trajectories`][] returns, one at a time, for data that is not held all at once."""
    if not isinstance(trajectories, Sequence):
        raise ValueError(f"{argument}: expected a sequence of Trajectory, got {type(trajectories).__name__}")
    if not trajectories:
        raise ValueError(f"{argument}: expected at least one trajectory, got an empty dataset")
    for index, trajectory in enumerate(trajectories):
        where = f"{argument}[{index}]"
        if not isinstance(trajectory, Trajectory):
            raise ValueError(f"{where}: expected a Trajectory, got {type(trajectory).__name__}")
        if None not in (rendering, trajectory.rendering) and trajectory.rendering != rendering:
            raise ValueError(
                f"{where}.rendering: expected images drawn as the environment's are, with quality={rendering!r}, got "
                f"quality={trajectory.rendering!r}; make the environment with that, or record the data anew"
            )
        yield Trajectory(
            _checked_observations(trajectory.observations, observation_space, f"{where}.observations"),
            _checked_actions(trajectory.actions, action_space, f"{where}.actions") if need_actions else None,
            None if trajectory.rewards is None else _checked_rewards(trajectory.rewards, f"{where}.rewards"),
            trajectory.terminated,
            trajectory.truncated,
            trajectory.rendering,
        )


def _checked_observations(observations: Observation, space: spaces.Space, where: str) -> Observation:
    if not isinstance(space, spaces.Dict):
        if isinstance(observations, dict):
            raise ValueError(
                f"{where}: expected a single array of shape (T+1, {_inner(space.shape or ())}), got one array per "
                f"sensor ({', '.join(observations)}); load_trajectories(..., sensors=[...]) joins them"
            )
        return _checked_sensor(observations, space, where)
    if not isinstance(observations, dict):
        raise ValueError(f"{where}: expected one array per sensor ({', '.join(space)}), got a single array")
    if set(observations) != set(space):
        differences = {"missing": set(space) - set(observations), "unknown": set(observations) - set(space)}
        parts = [f"{word} {', '.join(sorted(names))}" for word, names in differences.items() if names]
        raise ValueError(
            f"{where}: expected the sensors {sorted(space)}, got {sorted(observations)} ({'; '.join(parts)})"
        )
    return {name: _checked_sensor(observations[name], part, f"{where}[{name!r}]") for name, part in space.items()}


def _checked_sensor(values: Array, space: spaces.Space, where: str) -> Array:
    if not isinstance(space, spaces.Box):
        raise ValueError(f"{where}: expected a Box observation space, or a Dict of Boxes, but the space is {space}")
    values = np.asarray(values)
    # Of one kind, a float cast only rounds, where an integer cast wraps around in silence.
    if values.dtype.kind != space.dtype.kind or (values.dtype.kind in "iu" and values.dtype != space.dtype):
        raise ValueError(f"{where}: expected dtype {space.dtype}, got {values.dtype}")
    if values.shape[1:] != space.shape:
        raise ValueError(f"{where}: expected shape (T+1, {_inner(space.shape)}), got {values.shape}")
    values = _finite(values, space.dtype, where)
    if space.dtype.kind == "f" and space.dtype.itemsize > 4:  # networks see float32
        _finite(values, np.dtype(np.float32), where)
    return values


def _checked_actions(actions: Array | None, space: spaces.Space, where: str) -> Array:
    if actions is None:
        raise ValueError(f"{where}: expected one action per transition, got None: this data has no actions")
    actions = np.asarray(actions)
    if isinstance(space, spaces.Box):
        if actions.dtype.kind not in "fiu":
            raise ValueError(f"{where}: expected numbers, got dtype {actions.dtype}")
        if actions.shape[1:] != space.shape:
            raise ValueError(f"{where}: expected shape (T, {_inner(space.shape)}), got {actions.shape}")
        actions = _finite(actions, np.dtype(np.float32), where)
        width = space.high.astype(np.float64) - space.low
        tolerance = np.where(np.isfinite(width), ACTION_TOLERANCE * width, 0.0)
        outside = (actions < space.low - tolerance) | (actions > space.high + tolerance)
        if outside.any():
            step, *entry = place = first_true(outside)
            raise ValueError(
                f"{where}: expected actions inside {space}, got {actions[place]:g} at step {step}, entry {tuple(entry)}"
            )
        return actions
    if isinstance(space, spaces.Discrete):
        if actions.dtype.kind not in "iu":
            raise ValueError(f"{where}: expected integers for {space}, got dtype {actions.dtype}")
        if actions.ndim != 1:
            raise ValueError(f"{where}: expected shape (T,), got {actions.shape}")
        outside = (actions < space.start) | (actions >= space.start + space.n)
        if outside.any():
            (step,) = first_true(outside)
            last = space.start + space.n - 1
            raise ValueError(
                f"{where}: expected actions from {space.start} to {last}, got {actions[step]} at step {step}"
            )
        return actions.astype(np.int64, copy=False)
    raise ValueError(f"{where}: expected a Box or Discrete action space, but the space is {space}")


def _checked_rewards(rewards: Array, where: str) -> Array:
    rewards = np.asarray(rewards)
    if rewards.dtype.kind not in "fiub":
        raise ValueError(f"{where}: expected numbers, got dtype {rewards.dtype}")
    if rewards.ndim != 1:
        raise ValueError(f"{where}: expected shape (T,), got {rewards.shape}")
    return _finite(rewards, np.dtype(np.float32), where)


@dataclass(frozen=True)
class Spread:
    """Mean and std of the entries of a sensor (D,), and the range that they lie in."""

    mean: Array
    std: Array
    low: Array
    high: Array


def spreads(trajectories: Sequence[Trajectory]) -> dict[str, Spread]:
    """Return the spread of each sensor that is a vector of floats, over all observations."""
    first = sensors(trajectories[0].observations)
    names = [name for name, values in first.items() if values.ndim == 2 and values.dtype.kind == "f"]
    return {name: _spread([sensors(trajectory.observations)[name] for trajectory in trajectories]) for name in names}


def _spread(arrays: Sequence[Array]) -> Spread:
    """Return the spread of rows in several arrays, whose copies in float64 are never there all at once."""
    count = sum(map(len, arrays))
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.sum([values.sum(axis=0, dtype=np.float64) for values in arrays], axis=0) / count
        variance = np.sum([np.square(values - mean).sum(axis=0) for values in arrays], axis=0) / count
    low = np.min([values.min(axis=0) for values in arrays], axis=0)
    return Spread(mean, np.sqrt(variance), low, np.max([values.max(axis=0) for values in arrays], axis=0))


def warn_of_other_units(demos: Sequence[Trajectory], play: Mapping[str, Spread], argument: str) -> None:
    """Warn of demonstrations that lie where no play came near: they may be in other units.

    :param play: spreads of the play data.
    """
    for name, spread in spreads(demos).items():
        if name not in play:
            continue
        known = play[name]
        unit = np.maximum(known.std, 0.1 * np.sqrt(np.square(known.std).mean())).clip(1e-30)
        distance = np.hypot(spread.mean - known.mean, spread.std) / unit
        worst = int(np.argmax(distance))
        if distance[worst] > _FAR:
            warnings.warn(
                f"{argument}: {int((distance > _FAR).sum())} of {len(distance)} entries of {name!r} lie more than "
                f"{_FAR} standard deviations of the play's observations away from them: entry {worst} is "
                f"{spread.mean[worst]:g} +- {spread.std[worst]:g} here, and {known.mean[worst]:g} +- "
                f"{known.std[worst]:g} in play; are they in other units?",
                stacklevel=4,
            )


def _warn_of_units(trajectories: Sequence[Trajectory], space: spaces.Space, argument: str) -> None:
    parts = space.spaces if isinstance(space, spaces.Dict) else {"observation": space}
    for name, spread in spreads(trajectories).items():
        for entries, problem in _problems_of_units(spread, parts[name]):
            count = f"{int(entries.sum())} of {len(entries)} entries of {name!r}"
            warnings.warn(f"{argument}: {count} {problem}", stacklevel=4)


def _problems_of_units(spread: Spread, space: spaces.Box) -> Iterator[tuple[Array, str]]:
    """Yield which entries (D,) of a sensor are hard to learn from, and why, by the example of the first one."""
    mean, std = spread.mean, spread.std
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        margin = _MARGIN * np.where(np.isfinite(high - low), high - low, np.maximum(np.abs(low), np.abs(high)))
        margin = np.where(np.isfinite(margin), margin, 0)
    outside = (spread.low < low - margin) | (spread.high > high + margin)
    if outside.any():
        (first,) = first_true(outside)
        yield (
            outside,
            (
                f"leave the bounds of the observation space: entry {first} goes from {spread.low[first]:g} to "
                f"{spread.high[first]:g}, the space from {low[first]:g} to {high[first]:g}; are they in other units?"
            ),
        )
    moving = std[std > 0]
    typical = min(np.sqrt(np.square(moving).mean()), np.median(moving)) if len(moving) else 0.0
    hidden = (std > _LEAST_SIGNAL) & (std < _HIDDEN * typical)
    if hidden.sum() > _MANY * len(moving):
        (first,) = first_true(hidden)
        yield (
            hidden,
            (
                f"are observations that are small beside most others: entry {first} moves by {std[first]:g}, where "
                f"{typical:g} is typical; scale them alike if they matter"
            ),
        )
    resolution = np.spacing(np.abs(mean).astype(np.float32)).astype(np.float64)
    coarse = (std > 0) & (std < _STEPS * resolution) & (resolution > _COARSE)
    if coarse.any():
        (first,) = first_true(coarse)
        yield (
            coarse,
            (
                f"are observations that float32 cannot tell apart: entry {first} moves by {std[first]:g} around "
                f"{mean[first]:g}, where float32 has steps of {resolution[first]:g}; subtract the offset"
            ),
        )


def _finite(values: Array, dtype: np.dtype, where: str) -> Array:
    """Return values in a dtype in which all of them are finite."""
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is reported
        values = values.astype(dtype, copy=False)
    if (place := first_not_finite(values)) is not None:
        entry = f", entry {place[1:]}" if len(place) > 1 else ""
        count = int((~np.isfinite(values)).sum())
        raise ValueError(
            f"{where}: expected finite numbers, got {values[place]} at step {place[0]}{entry} ({count} such entries)"
        )
    return values


def _inner(shape: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in shape)
