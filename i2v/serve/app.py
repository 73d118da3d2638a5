"""The HTTP application of the service: all endpoints, the OpenAPI document, and errors as JSON."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

import i2v
from i2v.annotator.wording import for_page
from i2v.errors import USER_ERRORS
from i2v.serve.cvat import CVAT
from i2v.serve.endpoint import openapi_document
from i2v.serve.guard import TokenGuard
from i2v.serve.label_studio import LABEL_STUDIO
from i2v.serve.labelme import LABELME
from i2v.serve.native import NATIVE, UPLOADS
from i2v.serve.service import Service
from i2v.serve.x_anylabeling import X_ANYLABELING

ENDPOINTS = (*NATIVE, *LABEL_STUDIO, *CVAT, *LABELME, *X_ANYLABELING)
DOCUMENT_PATH = "/openapi.json"


def make_app(service: Service, token: str) -> ASGIApp:
    """Create the application behind its guard.

    Args:
        service: What is served. Its sessions are closed when the application shuts down.
        token: The token.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.sessions.start()
        try:
            yield
        finally:
            await service.sessions.close_all()

    document = openapi_document(ENDPOINTS, i2v.__version__)

    async def show_document(_: Request) -> Response:
        return JSONResponse(document)

    handlers = {**dict.fromkeys(USER_ERRORS, _failed), HTTPException: _refused, ClientDisconnect: _cut_off}
    routes = [Route(DOCUMENT_PATH, show_document), *(endpoint.route() for endpoint in ENDPOINTS)]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    app.router.redirect_slashes = False
    app.state.service = service
    public = [DOCUMENT_PATH, *(endpoint.path for endpoint in ENDPOINTS if endpoint.is_public)]
    limits = service.limits
    return TokenGuard(app, token, public, lambda path: limits.upload_bytes if path == UPLOADS else limits.request_bytes)


async def _failed(_: Request, error: Exception) -> Response:
    # What an adapter makes of a request can be out of bounds, too.
    reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else for_page(error)
    return JSONResponse({"error": reason}, 400)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _cut_off(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it
