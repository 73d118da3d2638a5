"""The sessions of one server: a limited number, saved as they change, opened again when they are asked for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from i2v.annotator.engine import Engine
from i2v.annotator.footage import Footage
from i2v.annotator.session import Session
from i2v.annotator.session_file import SavedSession, read_session, save_session, session_pieces
from i2v.annotator.turns import ModelTurns
from i2v.annotator.wording import for_page
from i2v.errors import USER_ERRORS
from i2v.i2v_video_predictor import I2VVideoPredictor

log = logging.getLogger(__name__)

MAX_SESSIONS = 8
SAVE_SECONDS = 2.0  # least time between two saves
# Largest fraction of the time to spend on saving, as long sessions take a while.
_SAVE_SHARE = 0.1
_NEWS_SECONDS = 0.2  # between announcements of a camera's frames
_WATCH_SECONDS = 1.0  # between looks whether the video was replaced
_CONNECT_SECONDS = 10.0  # that a page has to connect to the session that it was given


@dataclass(frozen=True)
class About:
    """What pages are told that no session changes.

    Attributes:
        model: Which model runs.
        classes: Classes that are offered for objects.
    """

    model: str = ""
    classes: tuple[str, ...] = ()


class SessionBook:
    """Sessions by number. Session n is saved as ``session.json`` (n = 1) or ``session-n.json`` in the output folder.

    Files of earlier runs are not overwritten: numbers whose files exist are skipped, unless that session is opened.

    Attributes:
        footage: The video.
        out: The output folder.
        about: What pages say of the model and offer as classes.
    """

    def __init__(
        self,
        predictor: I2VVideoPredictor,
        footage: Footage,
        out: Path,
        max_sessions: int = MAX_SESSIONS,
        save_seconds: float = SAVE_SECONDS,
        about: About | None = None,
        turns: ModelTurns | None = None,
    ) -> None:
        """Create a book without sessions.

        Args:
            predictor: The predictor.
            footage: The video.
            out: The output folder.
            max_sessions: Most open sessions; idle ones are closed to make room.
            save_seconds: Least time between two saves of a session.
            about: What pages say of the model and offer as classes.
            turns: Access to the model's thread that books share, which outlives them; by default the book's own.
        """
        self.footage = footage
        self.out = out
        self.about = about or About()
        self._predictor = predictor
        self._turns = turns or ModelTurns()
        self._owns_turns = turns is None
        self._max_sessions, self._save_seconds = max_sessions, save_seconds
        self._sessions: dict[int, Session] = {}
        self._promised: dict[int, float] = {}  # until when a page may connect, by session
        self._evicted: list[int] = []  # the latest last
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

    def is_claimed(self, session: Session) -> bool:
        """Whether a page shows a session, or was given it a moment ago and is about to connect."""
        return bool(session.events.num_listeners) or time.monotonic() < self._promised.get(session.number, 0.0)

    @property
    def is_idle(self) -> bool:
        """Whether no page shows a session, and none is at work."""
        return not any(self.is_claimed(session) or session.work.busy for session in self)

    def connected(self, session: Session) -> None:
        """Note that a page has connected: once it is gone, the session is free again."""
        self._promised.pop(session.number, None)

    async def open(self) -> Session:
        """Open the latest work that no page shows: the resumed session, an open one, or one that was closed to make
        room. Without any, open a new one.

        Raises:
            ValueError: If too many sessions are in use.
        """
        async with self._opening:
            if self._unclaimed is not None:
                number, self._unclaimed = self._unclaimed, None
                return self._promise(self.get(number))
            free = [session for session in self if not self.is_claimed(session)]
            if free:
                return self._promise(self.get(max(free, key=lambda session: session.last_used).number))
            while self._evicted:
                number = self._evicted.pop()
                if self.file_of(number).exists() and number not in self._sessions:
                    return self._promise(await self._open_file(number))
            return self._promise(await self._create(self._free_number()))

    async def open_new(self, saved: SavedSession | None = None) -> Session:
        """Open a new session, empty or with the contents of a session file.

        Raises:
            ValueError: If too many sessions are in use.
        """
        async with self._opening:
            session = self._promise(await self._create(self._free_number()))
        if saved is not None:
            _restore(session, saved)
        return session

    async def open_again(self, number: int) -> Session:
        """Return an open session, or open it from its file.

        Raises:
            KeyError: If there is neither a session nor a file of this number.
            OSError: If the file cannot be read.
            ValueError: If it is malformed or for another video, or too many sessions are in use.
        """
        async with self._opening:
            if number not in self._sessions and not self.file_of(number).exists():
                raise KeyError(number)
            return self._promise(self.get(number) if number in self._sessions else await self._open_file(number))

    async def resume(self, path: Path) -> None:
        """Open a session from its file, for the first page that opens.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is malformed or for another video.
        """
        saved = await asyncio.to_thread(read_session, path, self.footage)
        number = next((n for n in range(1, 1000) if self.file_of(n).resolve() == path.resolve()), self._free_number())
        async with self._opening:
            session = await self._create(number)
            self._unclaimed = number
        _restore(session, saved)

    def saved_numbers(self) -> list[int]:
        """Return the numbers of the session files in the output folder, in ascending order."""
        names = [re.fullmatch(r"session(?:-([1-9]\d{0,5}))?\.json", name) for name in _names_in(self.out)]
        return sorted({int(found[1] or 1) for found in names if found is not None and found[1] != "1"})

    def start(self) -> None:
        """Start saving changes, and announcing new frames and a video that was replaced."""
        chores = (self._save_always(), self._tell_of_frames(), self._watch_video())
        self._chores = [asyncio.create_task(chore) for chore in chores]

    async def save(self, session: Session) -> Path:
        """Save a session now.

        Returns:
            The path of its file.

        Raises:
            OSError: If the file cannot be written.
        """
        saving = session.saving
        saving.check()
        path, num_changes, started = self.file_of(session.number), saving.num_changes, time.monotonic()
        try:
            await asyncio.to_thread(save_session, path, session_pieces(session))
        except USER_ERRORS as error:
            saving.not_before = time.monotonic() + 5 * self._save_seconds
            message = f"the session could not be saved: {for_page(error)}"
            if saving.failed(message):
                log.error("session %d: %s", session.number, message)
            raise
        saving.saved(num_changes, path)
        now = time.monotonic()
        saving.not_before = now + max(self._save_seconds, (now - started) / _SAVE_SHARE)
        return path

    async def save_all(self) -> None:
        """Save all changes now. Raises the errors of ``save``."""
        for session in self:
            if session.saving.is_due:
                await self.save(session)

    def export_folder(self, session: Session) -> Path:
        """Return the folder that a session is exported to."""
        return self.out / ("export" if session.number == 1 else f"export-{session.number}")

    async def close(self) -> None:
        """Save and close all sessions, and end the model's thread if it is the book's own."""
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        for session in self:
            await self._close(session)
        if self._owns_turns:
            await asyncio.to_thread(self._turns.close)

    def _free_number(self) -> int:
        return next(n for n in range(1, 1_000_000) if n not in self._sessions and not self.file_of(n).exists())

    async def _create(self, number: int) -> Session:
        while len(self._sessions) >= self._max_sessions:
            await self._evict()
        source = await asyncio.to_thread(self.footage.open)
        engine = await asyncio.to_thread(Engine, self._predictor, source)
        session = Session(number, self.footage, engine, self._turns)
        self._sessions[number] = session
        return session

    async def _open_file(self, number: int) -> Session:
        saved = await asyncio.to_thread(read_session, self.file_of(number), self.footage)
        session = await self._create(number)
        _restore(session, saved)
        return session

    def _promise(self, session: Session) -> Session:
        self._promised[session.number] = time.monotonic() + _CONNECT_SECONDS
        return session

    async def _evict(self) -> None:
        idle = [s for s in self if not s.events.num_listeners and not s.work.busy and s.number != self._unclaimed]
        if not idle:
            raise ValueError(f"all {len(self._sessions)} sessions are in use: close a tab")
        # One whose page is about to connect comes last.
        victim = min(idle, key=lambda session: (self.is_claimed(session), session.last_used))
        if victim.saving.is_due:
            await self._try_to_save(victim)
        if victim.saving.state.state == "failed":
            raise ValueError(f"session {victim.number} must make room, but {victim.saving.state.message}")
        await self._close(victim)
        self._evicted.append(victim.number)

    async def _close(self, session: Session) -> None:
        await session.work.cancel()
        if session.saving.is_due:
            await self._try_to_save(session)
        await session.close()
        del self._sessions[session.number]

    async def _save_always(self) -> None:
        while True:
            await asyncio.sleep(self._save_seconds / 4)
            for session in self:
                if session.saving.is_due and time.monotonic() >= session.saving.not_before:
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

    async def _watch_video(self) -> None:
        known: str | None = None
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if self.footage.replaced != known:
                known = self.footage.replaced
                for session in self:
                    session.events.publish("video", trouble=known or "")

    async def _try_to_save(self, session: Session) -> None:
        with contextlib.suppress(*USER_ERRORS):  # the pages know, and it is tried again
            await self.save(session)


def _restore(session: Session, saved: SavedSession) -> None:
    async def restore() -> None:
        try:
            await session.restore(saved.document, saved.masks)
        except USER_ERRORS as error:
            # What is in the file must not be replaced by a session without it.
            session.saving.block(f"the session could not be restored, so it is not saved: {for_page(error)}")
            raise

    session.work.start("restore", restore)


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
