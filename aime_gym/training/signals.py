"""Ctrl-C and SIGTERM, held back until an update is complete."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class DeferredSignals:
    """Holds signals back in a ``with`` block, until [`raise_pending`][] hands them to the handlers of before.

    A signal that arrived in the middle of an optimizer's step would leave weights that are neither old nor new. A
    second one is handed on at once.

    :param terminations: whether to hold back SIGTERM too.
    """

    def __init__(self, *, terminations: bool) -> None:
        self._signals = (signal.SIGINT, signal.SIGTERM) if terminations else (signal.SIGINT,)
        self._previous: dict[int, Any] = {}
        #: Number of the signal that is held back, or 0.
        self.pending = 0

    def raise_pending(self, number: int = 0) -> None:
        """Hand on a pending signal: Python's own handler of Ctrl-C raises ``KeyboardInterrupt``.

        :param number: signal that another process has received, for one that has none itself.
        """
        number = self.pending or number
        self.pending = 0
        handler = self._previous.get(number)
        if callable(handler):
            handler(number, None)
        elif handler == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        again = self.pending
        self.pending = number
        if again:
            self.raise_pending()

    def __enter__(self) -> DeferredSignals:
        if threading.current_thread() is threading.main_thread():  # Python hands signals to no other
            # None stands for a handler that was not installed from Python, and could not be put back.
            self._previous = {n: old for n in self._signals if (old := signal.getsignal(n)) is not None}
            for number in self._previous:
                signal.signal(number, self._hold)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if kind is None:
            self.raise_pending()
