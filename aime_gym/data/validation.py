"""Checks of trajectories before any training: errors for what cannot be learnt from, warnings of units that differ."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from aime_gym.types import Array, Observation, Trajectory, sensors

#: How far outside a Box an action may lie, relative to the width of the Box: float32 rounding, no more.
ACTION_TOLERANCE = 1e-5
#: How far outside a Box observations may lie, relative to its width, before that is worth a warning.
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

    :param argument: what the user calls this data (``"play"``, ``"demos"``): errors start with it.
    :param observation_space: Box, or Dict of Boxes, as the trajectories should have it: images as the user sees them.
    :param need_actions: ``False`` drops the actions before anything looks at them; the result has none.
    :param rendering: the quality in which the environment draws its images (see :class:`Trajectory`); ``None`` when
        unknown, or without images. Images of another quality would be told from the environment's by that alone.
    :raises ValueError: nothing there; another shape, kind of dtype or set of sensors than the space; NaN or infinity;
        actions that are missing, of another shape, or outside the space; images that are known to be drawn otherwise
        than the environment's. The message names the argument, the trajectory, what was expected and what came.

    Warns of observations outside the bounds of the space, and of those that float32 cannot tell apart.
    """
    checked = list(
        iterate_checked(
            trajectories,
            argument=argument,
            observation_space=observation_space,
            action_space=action_space,
            need_actions=need_actions,
            rendering=rendering,
        )
    )
    _warn_of_bounds_and_offsets(checked, observation_space, argument)
    return checked


def iterate_checked(
    trajectories: Sequence[Trajectory],
    *,
    argument: str,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    need_actions: bool,
    rendering: str | None = None,
) -> Iterator[Trajectory]:
    """Yield what :func:`check_trajectories` returns, one at a time, for data that is not held all at once."""
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
            observations=_checked_observations(trajectory.observations, observation_space, where),
            actions=_checked_actions(trajectory.actions, action_space, where) if need_actions else None,
            rewards=None if trajectory.rewards is None else _checked_rewards(trajectory.rewards, where),
            terminated=trajectory.terminated,
            truncated=trajectory.truncated,
            rendering=trajectory.rendering,
        )


def _checked_observations(observations: Observation, space: spaces.Space, where: str) -> Observation:
    if isinstance(space, spaces.Dict):
        if not isinstance(observations, dict):
            raise ValueError(
                f"{where}.observations: expected one array per sensor ({', '.join(space)}), got a single array"
            )
        if set(observations) != set(space):
            raise ValueError(
                f"{where}.observations: expected the sensors {sorted(space)}, got {sorted(observations)}"
                f"{_difference(set(space), set(observations))}"
            )
        return {
            name: _checked_sensor(observations[name], sensor_space, f"{where}.observations[{name!r}]")
            for name, sensor_space in space.items()
        }
    if isinstance(observations, dict):
        raise ValueError(
            f"{where}.observations: expected a single array of shape (T+1, {_inner(space.shape or ())}), "
            f"got one array per sensor ({', '.join(observations)}); load_trajectories(..., sensors=[...]) joins them"
        )
    return _checked_sensor(sensors(observations)["observation"], space, f"{where}.observations")


def _checked_sensor(values: Array, space: spaces.Space, where: str) -> Array:
    if not isinstance(space, spaces.Box):
        raise ValueError(f"{where}: expected a Box observation space, or a Dict of Boxes, but the space is {space}")
    values = np.asarray(values)
    expected = np.dtype(space.dtype)
    if values.dtype.kind != expected.kind:
        raise ValueError(f"{where}: expected dtype {expected}, got {values.dtype}")
    if values.shape[1:] != space.shape:
        raise ValueError(f"{where}: expected shape (T+1, {_inner(space.shape)}), got {values.shape}")
    if expected.kind in "iu" and values.dtype != expected:
        # An integer cast wraps around in silence, where a float cast only rounds.
        raise ValueError(f"{where}: expected dtype {expected}, got {values.dtype}")
    cast = _finite(_cast(values, expected), where)
    if expected.itemsize > 4 and expected.kind == "f":  # networks see float32
        _finite(_cast(cast, np.dtype(np.float32)), where)
    return cast


