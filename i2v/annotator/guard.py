"""Access control: only the annotator's own page, on this machine and with the token, gets through."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COMMAND_BYTES = 2 << 20
UPLOAD_BYTES = 256 << 20
_UPLOADS = ("/uploads", "/files")  # ends of the paths that take files
POLICY_VIOLATION = 1008  # a WebSocket close code

_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


class Guard:
    """ASGI middleware that rejects requests from anything but the annotator's page. The token becomes the root path.

    Every address starts with the token. Rejected are a foreign Host (against DNS rebinding), a foreign Origin, a wrong
    token, and bodies that are too large or have no declared length.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        """Wrap an application.

        Args:
            app: The application.
            token: Token that every address starts with.
            port: Port of the server.
        """
        self._app = app
        self._token = token.encode()
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self._origins = {f"http://{host}" for host in self._hosts}
        sockets = " ".join(f"ws://{host}" for host in sorted(self._hosts))
        self._policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
            f"connect-src 'self' {sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            inner = {**scope, "root_path": f"/{_token_of(scope)}"}
            await self._app(inner, receive, self._with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refusal[1]})
        else:
            status, reason = refusal
            # The unread body must not be parsed as the next request.
            headers = {"connection": "close"}
            response = JSONResponse({"error": reason}, status, headers)
            await response(scope, receive, self._with_headers(send))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        if headers.get("host", "") not in self._hosts:
            return 421, "this server answers to 127.0.0.1 and localhost only"
        origin = headers.get("origin")
        needs_origin = scope["type"] == "websocket" or scope.get("method") not in ("GET", "HEAD")
        if (origin is None and needs_origin) or (origin is not None and origin not in self._origins):
            return 403, "only this server's own page may request this"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "only this server's own page may request this"
        if not hmac.compare_digest(_token_of(scope).encode(errors="replace"), self._token):
            return 403, "wrong token: use the address that the command printed"
        if not needs_origin or scope["type"] != "http":
            return None
        return refuse_body(headers, UPLOAD_BYTES if scope["path"].endswith(_UPLOADS) else COMMAND_BYTES)

    def _with_headers(self, send: Send) -> Send:
        return with_safe_headers(send, self._policy)


def _token_of(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix("/").partition("/")[0]


def refuse_body(headers: Headers, limit: int) -> tuple[int, str] | None:
    """Return status and reason for refusing a request by the declared length of its body, ``None`` if it is fine.

    Args:
        headers: The request's headers.
        limit: Most bytes.
    """
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit() and len(length) < 20):
        return 411, "the length of the request is missing"
    if int(length) > limit:
        return 413, f"the request is larger than {describe_bytes(limit)}"
    return None


def describe_bytes(count: int) -> str:
    """Describe a limit, such as ``"2 MiB"``; below a mebibyte in bytes."""
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count:,} bytes"


def with_safe_headers(send: Send, policy: str) -> Send:
    """Return a ``send`` that adds headers for safety to every response.

    Args:
        send: The server's ``send``.
        policy: The content security policy.
    """

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in {**_HEADERS, "content-security-policy": policy}.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return guarded
