"""The sessions of one server: a limited number, saved as they change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from i2v.annotator.engine import Engine
from i2v.annotator.exporter import Export, Format
from i2v.annotator.footage import Footage
from i2v.annotator.session import Session
from i2v.annotator.session_file import read_session, save_session, session_pieces
from i2v.annotator.turns import ModelTurns
from i2v.i2v_video_predictor import I2VVideoPredictor

log = logging.getLogger(__name__)

MAX_SESSIONS = 8
SAVE_SECONDS = 2.0  # least time between two saves
# Largest fraction of the time to spend on saving, as long sessions take a while.
_SAVE_SHARE = 0.1
_NEWS_SECONDS = 0.2  # between announcements of a camera's frames


@dataclass
class _Saving:
    # Changes saved so far, time of the next try, and the last error.
    num_changes: int = 0
    not_before: float = 0.0
    trouble: str | None = None


class SessionBook:
    """Sessions by number. Session n is saved as ``session.json`` (n = 1) or ``session-n.json`` in the output folder.

    Files of earlier runs are not overwritten: numbers whose files exist are skipped, unless the session is resumed.

    Attributes:
        footage: The video.
        out: The output folder.
    """

    def __init__(
        self,
        predictor: I2VVideoPredictor,
        footage: Footage,
        out: Path,
        max_sessions: int = MAX_SESSIONS,
        save_seconds: float = SAVE_SECONDS,
    ) -> None:
        """Create a book without sessions.

        Args:
            predictor: The predictor.
            footage: The video.
            out: The output folder.
            max_sessions: Most open sessions; idle ones are closed to make room.
            save_seconds: Least time between two saves of a session.
        """
        self.footage = footage
        self.out = out
        self._predictor = predictor
        self._turns = ModelTurns()
        self._max_sessions, self._save_seconds = max_sessions, save_seconds
        self._sessions: dict[int, Session] = {}
        self._savings: dict[int, _Saving] = {}
        self._unclaimed: int | None = None
        self._opening = asyncio.Lock()
        self._chores: list[asyncio.Task[None]] = []

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def file_of(self, number: int) -> Path:
        """Return the path where a session is saved."""
        return self.out / ("session.json" if number == 1 else f"session-{number}.json")

    def get(self, number: int) -> Session:
        """Return an open session.

        Raises:
            KeyError: If there is no open session with this number.
        """
        session = self._sessions[number]
        session.last_used = time.monotonic()
        return session

    async def open(self) -> Session:
        """Open a new session. The first caller gets the resumed one, if any.

        Raises:
            ValueError: If too many sessions are in use.
        """
        async with self._opening:
            if self._unclaimed is not None:
                number, self._unclaimed = self._unclaimed, None
                return self.get(number)
            return await self._create(self._free_number())

    async def resume(self, path: Path) -> None:
        """Open a session from its file, for the first page that opens.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is malformed or for another video.
        """
        saved = read_session(path, self.footage)
        number = next((n for n in range(1, 1000) if self.file_of(n).resolve() == path.resolve()), self._free_number())
        async with self._opening:
            session = await self._create(number)
            self._unclaimed = number
        session.work.start("restore", lambda: session.restore(saved.document, saved.masks, saved.hidden))

    def start(self) -> None:
        """Start saving changes and announcing new frames."""
        self._chores = [asyncio.create_task(self._save_always()), asyncio.create_task(self._tell_of_frames())]

    async def save(self, session: Session) -> Path:
        """Save a session now.

        Returns:
            The path of its file.

        Raises:
            OSError: If the file cannot be written.
        """
        saving = self._savings[session.number]
        path, num_changes, started = self.file_of(session.number), session.num_changes, time.monotonic()
        await asyncio.to_thread(save_session, path, session_pieces(session))
        saving.num_changes, saving.trouble = num_changes, None
        now = time.monotonic()
        saving.not_before = now + max(self._save_seconds, (now - started) / _SAVE_SHARE)
        session.events.publish("saved", path=str(path))
        return path

    def export(self, session: Session, formats: list[Format]) -> None:
        """Start exporting a session's masks to the output folder.

        Args:
            session: The session.
            formats: Formats to write.

        Raises:
            ValueError: If there is no mask or no format.
            RuntimeError: If another job is running.
        """
        folder = self.out / ("export" if session.number == 1 else f"export-{session.number}")
        export = Export(session, folder, formats)
        session.work.start("export", lambda: self._export(session, export), len(export.frames))

    async def close(self) -> None:
        """Save and close all sessions, and end the model's thread."""
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        for session in self:
            await self._close(session)
        await asyncio.to_thread(self._turns.close)

    def _free_number(self) -> int:
        return next(n for n in range(1, 1_000_000) if n not in self._sessions and not self.file_of(n).exists())

    async def _create(self, number: int) -> Session:
        while len(self._sessions) >= self._max_sessions:
            await self._evict()
        source = await asyncio.to_thread(self.footage.open)
        engine = await asyncio.to_thread(Engine, self._predictor, source)
        session = Session(number, self.footage, engine, self._turns)
        self._sessions[number], self._savings[number] = session, _Saving()
        return session

    async def _evict(self) -> None:
        idle = [s for s in self if not s.events.num_listeners and not s.work.busy and s.number != self._unclaimed]
        if not idle:
            raise ValueError(f"all {len(self._sessions)} sessions are in use: close a tab")
        await self._close(min(idle, key=lambda session: session.last_used))

    async def _close(self, session: Session) -> None:
        await session.work.cancel()
        if session.num_changes > self._savings[session.number].num_changes:
            await self._try_to_save(session)
        await session.close()
        del self._sessions[session.number], self._savings[session.number]

    async def _export(self, session: Session, export: Export) -> None:
        steps = export.steps()
        loop = asyncio.get_running_loop()
        # A single thread, so that closing waits for the frame being written.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="i2v-export") as thread:
            try:
                while (done := await loop.run_in_executor(thread, next, steps, None)) is not None:
                    session.work.advance(done)
            finally:
                await loop.run_in_executor(thread, steps.close)
        session.events.publish("exported", folder=str(export.folder), names=export.names())

    async def _save_always(self) -> None:
        while True:
            await asyncio.sleep(self._save_seconds / 4)
            for session in self:
                saving = self._savings.get(session.number)
                due = saving is not None and session.num_changes > saving.num_changes
                if saving is not None and due and time.monotonic() >= saving.not_before:
                    await self._try_to_save(session)

    async def _tell_of_frames(self) -> None:
        known = self.footage.num_available
        while self.footage.live or known != self.footage.num_available:
            await asyncio.sleep(_NEWS_SECONDS)
            known, live = self.footage.num_available, self.footage.live
            for session in self:
                session.events.publish("frames", count=known, live=live)
                if not live and self.footage.trouble:
                    session.events.publish("error", message=self.footage.trouble)

    async def _try_to_save(self, session: Session) -> None:
        try:
            await self.save(session)
        except OSError as error:
            # Keep trying, but report the same error only once.
            saving = self._savings[session.number]
            message = f"the session could not be saved: {error}"
            saving.not_before = time.monotonic() + 5 * self._save_seconds
            if saving.trouble != message:
                saving.trouble = message
                log.error("session %d: %s", session.number, message)
                session.events.publish("error", message=message)
