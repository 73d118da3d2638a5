"""Files that appear whole or not at all, also when the run is interrupted or the disk is full."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

_File = TypeVar("_File", bound="StreamedFile")


def _temporary(path: Path) -> Path:
    # In the same folder, so that os.replace is one step; hidden, so that nobody takes it for a result.
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give the block a temporary path to write, and move it to `path` only if the block succeeds."""
    temporary = _temporary(Path(path))
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended. Only the main thread gets it; elsewhere nothing is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if held:
            signal.raise_signal(signal.SIGINT)


class StreamedFile(ABC):
    """A file that grows frame by frame under a temporary name, and gets its own name when closed.

    Leaving the `with` block keeps the frames written so far, whatever ended it (the end of the video, Ctrl-C,
    an error elsewhere). Where writing itself failed, or no frame was written, no file appears.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.num_frames = 0
        self._temporary = _temporary(self.path)
        self._failed = False
        self._closed = False

    def __enter__(self: _File) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Complete the file and give it its name; once is enough. Raises OSError, as on a full disk."""
        if self._closed:
            return
        self._closed = True
        with self._writing():
            try:
                # After a failed write the disk may still be full: what closing says then is no news.
                with contextlib.suppress(OSError) if self._failed else contextlib.nullcontext():
                    self._finalize()
                if self.num_frames and not self._failed:
                    os.replace(self._temporary, self.path)
            finally:
                self._temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        # An interrupt between making a frame and storing it would leave a gap in the file.
        with interrupts_deferred():
            try:
                yield
            except OSError as error:
                self._failed = True
                # The user knows the final name, not the temporary one.
                raise OSError(error.errno, error.strerror, str(self.path)) from error

    @abstractmethod
    def _finalize(self) -> None:
        """Write what is pending and release the file; called once, also when nothing was written."""
