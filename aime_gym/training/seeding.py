"""The process's global random numbers, for libraries that know no other ones."""

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
    """In a ``with`` block, the generators of Python, NumPy and PyTorch follow a seed; then they are as before.

    SB3 draws actions and minibatches from them. What others draw inside the block, in :meth:`given_back`, neither
    changes that nor is changed by it.

    :param seed: of the block.
    :param device: where the block's networks are.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed, self._device = seed, device

    def __enter__(self) -> TemporaryGlobalSeed:
        self._of_others = self._states()
        set_random_seed(self._seed, using_cuda=self._device.type == "cuda")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._set(self._of_others)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Whoever draws in here draws as outside of the block."""
        own = self._states()
        self._set(self._of_others)
        try:
            yield
        finally:
            self._of_others = self._states()
            self._set(own)

    def _states(self) -> tuple[Any, ...]:
        accelerator = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        return random.getstate(), np.random.get_state(), torch.get_rng_state(), accelerator  # noqa: NPY002

    def _set(self, states: tuple[Any, ...]) -> None:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        if states[3] is not None:
            torch.cuda.set_rng_state(states[3], self._device)
