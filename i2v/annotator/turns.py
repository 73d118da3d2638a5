"""One thread uses the model, and the most urgent caller has the next turn."""

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
    """What goes first: answers to a user, then getting a frame ready, then tracking."""

    ANSWER = 0
    PREPARE = 1
    TRACK = 2


class ModelTurns:
    """Runs functions in the one thread that owns the model, one at a time; equals in the order in which they came.

    Tracking takes a turn for every frame, so a click waits for one frame at the most.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="i2v-model")
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()
        self._busy = False

    async def run(self, urgency: Urgency, function: Callable[..., Result], *args: object) -> Result:
        """What the function returns, or raises. A caller that is cancelled leaves a running function to its end."""
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
        """Wait for the function that runs; the others are refused with RuntimeError."""
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
            # Cancelled in the moment the turn was given: the next one must not wait for ever.
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
