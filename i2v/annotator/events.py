"""Events of a session for the pages that show it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

Event: TypeAlias = dict[str, Any]
MAX_PENDING = 256


class EventHub:
    """Sends every event to every listener. A listener that is too slow gets ``refetch`` instead of what it missed.

    Attributes:
        count: Number of events so far. It tells a page which of two responses is newer.
        epoch: A text that differs after a session was closed and opened again, when the count starts anew.
    """

    def __init__(self) -> None:
        self.count = 0
        self.epoch = secrets.token_hex(8)
        self._queues: set[asyncio.Queue[Event]] = set()

    @property
    def num_listeners(self) -> int:
        return len(self._queues)

    def publish(self, event: str, **facts: Any) -> None:
        """Send an event to all listeners, without waiting."""
        self.count += 1
        for queue in self._queues:
            if queue.qsize() >= MAX_PENDING:
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait({"event": "refetch"})
            queue.put_nowait({"event": event, **facts})

    @contextmanager
    def listening(self) -> Iterator[asyncio.Queue[Event]]:
        """Subscribe to the events from now on.

        Yields:
            The queue of events.
        """
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)
