"""Running calls in a background thread, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Background:
    """Runs calls one after another in a thread of its own. A context manager.

    If a call raises, later calls are dropped and the error is raised by the next ``put`` or at the end of the block.
    The block waits for all calls, even if it ends with an error or Ctrl-C; a second Ctrl-C drops calls that have not
    started.
    """

    def __init__(self, capacity: int = 8) -> None:
        """Start the thread.

        Args:
            capacity: Most calls that can wait; then ``put`` blocks.

        Raises:
            ValueError: If ``capacity`` is below 1.
        """
        if capacity < 1:
            raise ValueError(f"capacity: expected at least 1, got {capacity}")
        self._capacity = capacity
        self._waiting: deque[Future[None]] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="i2v-background")
        self._failed = False

    def put(self, call: Callable[[], None]) -> None:
        """Schedule a call. Raises the error of an earlier call."""
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
            if error is None:  # otherwise the block's own error came first and says more
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
