"""A client of the annotator's server: a page's requests, without a browser."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import httpx
from annotator_support import FIRST, Running
from websockets.sync.client import connect

CLICK = {"do": "click", "object": None, "frame": 0, "x": FIRST.x, "y": FIRST.y, "positive": True}


class Client:
    """A page's requests, with what a browser adds to them."""

    def __init__(self, server: Running) -> None:
        self.origin = f"http://127.0.0.1:{server.port}"
        self.http = httpx.Client(base_url=server.address, headers={"origin": self.origin}, timeout=30)
        self.sockets = server.address.replace("http:", "ws:")

    def session(self) -> int:
        answer = self.http.post("sessions")
        assert answer.status_code == 201
        return answer.json()["session"]

    def command(self, session: int, **command: Any) -> httpx.Response:
        return self.http.post(f"sessions/{session}/commands", json=command)

    def snapshot(self, session: int) -> dict[str, Any]:
        return self.http.get(f"sessions/{session}").json()

    def idle(self, session: int) -> None:
        deadline = time.monotonic() + 30
        while self.snapshot(session)["progress"] is not None:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def events(self, session: int) -> Any:
        return connect(f"{self.sockets}sessions/{session}/events", origin=self.origin)


def next_event(events: Any, kind: str) -> dict[str, Any]:
    """The next event of a kind."""
    while True:
        event: dict[str, Any] = json.loads(events.recv(timeout=20))
        if event["event"] == kind:
            return event


def raw(server: Running, head: str, body: bytes = b"") -> tuple[int, str]:
    """Send bytes as they are; returns status and body."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        received = b""
        while part := connection.recv(65536):
            received += part
    status, _, rest = received.decode(errors="replace").partition("\r\n")
    return int(status.split()[1]), rest.partition("\r\n\r\n")[2]
