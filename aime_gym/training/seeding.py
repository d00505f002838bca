"""Temporary seeds for the process's global generators of random numbers, which some libraries draw from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.utils import set_random_seed


class TemporaryGlobalSeed:
    """Seeds the global generators of Python, NumPy and PyTorch in a ``with`` block, and restores them afterwards.

    SB3 draws actions and minibatches from them. Draws of others inside the block, in [`suspended`][], neither change
    those nor depend on them.

    :param seed: seed of the generators inside the block.
    :param device: device of the block's networks.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed, self._device = seed, device

    def __enter__(self) -> TemporaryGlobalSeed:
        self._outside = self._states()
        self.reseed(self._seed)
        return self

    def reseed(self, seed: int) -> None:
        """Seed the generators inside the block anew."""
        set_random_seed(seed, using_cuda=self._device.type == "cuda")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._set(self._outside)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Draw as outside of the block, in a ``with`` block of its own."""
        inside = self._states()
        self._set(self._outside)
        try:
            yield
        finally:
            self._outside = self._states()
            self._set(inside)

    def _states(self) -> tuple[Any, ...]:
        accelerator = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        return random.getstate(), np.random.get_state(), torch.get_rng_state(), accelerator  # noqa: NPY002

    def _set(self, states: tuple[Any, ...]) -> None:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        if states[3] is not None:
            torch.cuda.set_rng_state(states[3], self._device)
