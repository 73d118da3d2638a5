"""News of a session for the pages that show it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

Event: TypeAlias = dict[str, Any]
MAX_PENDING = 256


class EventHub:
    """Gives every event to every listener. One that is too slow gets `refetch` in the place of what it missed.

    `count`: how many there have been. By it a page knows which of two answers is the newer one.
    """

    def __init__(self) -> None:
        self.count = 0
        self._queues: set[asyncio.Queue[Event]] = set()

    @property
    def num_listeners(self) -> int:
        return len(self._queues)

    def publish(self, event: str, **facts: Any) -> None:
        """Tell all listeners; never waits."""
        self.count += 1
        for queue in self._queues:
            if queue.qsize() >= MAX_PENDING:
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait({"event": "refetch"})
            queue.put_nowait({"event": event, **facts})

    @contextmanager
    def listening(self) -> Iterator[asyncio.Queue[Event]]:
        """The events from now on."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)
