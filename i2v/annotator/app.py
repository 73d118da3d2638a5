"""The HTTP application of the annotator: routes and handlers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Lifespan
from starlette.websockets import WebSocket, WebSocketDisconnect

from i2v.annotator.commands import read_command
from i2v.annotator.guard import Guard
from i2v.annotator.protocol import perform
from i2v.annotator.session import Session
from i2v.annotator.session_file import parse_session
from i2v.annotator.session_list import listing, picture_of
from i2v.annotator.sessions import SessionBook
from i2v.annotator.views import fill, masks_on, polygons_on, snapshot
from i2v.annotator.wording import for_page
from i2v.errors import USER_ERRORS

STATIC = Path(str(files("i2v.annotator").joinpath("static")))
MAX_MASKS = 64  # frames in one answer
_FOREVER = {"cache-control": "private, max-age=31536000, immutable"}


def make_app(book: SessionBook, token: str, port: int, resume: Path | None = None) -> ASGIApp:
    """Create the application for one video, behind its guard.

    Args:
        book: The sessions. They are closed when the application shuts down.
        token: Token that every address starts with.
        port: Port of the server.
        resume: Session file to resume, if any.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if resume is not None:
            await book.resume(resume)
        book.start()
        try:
            yield
        finally:
            await book.close()

    return Guard(video_app(book, lifespan), token, port)


def video_app(book: SessionBook, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """Create the application for one video, without a guard.

    Args:
        book: The sessions.
        lifespan: What happens when the application starts and shuts down.
    """
    routes = [
        Route("/", show_page),
        Mount("/static", StaticFiles(directory=STATIC)),
        Route("/frames/{frame:int}.jpg", _frame),
        Route("/sessions", _list_sessions, methods=["GET"]),
        Route("/sessions", _open_session, methods=["POST"]),
        Route("/sessions/files", _open_file, methods=["POST"]),
        Route("/sessions/{session:int}", _show_session),
        Route("/sessions/{session:int}/masks", _show_masks),
        Route("/sessions/{session:int}/polygons", _show_polygons),
        Route("/sessions/{session:int}/commands", _command, methods=["POST"]),
        Route("/sessions/{session:int}/uploads", _upload, methods=["POST"]),
        Route("/sessions/{session:int}/picture.jpg", _picture),
        WebSocketRoute("/sessions/{session:int}/events", _events),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=HANDLERS)
    app.state.book = book
    return app


async def show_page(_: Request) -> Response:
    """Answer with the page, which finds out by itself what it is the page of."""
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-store"})


async def _frame(request: Request) -> Response:
    book: SessionBook = request.app.state.book
    try:
        data = await asyncio.to_thread(book.footage.jpeg, request.path_params["frame"])
    except IndexError as error:
        raise HTTPException(404, str(error)) from error
    return Response(data, media_type="image/jpeg", headers=_FOREVER)


async def _list_sessions(request: Request) -> Response:
    return JSONResponse(await asyncio.to_thread(listing, request.app.state.book))


async def _open_session(request: Request) -> Response:
    """Open the session of a ``number``, a ``new`` one, or the latest work that no page shows."""
    book: SessionBook = request.app.state.book
    asked = request.query_params.get("number")
    if asked is not None:
        if not (asked.isascii() and asked.isdigit() and len(asked) < 7):
            raise HTTPException(400, f"number: expected that of a session, got {asked[:20]!r}")
        try:
            session = await book.open_again(int(asked))
        except KeyError:
            raise HTTPException(404, f"there is no session {int(asked)}, and no file of it") from None
    else:
        session = await (book.open_new() if "new" in request.query_params else book.open())
    return JSONResponse({"session": session.number}, 201)


async def _open_file(request: Request) -> Response:
    """Open a new session with the contents of a session file."""
    book: SessionBook = request.app.state.book
    name = request.query_params.get("name", "")[:255] or "this file"
    data = await request.body()
    session = await book.open_new(await asyncio.to_thread(parse_session, data, name, book.footage))
    return JSONResponse({"session": session.number}, 201)


async def _picture(request: Request) -> Response:
    book: SessionBook = request.app.state.book
    try:
        data = await asyncio.to_thread(picture_of, book, request.path_params["session"])
    except (KeyError, IndexError):
        raise HTTPException(404, "there is no picture of this session") from None
    return Response(data, media_type="image/jpeg")


async def _show_session(request: Request) -> Response:
    return JSONResponse({**snapshot(_session(request)), **asdict(request.app.state.book.about)})


async def _show_masks(request: Request) -> Response:
    session = _session(request)
    try:
        first = int(request.query_params["first"])
        last = int(request.query_params.get("last", first))
    except (KeyError, ValueError):
        raise HTTPException(400, "masks: expected the numbers of the first and the last frame") from None
    if not 0 <= first <= last < first + MAX_MASKS:
        raise HTTPException(400, f"masks: expected from 1 to {MAX_MASKS} frames in order, got {first} to {last}")
    last = min(last, session.footage.num_available - 1)
    return JSONResponse([masks_on(session, frame) for frame in range(first, last + 1)])


async def _show_polygons(request: Request) -> Response:
    session = _session(request)
    try:
        number, frame = (int(request.query_params[key]) for key in ("object", "frame"))
    except (KeyError, ValueError):
        raise HTTPException(400, "polygons: expected the numbers of an object and a frame") from None
    return JSONResponse(await asyncio.to_thread(polygons_on, session, number, frame))


async def _command(request: Request) -> Response:
    session = _session(request)
    command = read_command(await request.body())
    reply = await perform(command, session, request.app.state.book)
    # A page learns what the command did from events, perhaps later: this says which ones.
    return JSONResponse(reply, headers={"x-i2v-news": str(session.events.count)})


async def _upload(request: Request) -> Response:
    """Keep a file of an import; the command "import" reads all files of its batch."""
    session = _session(request)
    batch, name = (request.query_params.get(key, "")[:255] for key in ("batch", "name"))
    await asyncio.to_thread(session.uploads.add, batch, name, await request.body())
    return JSONResponse({})


def _session(request: Request) -> Session:
    number = request.path_params["session"]
    try:
        session: Session = request.app.state.book.get(number)
    except KeyError:
        raise HTTPException(404, f"session {number} is not open") from None
    return session


async def _failed(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": for_page(error)}, 400)


async def _cut_off(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


HANDLERS: dict[Any, Any] = {
    **dict.fromkeys(USER_ERRORS, _failed),
    HTTPException: _refused,
    ClientDisconnect: _cut_off,
}
"""What applications answer to errors."""


async def _events(socket: WebSocket) -> None:
    """Send a session's events until the page disconnects. Messages from the page are ignored."""
    book: SessionBook = socket.app.state.book
    try:
        session = book.get(socket.path_params["session"])
    except KeyError:
        await socket.close(1008, "there is no such session")
        return
    await socket.accept()
    with session.events.listening() as queue:
        book.connected(session)
        reader = asyncio.create_task(_until_gone(socket))
        try:
            # Contains the number of events so far, so that a page knows whether it missed any.
            await socket.send_json(fill(session, {"event": "listening"}))
            while not reader.done():
                next_event = asyncio.create_task(queue.get())
                await asyncio.wait({next_event, reader}, return_when=asyncio.FIRST_COMPLETED)
                if not next_event.done():
                    next_event.cancel()
                    break
                await socket.send_json(fill(session, next_event.result()))
        except (WebSocketDisconnect, RuntimeError):
            return  # disconnected while sending
        finally:
            reader.cancel()


async def _until_gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
