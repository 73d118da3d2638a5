"""Several videos to annotate one after another, with one model: which are new, in work and done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from i2v.annotator.checked_json import CHECKED, validate_json
from i2v.annotator.footage import VideoFootage
from i2v.annotator.sessions import About, SessionBook
from i2v.annotator.turns import ModelTurns
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.results.streamed_json import compact_json
from i2v.utils.files import replacing
from i2v.utils.input_file import read_input
from i2v.utils.output_folder import child, own_folder

State: TypeAlias = Literal["new", "in work", "done"]
QUEUE_NAME = "queue.json"
MAX_OPEN = 4
_FORMAT = "i2v-queue"
_MAX_BYTES = 16 << 20


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _QueueEntry:
    format: Literal["i2v-queue"]
    version: Literal[1]
    done: Annotated[list[str], Field(fail_fast=True)]


_FILE = TypeAdapter(_QueueEntry)


@dataclass(frozen=True)
class QueueState:
    """The file of a queue that says which videos are done: ``queue.json`` in the output folder.

    Attributes:
        out: The output folder.
    """

    out: Path

    def read(self) -> frozenset[str]:
        """Return the names of the videos that are done.

        Raises:
            OSError: If the file cannot be read.
            InvalidFileError: If it is malformed.
        """
        path = self.out / QUEUE_NAME
        if not path.exists():
            return frozenset()
        return frozenset(validate_json(_FILE, read_input(path, _MAX_BYTES), str(path), "the state of a queue").done)

    def write(self, done: frozenset[str]) -> None:
        """Write the names of the videos that are done, atomically. Raises an OSError if that is not possible."""
        own_folder(self.out)
        with replacing(self.out / QUEUE_NAME) as temporary:
            content = {"format": _FORMAT, "version": 1, "done": sorted(done)}
            temporary.write_text(compact_json(content) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class QueuedVideo:
    """A video of a queue.

    Attributes:
        number: Its place in the queue, from 1.
        path: Path of the video.
        out: Folder of its sessions and exports.
    """

    number: int
    path: Path
    out: Path

    @property
    def name(self) -> str:
        return self.path.name


class VideoQueue:
    """Videos in order, each with a ``SessionBook`` and an output folder of its own, named like the video.

    What is done is kept in ``queue.json`` in the output folder, and written at once. A video is in work as soon as it
    has a session file, so this needs no file of its own. Session 1 of a video goes on with its file when the video is
    opened. Few videos are open at a time; idle ones are saved and closed to make room.

    Attributes:
        out: The output folder.
        videos: The videos.
    """

    def __init__(
        self,
        predictor: I2VVideoPredictor,
        videos: Sequence[Path],
        out: Path,
        about: About | None = None,
        max_open: int = MAX_OPEN,
    ) -> None:
        """Read what is done. No video is opened.

        Args:
            predictor: The predictor, for all videos.
            videos: Paths of the videos, whose names differ.
            out: The output folder.
            about: What pages say of the model and offer as classes.
            max_open: Most videos that are open at a time.

        Raises:
            OSError: If ``queue.json`` cannot be read.
            InvalidFileError: If it is malformed.
            ValueError: If a link is in the place of a video's output folder.
        """
        self.out = out
        self.videos = tuple(QueuedVideo(n, path, child(out, path.name)) for n, path in enumerate(videos, start=1))
        self._predictor, self._about, self._max_open = predictor, about, max_open
        self._turns = ModelTurns()
        self._books: dict[int, SessionBook] = {}  # of open videos, the latest used last
        self._changing = asyncio.Lock()
        self._state = QueueState(out)
        self._done = self._state.read()

    def __iter__(self) -> Iterator[SessionBook]:
        """Iterate over the books of the open videos."""
        return iter(list(self._books.values()))

    def video(self, number: int) -> QueuedVideo:
        """Return a video.

        Raises:
            IndexError: If there is none of this number.
        """
        if not 1 <= number <= len(self.videos):
            raise IndexError(f"there is no video {number}: the queue has {len(self.videos)}")
        return self.videos[number - 1]

    def state_of(self, number: int) -> State:
        """Return the state of a video: done if it was marked so, else in work if it has a session file, else new."""
        video = self.video(number)
        if video.name in self._done:
            return "done"
        return "in work" if any(video.out.glob("session*.json")) else "new"

    @property
    def current(self) -> int:
        """Number of the video to go on with: the first in work, else the first new one, else the first."""
        states = [self.state_of(video.number) for video in self.videos]
        return next((states.index(state) + 1 for state in ("in work", "new") if state in states), 1)

    async def mark(self, number: int, done: bool) -> None:
        """Mark a video as done, or take that back. Written to ``queue.json`` before this returns.

        Raises:
            IndexError: If there is no such video.
            OSError: If the file cannot be written. The state stays as it was.
        """
        name = self.video(number).name
        async with self._changing:
            changed = self._done | {name} if done else self._done - {name}
            await asyncio.to_thread(self._state.write, changed)
            self._done = changed

    async def open(self, number: int) -> SessionBook:
        """Return the sessions of a video. It is opened if it is not, and its session 1 with it.

        Raises:
            IndexError: If there is no such video.
            OSError: If the video or its session file cannot be read.
            ValueError: If one of them is malformed, or too many videos are in use.
        """
        video = self.video(number)
        if number not in self._books:
            async with self._changing:
                if number not in self._books:
                    await self._make_room()
                    self._books[number] = await self._open(video)
        book = self._books[number] = self._books.pop(number)
        return book

    async def close(self) -> None:
        """Save and close all sessions, and end the model's thread."""
        async with self._changing:
            for number in list(self._books):
                await self._close(number)
        await asyncio.to_thread(self._turns.close)

    async def _open(self, video: QueuedVideo) -> SessionBook:
        footage = await asyncio.to_thread(VideoFootage, video.path)
        book = SessionBook(self._predictor, footage, video.out, about=self._about, turns=self._turns)
        try:
            if book.file_of(1).exists():
                await book.resume(book.file_of(1))
            else:
                await book.open_new()
        except BaseException:
            await book.close()
            footage.close()
            raise
        book.start()
        return book

    async def _make_room(self) -> None:
        while len(self._books) >= self._max_open:
            idle = [number for number, book in self._books.items() if book.is_idle]
            if not idle:
                raise ValueError(f"all {len(self._books)} open videos are in use: close a tab")
            await self._books[idle[0]].save_all()
            await self._close(idle[0])

    async def _close(self, number: int) -> None:
        book = self._books.pop(number)
        await book.close()
        book.footage.close()
