"""Work done beside the caller's own, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Background:
    """Runs calls one after the other in a thread of its own.

    What a call raises ends the work: calls behind it are dropped, and the error comes out of the next `put`, or where
    the block ends. The block ends once all that was put has been done, also when it is left by an error of its own or
    by Ctrl-C; another Ctrl-C drops what has not begun.
    """

    def __init__(self, capacity: int = 8) -> None:
        """At most `capacity` calls wait; `put` blocks then. ValueError unless that is at least 1."""
        if capacity < 1:
            raise ValueError(f"capacity: got {capacity}, expected at least 1")
        self._capacity = capacity
        self._waiting: deque[Future[None]] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="i2v-background")
        self._failed = False

    def put(self, call: Callable[[], None]) -> None:
        """Have something done; raises what an earlier call raised."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= self._capacity):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._run, call))

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while self._waiting:
                self._waiting.popleft().result()
        except Exception:
            if error is None:  # else the error of the block came first, and tells more
                raise
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def _run(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except BaseException:
            self._failed = True
            raise
