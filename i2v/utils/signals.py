"""Stopping commands: Ctrl-C, and SIGTERM and SIGHUP, which commands treat the same way."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# `timeout` and multi-process launchers signal a process twice: directly and through its process group.
REPEAT_SECONDS = 1.0


class Stopped(KeyboardInterrupt):
    """Raised on SIGTERM or SIGHUP, as KeyboardInterrupt is on Ctrl-C.

    Attributes:
        number: Number of the signal.
        name: Name of the signal.
    """

    def __init__(self, number: int) -> None:
        """Create the exception for a signal number."""
        super().__init__(number)
        self.number = number
        self.name = signal.Signals(number).name


def exit_status(stop: KeyboardInterrupt) -> int:
    """Return the exit status that shells report: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


class _Raiser:
    """A signal handler that raises, ignoring repeats within a second."""

    def __init__(self) -> None:
        self._last = -math.inf

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last >= REPEAT_SECONDS:
            self._last = now
            raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)


@contextlib.contextmanager
def stop_signals_raised() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise ``Stopped`` during the block, as Ctrl-C raises KeyboardInterrupt.

    No effect outside the main thread. Ignored signals (as under nohup) and those with a handler of the program's own
    are left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    defaults = (signal.SIG_DFL, signal.default_int_handler)
    raiser = _Raiser()
    previous = {n: signal.signal(n, raiser) for n in STOP_SIGNALS if signal.getsignal(n) in defaults}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Defer signals with a handler until the block has ended.

    No effect outside the main thread. Signals without a handler act immediately, as usual.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    handled = [number for number in STOP_SIGNALS if callable(signal.getsignal(number))]
    previous = {number: signal.signal(number, lambda number, _: held.append(number)) for number in handled}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])
