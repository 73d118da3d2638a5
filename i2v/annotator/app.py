"""The HTTP application of the annotator: routes and handlers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from i2v.annotator.guard import Guard
from i2v.annotator.importer import Target, read_masks
from i2v.annotator.protocol import perform, read_command
from i2v.annotator.session import Session
from i2v.annotator.sessions import SessionBook
from i2v.annotator.views import fill, masks_on, snapshot
from i2v.errors import USER_ERRORS, describe_error

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

    routes = [
        Route("/", _page),
        Mount("/static", StaticFiles(directory=STATIC)),
        Route("/frames/{frame:int}.jpg", _frame),
        Route("/sessions", _list_sessions, methods=["GET"]),
        Route("/sessions", _open_session, methods=["POST"]),
        Route("/sessions/{session:int}", _show_session),
        Route("/sessions/{session:int}/masks", _show_masks),
        Route("/sessions/{session:int}/commands", _command, methods=["POST"]),
        Route("/sessions/{session:int}/import", _import, methods=["POST"]),
        WebSocketRoute("/sessions/{session:int}/events", _events),
    ]
    failed = dict.fromkeys(USER_ERRORS, _failed)
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={**failed, HTTPException: _refused})
    app.state.book = book
    return Guard(app, token, port)


async def _page(_: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-store"})


async def _frame(request: Request) -> Response:
    book: SessionBook = request.app.state.book
    try:
        data = await asyncio.to_thread(book.footage.jpeg, request.path_params["frame"])
    except IndexError as error:
        raise HTTPException(404, str(error)) from error
    return Response(data, media_type="image/jpeg", headers=_FOREVER)


async def _list_sessions(request: Request) -> Response:
    book: SessionBook = request.app.state.book
    facts = [(s.number, len(s.document.objects), s.events.num_listeners) for s in book]
    return JSONResponse([{"session": number, "objects": objects, "tabs": tabs} for number, objects, tabs in facts])


async def _open_session(request: Request) -> Response:
    session = await request.app.state.book.open()
    return JSONResponse({"session": session.number}, 201)


async def _show_session(request: Request) -> Response:
    return JSONResponse(snapshot(_session(request)))


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


async def _command(request: Request) -> Response:
    session = _session(request)
    command = read_command(await request.body())
    return JSONResponse(await perform(command, session, request.app.state.book))


async def _import(request: Request) -> Response:
    session = _session(request)
    name = request.query_params.get("name", "")[:255]
    selected = request.query_params.get("object", "1")
    if not (selected.isascii() and selected.isdigit() and 1 <= int(selected[:4]) <= 255):
        raise HTTPException(400, f"object: expected a number from 1 to 255, got {selected[:20]!r}")
    data = await request.body()
    target = Target(session.size, session.footage.num_available, int(selected))
    masks = await asyncio.to_thread(read_masks, name, data, target)
    await session.bring_in(masks)
    return JSONResponse({"frames": len(set().union(*masks.values()))})


def _session(request: Request) -> Session:
    number = request.path_params["session"]
    try:
        session: Session = request.app.state.book.get(number)
    except KeyError:
        raise HTTPException(404, f"there is no session {number}: open the address again") from None
    return session


async def _failed(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": describe_error(error)}, 400)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _events(socket: WebSocket) -> None:
    """Send a session's events until the page disconnects. Messages from the page are ignored."""
    try:
        session: Session = socket.app.state.book.get(socket.path_params["session"])
    except KeyError:
        await socket.close(1008, "there is no such session")
        return
    await socket.accept()
    with session.events.listening() as queue:
        reader = asyncio.create_task(_until_gone(socket))
        try:
            # Contains the number of events so far, so that a page knows whether it missed any.
            await socket.send_json(fill(session, {"event": "listening"}))
            while not reader.done():
                wanted = asyncio.create_task(queue.get())
                await asyncio.wait({wanted, reader}, return_when=asyncio.FIRST_COMPLETED)
                if not wanted.done():
                    wanted.cancel()
                    break
                await socket.send_json(fill(session, wanted.result()))
        except (WebSocketDisconnect, RuntimeError):
            return  # disconnected while sending
        finally:
            reader.cancel()


async def _until_gone(socket: WebSocket) -> None:
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await socket.receive_text()
