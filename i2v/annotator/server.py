"""The server: a socket on this machine, an address with a token, a clean shutdown."""

from __future__ import annotations

import contextlib
import errno
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from i2v.annotator.patience import PatientProtocol

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
        return cls(bind(HOST, port, PORT), secrets.token_urlsafe(16))

    @property
    def port(self) -> int:
        port: int = self.socket.getsockname()[1]
        return port

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/{self.token}/"


def bind(host: str, port: int | None, preferred: int) -> socket.socket:
    """Bind a TCP socket.

    Args:
        host: Address to listen on.
        port: The port; by default the preferred one, or any free one if it is taken.
        preferred: The preferred port.

    Raises:
        OSError: If the address or the port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in (preferred, 0) if port is None else (port,):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            return listener
        except OSError as error:
            listener.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise OSError(f"{host} is no address to listen on: {error.strerror}") from error
            if port is not None:
                raise OSError(f"port {port} cannot be used: {error.strerror}; give another --port") from error
    raise OSError("no port is free")


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def make_server(app: ASGIApp, ready: Callable[[], None]) -> uvicorn.Server:
    """Create a server of an application.

    Args:
        app: The application.
        ready: Called once it can be reached.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        http=PatientProtocol,
        ws_max_size=_LARGEST_MESSAGE,
        timeout_graceful_shutdown=3,
    )
    return _Server(config, ready)


def serve(server: uvicorn.Server, listener: socket.socket) -> bool:
    """Serve until Ctrl-C, SIGTERM or SIGHUP. Then sessions are saved and pages notified.

    Args:
        server: The server.
        listener: The bound socket, which is closed at the end.

    Returns:
        Whether the server started.
    """
    with contextlib.suppress(KeyboardInterrupt), listener, _sighup_as_sigterm():
        server.run(sockets=[listener])
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
