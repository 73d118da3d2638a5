"""The open sessions: a limited number, closed when they are idle, all with one thread for the model."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Generator
from tempfile import TemporaryDirectory

from pydantic import BaseModel
from starlette.exceptions import HTTPException

from i2v.annotator.turns import ModelTurns, Urgency
from i2v.annotator.wording import for_page
from i2v.errors import USER_ERRORS
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.serve.limits import Limits
from i2v.serve.schemas import EndAnswer, ErrorAnswer, FrameAnswer, PromptRequest, TrackRequest
from i2v.serve.session import VideoSession
from i2v.video.frame_source import FrameSource

_SHORTEST_WAIT = 0.05  # seconds between looks for idle sessions


class SessionTable:
    """Sessions by name. Runs in the event loop.

    Attributes:
        turns: Access to the model's thread.
    """

    def __init__(self, predictor: I2VVideoPredictor, limits: Limits) -> None:
        """Create without sessions.

        Args:
            predictor: The predictor.
            limits: The service's limits.
        """
        self.turns = ModelTurns()
        self._predictor, self._limits = predictor, limits
        self._sessions: dict[str, VideoSession] = {}
        self._opening = asyncio.Lock()
        self._endings: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start closing idle sessions."""
        self._reaper = asyncio.create_task(self._close_idle())

    def all(self) -> list[VideoSession]:
        """Return the open sessions."""
        return list(self._sessions.values())

    def get(self, name: str) -> VideoSession:
        """Return an open session.

        Raises:
            HTTPException: With status 404 if there is none of this name.
        """
        session = self._sessions.get(name)
        if session is None:
            raise HTTPException(404, "there is no such session: it was closed, or idle for too long")
        session.last_used = time.monotonic()
        return session

    def check_room(self) -> None:
        """Refuse if there are too many sessions, or memory is short.

        Raises:
            HTTPException: With status 429 or 503.
        """
        if len(self._sessions) >= self._limits.sessions:
            raise HTTPException(429, f"all {self._limits.sessions} sessions are in use: close one")
        self._limits.check_memory()

    async def open(
        self, source: Callable[[], FrameSource], video: str, folder: TemporaryDirectory[str] | None = None
    ) -> VideoSession:
        """Open a session.

        Args:
            source: Opens the video.
            video: Name of the video for clients.
            folder: Temporary folder of an upload, which is removed with the session.

        Raises:
            HTTPException: If there is no room.
            OSError: If the video cannot be read.
            ValueError: If it is no video.
        """
        async with self._opening:
            self.check_room()
            opened = await asyncio.to_thread(source)
            session = VideoSession(self._predictor, opened, self._limits, video, folder)
            self._sessions[session.name] = session
        return session

    async def close(self, session: VideoSession) -> None:
        """Close a session. A stream that is tracking it ends with an error."""
        self._sessions.pop(session.name, None)
        await self.turns.run(Urgency.ANSWER, session.close)

    async def close_all(self) -> None:
        """Close all sessions, and end the model's thread."""
        if self._reaper is not None:
            self._reaper.cancel()
            await asyncio.gather(self._reaper, return_exceptions=True)
        for session in self.all():
            await self.close(session)
        await asyncio.gather(*self._endings, return_exceptions=True)
        await asyncio.to_thread(self.turns.close)

    async def prompt(self, session: VideoSession, request: PromptRequest) -> FrameAnswer:
        """Prompt an object, see ``VideoSession.prompt``."""
        return await self.turns.run(Urgency.ANSWER, session.prompt, request)

    async def remove(self, session: VideoSession, number: int) -> None:
        """Remove an object, see ``VideoSession.remove``."""
        await self.turns.run(Urgency.ANSWER, session.remove, number)

    async def track(self, session: VideoSession, request: TrackRequest) -> AsyncGenerator[FrameAnswer, None]:
        """Start to track objects, see ``VideoSession.track``."""
        steps = await self.turns.run(Urgency.ANSWER, session.track, request)
        return self._frames(steps)

    async def _frames(self, steps: Generator[FrameAnswer, None, None]) -> AsyncGenerator[FrameAnswer, None]:
        try:
            while (answer := await self.turns.run(Urgency.TRACK, next, steps, None)) is not None:
                yield answer
        finally:
            # A client that goes away cancels this, so nothing can be awaited here. The step that runs comes first.
            ending = asyncio.ensure_future(self.turns.run(Urgency.ANSWER, steps.close))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)

    async def _close_idle(self) -> None:
        limit = self._limits.idle_seconds
        while True:
            await asyncio.sleep(max(_SHORTEST_WAIT, min(limit / 4, 15.0)))
            for session in self.all():
                # Each tracked frame counts as use, so a stream that nobody reads keeps no session open.
                if time.monotonic() - session.last_used > limit:
                    await self.close(session)


async def as_lines(frames: AsyncGenerator[FrameAnswer, None]) -> AsyncGenerator[bytes, None]:
    """Yield lines of JSON: a ``FrameAnswer`` each, and at last an ``EndAnswer`` or an ``ErrorAnswer``."""
    count = 0
    last: BaseModel
    async with contextlib.aclosing(frames):
        try:
            async for answer in frames:
                count += 1
                yield _line(answer)
            last = EndAnswer(frames=count)
        except HTTPException as error:
            last = ErrorAnswer(error=error.detail)
        except USER_ERRORS as error:
            last = ErrorAnswer(error=for_page(error))
    yield _line(last)


def _line(answer: BaseModel) -> bytes:
    return answer.model_dump_json().encode() + b"\n"
