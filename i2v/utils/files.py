"""Files and folders that appear whole or not at all, also when the run is interrupted or the disk is full."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from i2v.utils.signals import interrupts_deferred
from i2v.utils.temporary import Temporary, remove_leftovers

_File = TypeVar("_File", bound="StreamedFile")

NO_ROOM = {errno.ENOSPC: "the disk is full: ", errno.EDQUOT: "the disk quota is used up: ", errno.EFBIG: ""}
"""Numbers of the errors of which DiskFullError is about, and what is said of them before the system's own words."""


class DiskFullError(OSError):
    """A file could not be written for want of room: on the disk, in a quota, or for so large a file.

    `kept`: what of the work is safe nevertheless, for the message, where somebody has said so.
    """

    kept = ""

    def __str__(self) -> str:
        text = NO_ROOM.get(self.errno or 0, "") + super().__str__()
        return f"{text}; {self.kept}" if self.kept else text


@contextlib.contextmanager
def replacing(path: str | Path, one_of_many: bool = False) -> Iterator[Path]:
    """Give the block a temporary path to write, and move it to `path` only if the block succeeds.

    What processes that are gone have left in the folder is removed first, but not with `one_of_many`: for files of
    which so many go to a folder that whoever begins it should do that once, by `remove_leftovers`. Raises OSErrors
    about the temporary path as errors about `path`, and DiskFullError.
    """
    if not one_of_many:
        remove_leftovers(Path(path).parent)
    with _taking_the_place_of(Path(path), Temporary.make_file) as temporary:
        yield temporary


@contextlib.contextmanager
def replacing_folder(path: str | Path, one_of_many: bool = False) -> Iterator[Path]:
    """As `replacing`, for a folder that the block fills; folders above it are made.

    A folder that has the name already is replaced as a whole; FileExistsError for a file or a link of that name.
    """
    if not one_of_many:
        remove_leftovers(Path(path).parent)
    with _taking_the_place_of(Path(path), Temporary.make_folder) as temporary:
        yield temporary


@contextlib.contextmanager
def naming_full_disk(path: str | Path) -> Iterator[None]:
    """Raise DiskFullError about a file that the block writes, where the system only says that there is no room."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM or isinstance(error, DiskFullError):
            raise
        raise _about(Path(path), error) from error


@contextlib.contextmanager
def _taking_the_place_of(target: Path, make: Callable[[Temporary], None]) -> Iterator[Path]:
    temporary = Temporary(target)
    try:
        make(temporary)
        yield temporary.path
        temporary.keep()
    except OSError as error:
        if error.filename is not None:
            path = Path(os.fsdecode(error.filename))
            if not path.is_relative_to(temporary.path):
                raise
            target /= path.relative_to(temporary.path)
        elif error.errno not in NO_ROOM:
            raise  # perhaps about a file that the block reads; but no reading fills a disk
        raise _about(target, error) from error
    finally:
        temporary.discard()


def _about(target: Path, error: OSError) -> OSError:
    """The same error with the final name, as the user does not know the temporary one."""
    kind = DiskFullError if error.errno in NO_ROOM else OSError
    return kind(error.errno, error.strerror, str(target))


class StreamedFile(ABC):
    """A file that grows frame by frame under a temporary name, and gets its own name when closed.

    Leaving the `with` block keeps the frames written so far, whatever ended it (the end of the video, Ctrl-C,
    an error elsewhere). Where writing itself failed, frames before it are kept if the format allows it. Where no
    frame was written, no file appears.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.num_frames = 0
        self.is_kept = False
        """Whether the file was closed and is there."""
        self._temporary = Temporary(self.path)
        self._failed = False
        self._closed = False

    def __enter__(self: _File) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Complete the file and give it its name; once is enough. Raises OSError, DiskFullError on a full disk."""
        if self._closed:
            return
        self._closed = True
        with interrupts_deferred():
            try:
                # After a failed write the disk may still be full: what closing says then is no news.
                with contextlib.suppress(OSError) if self._failed else contextlib.nullcontext():
                    self._finalize()
                if self.num_frames and not self._failed:
                    self._temporary.keep()
                    self.is_kept = True
            except OSError as error:
                raise _about(self.path, error) from error
            finally:
                self._temporary.discard()

    def discard(self) -> None:
        """Give the file up, unless it has its name already; raises no OSError."""
        self._failed = True
        self.close()

    def _make(self) -> Path:
        """Make the file, empty; returns its temporary path."""
        remove_leftovers(self.path.parent)
        self._temporary.make_file()
        return self._temporary.path

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        # An interrupt between making a frame and storing it would leave a gap in the file.
        with interrupts_deferred():
            try:
                yield
            except OSError as error:
                self._failed = not self._undo_write()
                raise _about(self.path, error) from error

    def _undo_write(self) -> bool:
        """After a write failed: whether the frames before it make a whole file nevertheless."""
        return False

    @abstractmethod
    def _finalize(self) -> None:
        """Write what is pending and release the file; called once, also when nothing was written."""


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
