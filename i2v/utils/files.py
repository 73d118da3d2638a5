"""Writing files and folders atomically, also on interrupts and full disks."""

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
"""Error numbers that become a DiskFullError, and the prefix of their messages."""


class DiskFullError(OSError):
    """A file could not be written: the disk is full, a quota is used up, or the file is too large.

    Attributes:
        kept: What was saved nevertheless, for the message; may be set by a caller.
    """

    kept = ""

    def __str__(self) -> str:
        text = NO_ROOM.get(self.errno or 0, "") + super().__str__()
        return f"{text}; {self.kept}" if self.kept else text


@contextlib.contextmanager
def replacing(path: str | Path, one_of_many: bool = False) -> Iterator[Path]:
    """Write to a temporary path that is moved to ``path`` if the block succeeds.

    Leftovers of killed processes in the folder are removed first.

    Args:
        path: The final path.
        one_of_many: Whether to skip that clean-up. With many files per folder, call ``remove_leftovers`` once instead.

    Yields:
        The temporary path.

    Raises:
        DiskFullError: If the disk is full.
        OSError: If the file cannot be written; the message names ``path``, not the temporary one.
    """
    if not one_of_many:
        remove_leftovers(Path(path).parent)
    with _taking_the_place_of(Path(path), Temporary.make_file) as temporary:
        yield temporary


@contextlib.contextmanager
def replacing_folder(path: str | Path, one_of_many: bool = False) -> Iterator[Path]:
    """Like ``replacing``, for a folder that the block fills. Parent folders are created.

    An existing folder is replaced as a whole.

    Args:
        path: The final path.
        one_of_many: See ``replacing``.

    Yields:
        The temporary path.

    Raises:
        FileExistsError: If ``path`` is a file or a symbolic link.
        OSError: See ``replacing``.
    """
    if not one_of_many:
        remove_leftovers(Path(path).parent)
    with _taking_the_place_of(Path(path), Temporary.make_folder) as temporary:
        yield temporary


@contextlib.contextmanager
def naming_full_disk(path: str | Path) -> Iterator[None]:
    """Turn the system's error for a full disk into a DiskFullError about ``path``, which the block writes."""
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
            raise  # perhaps about a file that the block reads; only a full disk must be about the written one
        raise _about(target, error) from error
    finally:
        temporary.discard()


def _about(target: Path, error: OSError) -> OSError:
    """Return the same error about the final path: the user does not know the temporary one."""
    kind = DiskFullError if error.errno in NO_ROOM else OSError
    return kind(error.errno, error.strerror, str(target))


class StreamedFile(ABC):
    """A file that grows frame by frame under a temporary name and is renamed when closed.

    Leaving the ``with`` block keeps the frames written so far, also after Ctrl-C or an error elsewhere. If writing
    itself failed, earlier frames are kept if the format allows it. Without any frame, no file is created.

    Attributes:
        path: The final path.
        num_frames: Number of frames written.
        is_kept: Whether the file is closed and in place.
    """

    def __init__(self, path: str | Path) -> None:
        """Open nothing yet. ``path`` is the final path."""
        self.path = Path(path)
        self.num_frames = 0
        self.is_kept = False
        self._temporary = Temporary(self.path)
        self._failed = False
        self._closed = False

    def __enter__(self: _File) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Complete the file and rename it. Further calls have no effect.

        Raises:
            DiskFullError: If the disk is full.
            OSError: If the file cannot be completed otherwise.
        """
        if self._closed:
            return
        self._closed = True
        with interrupts_deferred():
            try:
                # After a failed write the disk may still be full: an error in closing says nothing new.
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
        """Delete the unfinished file; no effect once it is closed. Raises no OSError."""
        self._failed = True
        self.close()

    def _make(self) -> Path:
        """Create the empty file and return its temporary path."""
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
        """Restore the file after a failed write. Returns whether the earlier frames form a valid file."""
        return False

    @abstractmethod
    def _finalize(self) -> None:
        """Write what is pending and close the file. Called once, even if nothing was written."""


def sha256_of(path: str | Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    return digest_of(path, "sha256")


def digest_of(path: str | Path, algorithm: str) -> str:
    """Compute a digest of a file by one of ``hashlib``'s algorithms, in hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.new(algorithm)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
