"""Scripted experts of Atari's Pong and Breakout: a paddle that follows the ball, and looks ahead before it hits it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from aime_gym.types import Array, Observation

#: Frames before the ball arrives from which on each choice is tried out, and decisions that a trial lasts.
_NEAR, _TRIAL = 24, 60
#: Distance of paddle and ball, in pixels, that needs no movement.
_TOLERANCE = 7
#: Discount per decision of a trial's rewards, and what a lost life is worth in it.
_GAMMA, _LIFE = 0.99, 10.0


class _View(NamedTuple):
    """Paddle and ball as a game's memory has them, in pixels along the paddle's way."""

    paddle: float  # middle of the paddle
    target: float | None  # where it should be; None before the ball is served
    arrives: float  # frames until the ball is there; infinity while it is on its way elsewhere


class _Game(NamedTuple):
    """Game of a paddle and a ball."""

    view: Callable[[Array], _View]
    less: str  # action towards lower coordinates
    more: str


class PaddleExpert:
    """Scripted expert of Atari's Pong or Breakout, whichever ``env`` runs, by the game's memory.

    The paddle goes where the ball will arrive. Shortly before it hits the ball, each movement is tried out in a copy of
    the emulator, with the paddle following the ball from there on, and the one with the highest discounted reward is
    taken: so it knows which edge of the paddle wins the point. The environment itself is not changed.

    :param env: environment of ``ALE/Pong-v5`` or ``ALE/Breakout-v5``, in any wrappers.
    :raises ValueError: another environment.
    """

    def __init__(self, env: gym.Env) -> None:
        simulator: Any = env.unwrapped
        name = getattr(simulator, "_game", None)
        if name not in _GAMES or not hasattr(simulator, "ale"):
            raise ValueError(f"env: expected Atari's {' or '.join(_GAMES)}, got {name}")
        from ale_py import ALEInterface, LoggerMode, roms

        self._game = _GAMES[name]
        self._ale: Any = simulator.ale
        self._actions = simulator._action_set
        self._fire, self._less, self._more = map(
            simulator.get_action_meanings().index, ("FIRE", self._game.less, self._game.more)
        )
        self._frames = simulator._frameskip * (
            env.get_wrapper_attr("frame_skip") if env.has_wrapper_attr("frame_skip") else 1
        )
        self._copy = ALEInterface()
        self._copy.setLoggerMode(LoggerMode.Error)
        self._copy.setFloat("repeat_action_probability", 0.0)
        rom = roms.get_rom_path(name)
        assert rom is not None  # the package has the ROM of every game
        self._copy.loadROM(rom)
        self.reset()

    def reset(self, *, seed: int | None = None) -> None:
        """Forget the last episode."""
        self._paddle: float | None = None

    def __call__(self, observation: Observation | None = None) -> np.int64:
        """Return the expert's action; the observation is not looked at."""
        view = self._game.view(self._ale.getRAM())
        action = self._follow(view, self._paddle)
        self._paddle = view.paddle
        if view.arrives <= _NEAR:
            state = self._ale.cloneState()
            choices = dict.fromkeys((action, self._fire, self._less, self._more))  # each once, in this order
            action = max(choices, key=lambda choice: self._try(state, choice, view.paddle))
        return np.int64(action)

    def _follow(self, view: _View, before: float | None) -> int:
        """Return the movement to where the ball arrives, less the way that the paddle goes on without one.

        :param before: place of the paddle at the last decision, if there was one.
        """
        if view.target is None:
            return self._fire
        distance = view.target - (view.paddle if before is None else 2 * view.paddle - before)
        if abs(distance) <= _TOLERANCE:
            return self._fire
        return self._more if distance > 0 else self._less

    def _try(self, state: Any, action: int, paddle: float) -> float:
        """Return the discounted reward of an action in a copy of the emulator, and of following the ball after it."""
        self._copy.restoreState(state)
        lives = self._copy.lives()
        value = 0.0
        for step in range(_TRIAL):
            value += _GAMMA**step * sum(self._copy.act(self._actions[action]) for _ in range(self._frames))
            if self._copy.lives() < lives:
                return value - _LIFE
            view = self._game.view(self._copy.getRAM())
            action = self._follow(view, paddle)
            paddle = view.paddle
        return value


def _view_pong(memory: Array) -> _View:
    paddle = int(memory[51]) + 6
    x = int(memory[49])
    y = int(memory[54])
    speed = -_signed(memory[58])
    if not y or speed <= 0 or x >= 188:
        return _View(paddle, 126, np.inf)  # the middle
    arrives = (188 - x) / speed
    return _View(paddle, _reflected(y + _signed(memory[56]) * arrives, 44, 207), arrives)


def _view_breakout(memory: Array) -> _View:
    paddle = int(memory[72]) + 8
    x = int(memory[99])
    y = int(memory[101])
    # A speed of 2 is one and a half pixels a frame.
    speed, drift = (0.75 * v if abs(v) > 1 else v for v in (_signed(memory[103]), -_signed(memory[105])))
    if not y:
        return _View(paddle, None, np.inf)
    if speed <= 0 or y >= 180:
        return _View(paddle, x, np.inf)
    arrives = (180 - y) / speed
    return _View(paddle, _reflected(x + drift * arrives, 57, 199), arrives)


def _signed(byte: np.uint8) -> int:
    return (int(byte) + 128) % 256 - 128


def _reflected(position: float, low: float, high: float) -> float:
    """Return the place of a ball that would be at ``position`` if two walls did not throw it back."""
    width = high - low
    return low + width - abs((position - low) % (2 * width) - width)


_GAMES = {
    "pong": _Game(_view_pong, "RIGHTFIRE", "LEFTFIRE"),
    "breakout": _Game(_view_breakout, "LEFT", "RIGHT"),
}
