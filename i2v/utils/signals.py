"""Being asked to stop from outside: Ctrl-C, and SIGTERM and SIGHUP, which commands treat like it."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# `timeout`, and launchers of several processes, tell a process twice: by itself and as one of its group.
REPEAT_SECONDS = 1.0


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP came: raised where Ctrl-C would have raised KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        """`number`: of the signal."""
        super().__init__(number)
        self.number = number
        self.name = signal.Signals(number).name


def exit_status(stop: KeyboardInterrupt) -> int:
    """What shells report for a process that was ended so: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


class _Raiser:
    """A handler that raises; signals that come less than a second after another one are taken for the same request."""

    def __init__(self) -> None:
        self._last = -math.inf

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last >= REPEAT_SECONDS:
            self._last = now
            raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)


@contextlib.contextmanager
def stop_signals_raised() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Stopped` while the block runs, and Ctrl-C KeyboardInterrupt, as ever.

    Only the main thread can do so; elsewhere nothing is done. Signals that are ignored, as under nohup, or that the
    program handles by itself are left alone.
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
    """Hold signals that would raise back until the block has ended.

    Only the main thread gets them; elsewhere nothing is done. Signals without a handler act at once, as ever.
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
