"""A time limit for requests to arrive: half of one must not keep a connection open for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 20.0  # that the sender of a part of a request may be silent


class PatientProtocol(H11Protocol):
    """HTTP that closes a connection whose request stays incomplete, without another byte for ``REQUEST_SECONDS``."""

    _limit: asyncio.TimerHandle | None = None
    _upgraded = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for a request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request, and wait for the rest if there is more to come."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Stop waiting: sockets stay open."""
        self._upgraded = True
        super().handle_websocket_upgrade(event)

    def _wait(self) -> None:
        self._stop()
        if (
            not self._upgraded
            and self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
            and not self.transport.is_closing()
        ):
            self._limit = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
