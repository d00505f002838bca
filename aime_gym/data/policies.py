"""Policies that data is recorded with: random play without a task, and scripted experts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from aime_gym.config import check_seed
from aime_gym.data.paddle_expert import PaddleExpert
from aime_gym.data.spaces import check_action_space, legal_actions
from aime_gym.types import Array, Observation

#: Mixed into the seed, so that a policy and an environment of the same seed do not draw the same numbers.
_SEED_DOMAIN = 0x506C6179


@runtime_checkable
class EpisodicPolicy(Protocol):
    """Policy that has to know where episodes start: [`collect`][] calls ``reset`` there."""

    def __call__(self, observation: Observation) -> Any:
        """Return the action."""
        ...

    def reset(self, *, seed: int | None = None) -> None:
        """Forget the last episode; with ``seed``, restart the random numbers as well."""
        ...


class HeldRandomPolicy:
    """Policy of random play: an action, held for a random number of steps, at a random magnitude.

    It knows nothing of any task. Uniform noise averages out and never makes a small movement, so a model that learnt
    from it cannot tell what a fine correction does. Here each held action is
    ``centre + magnitude * uniform(-1, 1) * half_width`` of the Box, with the magnitude drawn anew each time. In a
    Discrete space magnitudes mean nothing: a uniform action is held.

    ``HeldRandomPolicy(space, magnitudes=(1.0,), hold=(1, 1))`` is the usual uniform random policy.

    :param action_space: Box with finite bounds, or Discrete.
    :param magnitudes: fractions of the half width of the Box, in (0, 1]; drawn uniformly.
    :param hold: least and greatest number of steps an action is held, both included; drawn uniformly.
    :param seed: seed of the random numbers. ``collect(..., seed=...)`` sets it again.
    :raises ValueError: another action space, or magnitudes or hold out of range.
    """

    def __init__(
        self,
        action_space: spaces.Space,
        magnitudes: Sequence[float] = (0.05, 0.2, 0.5, 1.0),
        hold: tuple[int, int] = (1, 10),
        seed: int | None = None,
    ) -> None:
        check_action_space(action_space)
        if not magnitudes or not all(0 < magnitude <= 1 for magnitude in magnitudes):
            raise ValueError(f"magnitudes: expected at least one fraction in (0, 1], got {tuple(magnitudes)}")
        if not 1 <= hold[0] <= hold[1]:
            raise ValueError(f"hold: expected 1 <= least <= greatest, got {tuple(hold)}")
        self.action_space = action_space
        self.magnitudes = tuple(magnitudes)
        self.hold = (int(hold[0]), int(hold[1]))
        self.reset()
        self._rng = _generator(seed)

    def reset(self, *, seed: int | None = None) -> None:
        """End the held action; with ``seed``, restart the random numbers as well."""
        if seed is not None:
            self._rng = _generator(seed)
        self._steps_left = 0
        self._action: Array | np.int64 | None = None

    def __call__(self, observation: Observation | None = None) -> Array | np.int64:
        """Return the action, ``(A,)`` or a scalar; the observation is not looked at."""
        if self._action is None or self._steps_left == 0:
            self._action = self._draw()
            self._steps_left = int(self._rng.integers(self.hold[0], self.hold[1], endpoint=True))
        self._steps_left -= 1
        return self._action.copy()

    def _draw(self) -> Array | np.int64:
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return np.int64(space.start + self._rng.integers(space.n))
        assert isinstance(space, spaces.Box)
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        magnitude = self._rng.choice(self.magnitudes)
        action = (low + high) / 2 + magnitude * self._rng.uniform(-1, 1, size=space.shape) * (high - low) / 2
        return legal_actions(action, space)


class ScriptedExpert:
    """Scripted expert of Meta-World for the task that ``env`` runs.

    The scripts need the whole observation of the simulator (39 numbers), which a position-only or pixel environment
    does not show. So the expert looks behind the wrappers, and ignores the observation that it is given. It changes
    nothing there: it may be called or not without a difference to the episode.

    :param env: a Meta-World environment, in any wrappers.
    :raises ValueError: ``env`` is not a Meta-World task.
    """

    def __init__(self, env: gym.Env) -> None:
        simulator = env.unwrapped
        task = _metaworld_task(simulator)
        if task is None:
            raise ValueError(
                "env: expected a Meta-World task, for which there are scripted experts, got "
                f"{env.spec.id if env.spec is not None else type(simulator).__name__}; "
                "for other environments pass a trained model, or any callable, as the policy"
            )
        from metaworld.policies import ENV_POLICY_MAP

        self.task = task
        self._simulator: Any = simulator
        self._script: Any = ENV_POLICY_MAP[task]()  # type: ignore[abstract]

    def raw_observation(self) -> Array:
        """Return the simulator's latest observation, ``(39,)``: current frame, previous frame, goal."""
        simulator = self._simulator
        if simulator.curr_path_length > 0:
            # The simulator's own copy of what step() returned. Asking it to build the observation again would
            # overwrite the previous frame with the current one.
            return np.array(simulator._last_stable_obs)
        frame = simulator._get_curr_obs_combined_no_goal()
        goal = np.zeros(3) if simulator._partially_observable else simulator._get_pos_goal()
        return np.concatenate([frame, frame, goal])

    def __call__(self, observation: Observation | None = None) -> Array:
        """Return the expert's action, ``(4,)``, inside the action space."""
        space = self._simulator.action_space
        with warnings.catch_warnings():
            # "Constant(s) may be too high. Environments clip": so do we, and once per step is too often to say it.
            warnings.filterwarnings("ignore", message="Constant")
            action = self._script.get_action(self.raw_observation())
        return np.clip(action, space.low, space.high).astype(space.dtype)


def scripted_expert(env: gym.Env) -> ScriptedExpert | PaddleExpert:
    """Return the scripted expert of a task of Meta-World, or of Atari's Pong or Breakout.

    :raises ValueError: a task without one.
    """
    return (PaddleExpert if hasattr(env.unwrapped, "ale") else ScriptedExpert)(env)


def _metaworld_task(simulator: gym.Env) -> str | None:
    if not type(simulator).__module__.startswith("metaworld."):
        return None  # spares the import of every task where Meta-World is not even used
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    return next((name for name, task in ALL_V3_ENVIRONMENTS.items() if type(simulator) is task), None)


def _generator(seed: int | None) -> np.random.Generator:
    seed = check_seed(seed, most=2**63 - 1)
    return np.random.default_rng(None if seed is None else [_SEED_DOMAIN, seed])
