"""Access control: every request but those for public pages carries the token, and none is too large."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from i2v.annotator.guard import POLICY_VIOLATION, refuse_body, with_safe_headers

_POLICY = "default-src 'none'; frame-ancestors 'none'"
_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS", "DELETE")


class TokenGuard:
    """ASGI middleware that rejects requests without the token, and bodies that are too large or of unknown length.

    The token is that of ``Authorization: Bearer``, the password of ``Authorization: Basic`` (which is what Label Studio
    can send), or the header ``Token`` (X-AnyLabeling).
    """

    def __init__(self, app: ASGIApp, token: str, public: Collection[str], limit_of: Callable[[str], int]) -> None:
        """Wrap an application.

        Args:
            app: The application.
            token: The token.
            public: Paths that need none.
            limit_of: Returns the most bytes of a body that is sent to a path.
        """
        self._app = app
        self._token = token.encode()
        self._public, self._limit_of = frozenset(public), limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "there are no websockets here"})
            return
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, with_safe_headers(send, _POLICY))
            return
        status, reason = refusal
        # The unread body must not be parsed as the next request.
        headers = {"connection": "close", **({"www-authenticate": "Bearer"} if status == 401 else {})}
        await JSONResponse({"error": reason}, status, headers)(scope, receive, with_safe_headers(send, _POLICY))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        if scope["path"] not in self._public and not self._is_authorized(headers):
            return 401, "expected the service's token: Authorization: Bearer TOKEN"
        has_body = "content-length" in headers or "transfer-encoding" in headers
        if scope["method"] in _WITHOUT_BODY and not has_body:
            return None
        return refuse_body(headers, self._limit_of(scope["path"]))

    def _is_authorized(self, headers: Headers) -> bool:
        given = _token_in(headers.get("authorization", "")) or headers.get("token", "")
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token)


def _token_in(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
