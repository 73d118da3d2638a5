"""Access to the model: a single thread, and the most urgent request goes first."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from typing import TypeVar

Result = TypeVar("Result")


class Urgency(IntEnum):
    """Priority of a request: answers to the user, then preparing a frame, then tracking."""

    ANSWER = 0
    PREPARE = 1
    TRACK = 2


class ModelTurns:
    """Runs functions one at a time in the thread that owns the model, by urgency, then by order of arrival.

    Tracking makes one request per frame, so a click waits for at most one frame.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="i2v-model")
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()
        self._busy = False

    async def run(self, urgency: Urgency, function: Callable[..., Result], *args: object) -> Result:
        """Run a function in the model's thread. If the caller is cancelled, a running function still completes.

        Args:
            urgency: Priority of the request.
            function: The function.
            *args: Its arguments.

        Returns:
            The function's result. Its errors are raised here.

        Raises:
            RuntimeError: If the thread is closed.
        """
        await self._turn(urgency)
        loop = asyncio.get_running_loop()
        try:
            job = self._thread.submit(function, *args)
        except RuntimeError:  # shut down
            self._pass_on()
            raise
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._pass_on))
        return await asyncio.wrap_future(job)

    def close(self) -> None:
        """Wait for the running function; others fail with a RuntimeError."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _turn(self, urgency: Urgency) -> None:
        if not self._busy:
            self._busy = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency, next(self._arrivals), turn))
        try:
            await turn
        except asyncio.CancelledError:
            # Cancelled just as the turn was granted: pass it on, or the next request waits forever.
            if turn.done() and not turn.cancelled():
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False
