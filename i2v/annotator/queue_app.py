"""The HTTP application for a queue of videos: a list of them, and below it the application of each."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from i2v.annotator.app import HANDLERS, STATIC, show_page, video_app
from i2v.annotator.checked_json import CHECKED, validate_json
from i2v.annotator.guard import Guard
from i2v.annotator.sessions import SessionBook
from i2v.annotator.video_queue import VideoQueue
from i2v.errors import USER_ERRORS

_INTERNAL_ERROR = 1011  # a WebSocket close code


@checked_dataclass(frozen=True, config=CHECKED)
class _Mark:
    done: bool


_MARK = TypeAdapter(_Mark)


def make_queue_app(queue: VideoQueue, token: str, port: int) -> ASGIApp:
    """Create the application for a queue, behind its guard. Video n has the addresses below ``videos/n/``.

    Args:
        queue: The videos. They are closed when the application shuts down.
        token: Token that every address starts with.
        port: Port of the server.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await queue.close()

    routes = [
        Route("/", _show_current),
        Route("/queue", _list_videos),
        Route("/queue/{number:int}", _mark_video, methods=["POST"]),
        Route("/videos/{number:int}/", show_page),
        Mount("/videos/{number:int}/static", StaticFiles(directory=STATIC)),
        Mount("/videos/{number:int}", _VideoApps(queue)),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=HANDLERS)
    app.state.queue = queue
    return Guard(app, token, port)


class _VideoApps:
    """ASGI application that hands a request to the application of its video, which is opened for the first one."""

    def __init__(self, queue: VideoQueue) -> None:
        self._queue = queue
        self._apps: dict[int, tuple[SessionBook, ASGIApp]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            app = await self._app_of(scope["path_params"]["number"])
        except (*USER_ERRORS, HTTPException) as error:
            if scope["type"] != "websocket":
                raise  # the page is told
            await receive()
            await send({"type": "websocket.close", "code": _INTERNAL_ERROR, "reason": type(error).__name__})
            return
        await app(scope, receive, send)

    async def _app_of(self, number: int) -> ASGIApp:
        try:
            book = await self._queue.open(number)
        except IndexError as error:
            raise HTTPException(404, str(error)) from error
        known = self._apps.get(number)
        if known is None or known[0] is not book:
            known = self._apps[number] = book, video_app(book)
        return known[1]


async def _show_current(request: Request) -> Response:
    queue: VideoQueue = request.app.state.queue
    return RedirectResponse(f"videos/{queue.current}/?session=1")


async def _list_videos(request: Request) -> Response:
    return JSONResponse(_listing(request.app.state.queue))


async def _mark_video(request: Request) -> Response:
    queue: VideoQueue = request.app.state.queue
    mark: _Mark = validate_json(_MARK, await request.body(), "", "the state of a video")
    try:
        await queue.mark(request.path_params["number"], mark.done)
    except IndexError as error:
        raise HTTPException(404, str(error)) from error
    return JSONResponse(_listing(queue))


def _listing(queue: VideoQueue) -> list[dict[str, Any]]:
    return [{"number": v.number, "name": v.name, "state": queue.state_of(v.number)} for v in queue.videos]