def _checked_actions(actions: Array | None, space: spaces.Space, where: str) -> Array:
    if actions is None:
        raise ValueError(f"{where}.actions: expected one action per transition, got None: this data has no actions")
    where = f"{where}.actions"
    actions = np.asarray(actions)
    if isinstance(space, spaces.Box):
        if actions.dtype.kind not in "fiu":
            raise ValueError(f"{where}: expected numbers, got dtype {actions.dtype}")
        if actions.shape[1:] != space.shape:
            raise ValueError(f"{where}: expected shape (T, {_inner(space.shape)}), got {actions.shape}")
        actions = _finite(_cast(actions, np.dtype(np.float32)), where)
        width = space.high.astype(np.float64) - space.low
        tolerance = np.where(np.isfinite(width), ACTION_TOLERANCE * width, 0.0)
        outside = (actions < space.low - tolerance) | (actions > space.high + tolerance)
        if outside.any():
            first = tuple(int(i) for i in np.argwhere(outside)[0])
            raise ValueError(
                f"{where}: expected actions inside {space}, got {actions[first]:g} at step {first[0]}, "
                f"entry {first[1:]}"
            )
        return actions
    if isinstance(space, spaces.Discrete):
        if actions.dtype.kind not in "iu":
            raise ValueError(f"{where}: expected integers for {space}, got dtype {actions.dtype}")
        if actions.ndim != 1:
            raise ValueError(f"{where}: expected shape (T,), got {actions.shape}")
        outside = (actions < space.start) | (actions >= space.start + space.n)
        if outside.any():
            first_step = int(np.argmax(outside))
            raise ValueError(
                f"{where}: expected actions from {space.start} to {space.start + space.n - 1}, "
                f"got {actions[first_step]} at step {first_step}"
            )
        return actions.astype(np.int64, copy=False)
    raise ValueError(f"{where}: expected a Box or Discrete action space, but the space is {space}")


def _checked_rewards(rewards: Array, where: str) -> Array:
    where = f"{where}.rewards"
    rewards = np.asarray(rewards)
    if rewards.dtype.kind not in "fiub":
        raise ValueError(f"{where}: expected numbers, got dtype {rewards.dtype}")
    if rewards.ndim != 1:
        raise ValueError(f"{where}: expected shape (T,), got {rewards.shape}")
    return _finite(_cast(rewards, np.dtype(np.float32)), where)


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


def _warn_of_bounds_and_offsets(trajectories: Sequence[Trajectory], space: spaces.Space, argument: str) -> None:
    parts = space.spaces if isinstance(space, spaces.Dict) else {"observation": space}
    for name, spread in spreads(trajectories).items():
        part = parts[name]
        assert isinstance(part, spaces.Box)
        low, high = part.low.astype(np.float64), part.high.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            margin = _MARGIN * np.where(np.isfinite(high - low), high - low, np.maximum(np.abs(low), np.abs(high)))
            margin = np.where(np.isfinite(margin), margin, 0)
        outside = (spread.low < low - margin) | (spread.high > high + margin)
        if outside.any():
            first = int(np.argmax(outside))
            warnings.warn(
                f"{argument}: {int(outside.sum())} of {len(outside)} entries of {name!r} leave the bounds of the "
                f"observation space: entry {first} goes from {spread.low[first]:g} to {spread.high[first]:g}, the "
                f"space from {low[first]:g} to {high[first]:g}; are they in other units?",
                stacklevel=4,
            )
        moving = spread.std[spread.std > 0]
        typical = min(np.sqrt(np.square(moving).mean()), np.median(moving)) if len(moving) else 0.0
        hidden = (spread.std > _LEAST_SIGNAL) & (spread.std < _HIDDEN * typical)
        if hidden.sum() > _MANY * len(moving):
            first = int(np.argmax(hidden))
            warnings.warn(
                f"{argument}: {int(hidden.sum())} of {len(hidden)} entries of {name!r} are observations that are small "
                f"beside most others: entry {first} moves by {spread.std[first]:g}, where {typical:g} is typical; "
                f"scale them alike if they matter",
                stacklevel=4,
            )
        resolution = np.spacing(np.abs(spread.mean).astype(np.float32)).astype(np.float64)
        coarse = (spread.std > 0) & (spread.std < _STEPS * resolution) & (resolution > _COARSE)
        if coarse.any():
            first = int(np.argmax(coarse))
            warnings.warn(
                f"{argument}: {int(coarse.sum())} of {len(coarse)} entries of {name!r} are observations that float32 "
                f"cannot tell apart: entry {first} moves by {spread.std[first]:g} around {spread.mean[first]:g}, where "
                f"float32 has steps of {resolution[first]:g}; subtract the offset",
                stacklevel=4,
            )


def _cast(values: Array, dtype: np.dtype) -> Array:
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and _finite reports it
        return values.astype(dtype, copy=False)


def _finite(values: Array, where: str) -> Array:
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"{where}: expected finite numbers, got {values[first]} at step {first[0]}"
            f"{f', entry {first[1:]}' if len(first) > 1 else ''} ({int((~finite).sum())} such entries)"
        )
    return values


def _difference(expected: set[str], got: set[str]) -> str:
    parts = [
        f"{word} {', '.join(sorted(names))}"
        for word, names in (("missing", expected - got), ("unknown", got - expected))
        if names
    ]
    return f" ({'; '.join(parts)})"


def _inner(shape: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in shape)
