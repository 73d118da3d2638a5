"""The server: a socket on this machine, an address with a token, a clean shutdown."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from i2v.annotator.app import make_app
from i2v.annotator.sessions import SessionBook

HOST, PORT = "127.0.0.1", 8765
_LARGEST_MESSAGE = 1 << 16  # bytes; pages only send keep-alive messages


@dataclass(frozen=True)
class Door:
    """A bound socket and the token for access.

    Attributes:
        socket: The socket.
        token: The token.
    """

    socket: socket.socket
    token: str

    @classmethod
    def open(cls, port: int | None) -> Door:
        """Bind a port.

        Args:
            port: The port; by default 8765, or any free one if it is taken.

        Raises:
            OSError: If the port cannot be used.
        """
        for candidate in (PORT, 0) if port is None else (port,):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, candidate))
                return cls(listener, secrets.token_urlsafe(16))
            except OSError as error:
                listener.close()
                if port is not None:
                    raise OSError(f"port {port} cannot be used: {error.strerror}; give another --port") from error
        raise OSError("no port is free")

    @property
    def port(self) -> int:
        port: int = self.socket.getsockname()[1]
        return port

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/{self.token}/"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def make_server(book: SessionBook, door: Door, ready: Callable[[], None], resume: Path | None = None) -> uvicorn.Server:
    """Create the server.

    Args:
        book: The sessions.
        door: The socket and token.
        ready: Called once pages can be opened.
        resume: Session file to resume, if any.
    """
    config = uvicorn.Config(
        make_app(book, door.token, door.port, resume),
        log_config=None,
        access_log=False,
        server_header=False,
        ws_max_size=_LARGEST_MESSAGE,
        timeout_graceful_shutdown=3,
    )
    return _Server(config, ready)


def serve(server: uvicorn.Server, door: Door) -> bool:
    """Serve until Ctrl-C, SIGTERM or SIGHUP. Then sessions are saved and pages notified.

    Returns:
        Whether the server started.
    """
    with contextlib.suppress(KeyboardInterrupt), door.socket, _sighup_as_sigterm():
        server.run(sockets=[door.socket])
    return server.started


@contextlib.contextmanager
def _sighup_as_sigterm() -> Iterator[None]:
    # uvicorn handles the other signals; a SIGHUP handler that raises would interrupt its event loop anywhere.
    if not callable(signal.getsignal(signal.SIGHUP)):
        yield
        return
    before = signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
