"""The service's own endpoints: sessions over videos, and images."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from i2v.annotator.guard import describe_bytes
from i2v.annotator.wording import for_page
from i2v.errors import USER_ERRORS, shortened
from i2v.serve.endpoint import Endpoint, answer_json
from i2v.serve.masks import describe_mask
from i2v.serve.pictures import decode_picture, read_picture
from i2v.serve.schemas import (
    FrameAnswer,
    ImageRequest,
    MaskAnswer,
    OpenRequest,
    PromptRequest,
    SessionAnswer,
    SessionList,
    StreamLine,
    TrackRequest,
)
from i2v.serve.service import Service
from i2v.serve.sessions import as_lines
from i2v.serve.uploads import open_upload
from i2v.utils.terminal import printable

UPLOADS = "/sessions/upload"
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}$")


async def _list(request: Request, _: None) -> Response:
    sessions = [session.describe() for session in Service.of(request).sessions.all()]
    return answer_json(SessionList(sessions=sessions))


async def _open(request: Request, body: OpenRequest) -> Response:
    service = Service.of(request)
    path = service.folders.find(body.path)
    session = await service.sessions.open(lambda: service.folders.open_video(body.path), path.name)
    return answer_json(session.describe(), 201)


async def _upload(request: Request, _: None) -> Response:
    service = Service.of(request)
    service.sessions.check_room()
    name = shortened(printable(request.query_params.get("name", "")), 80) or "upload"
    suffix = _SUFFIX.search(name)
    folder = TemporaryDirectory(prefix="i2v-serve-")
    path = Path(folder.name) / f"video{suffix[0] if suffix else ''}"
    with contextlib.ExitStack() as undo:
        undo.callback(folder.cleanup)
        try:
            await _receive(request, path, service.limits.upload_bytes)
            session = await service.sessions.open(lambda: open_upload(str(path)), name, folder)
        except USER_ERRORS as error:
            # The client knows the file by another name.
            raise HTTPException(400, for_page(error).replace(f"file:{path}", name).replace(str(path), name)) from error
        undo.pop_all()  # from now on the folder belongs to the session
    return answer_json(session.describe(), 201)


async def _receive(request: Request, path: Path, limit: int) -> None:
    count = 0
    with path.open("wb") as file:
        async for chunk in request.stream():
            count += len(chunk)
            if count > limit:
                raise HTTPException(413, f"the request is larger than {describe_bytes(limit)}")
            await asyncio.to_thread(file.write, chunk)


async def _show(request: Request, _: None) -> Response:
    return answer_json(Service.of(request).sessions.get(request.path_params["session"]).describe())


async def _close(request: Request, _: None) -> Response:
    sessions = Service.of(request).sessions
    await sessions.close(sessions.get(request.path_params["session"]))
    return Response(status_code=204)


async def _prompt(request: Request, body: PromptRequest) -> Response:
    sessions = Service.of(request).sessions
    return answer_json(await sessions.prompt(sessions.get(request.path_params["session"]), body))


async def _remove(request: Request, _: None) -> Response:
    sessions = Service.of(request).sessions
    await sessions.remove(sessions.get(request.path_params["session"]), request.path_params["object"])
    return Response(status_code=204)


async def _track(request: Request, body: TrackRequest) -> Response:
    sessions = Service.of(request).sessions
    frames = await sessions.track(sessions.get(request.path_params["session"]), body)
    return StreamingResponse(as_lines(frames), media_type="application/x-ndjson")


async def _segment(request: Request, body: ImageRequest) -> Response:
    service = Service.of(request)
    if body.image is not None:
        picture = await asyncio.to_thread(decode_picture, body.image)
    else:
        assert body.path is not None
        picture = await asyncio.to_thread(read_picture, service.folders.find(body.path))
    return answer_json(describe_mask(*await service.images.segment(picture, body)))


_VIDEOS, _IMAGES = "videos", "images"
NATIVE = (
    Endpoint("GET", "/sessions", "List the open sessions.", _list, _VIDEOS, SessionList, refusals=()),
    Endpoint(
        "POST",
        "/sessions",
        "Open a video below an allowed folder.",
        _open,
        _VIDEOS,
        SessionAnswer,
        OpenRequest,
        status=201,
        refusals=(400, 403, 404, 429),
    ),
    Endpoint(
        "POST",
        UPLOADS,
        "Open a video that is sent as it is: a video file or an animated image.",
        _upload,
        _VIDEOS,
        SessionAnswer,
        status=201,
        refusals=(400, 429),
        queries=("name",),
        is_upload=True,
    ),
    Endpoint("GET", "/sessions/{session}", "Show a session.", _show, _VIDEOS, SessionAnswer, refusals=(404,)),
    Endpoint("DELETE", "/sessions/{session}", "Close a session.", _close, _VIDEOS, None, status=204, refusals=(404,)),
    Endpoint(
        "POST",
        "/sessions/{session}/prompts",
        "Prompt an object on a frame, and get its mask there.",
        _prompt,
        _VIDEOS,
        FrameAnswer,
        PromptRequest,
        refusals=(400, 404, 429),
    ),
    Endpoint(
        "DELETE",
        "/sessions/{session}/objects/{object:int}",
        "Remove an object.",
        _remove,
        _VIDEOS,
        None,
        status=204,
        refusals=(404,),
    ),
    Endpoint(
        "POST",
        "/sessions/{session}/track",
        "Track objects over a range of frames, and get a line of JSON for each.",
        _track,
        _VIDEOS,
        StreamLine,
        TrackRequest,
        refusals=(400, 404, 409),
        is_stream=True,
    ),
    Endpoint(
        "POST",
        "/images/segment",
        "Segment an object in an image.",
        _segment,
        _IMAGES,
        MaskAnswer,
        ImageRequest,
        refusals=(400, 403, 404),
    ),
)
