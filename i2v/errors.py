"""Errors that are reported to users in one line: which ones, how they are worded, and the one for files."""

from __future__ import annotations

import contextlib
import os
import reprlib
from collections.abc import Iterator, Sequence

from av.error import FFmpegError
from PIL.Image import DecompressionBombError

from i2v.utils.terminal import printable

StrPath = str | os.PathLike[str]

USER_ERRORS = (
    *(ValueError, IndexError, OSError, RuntimeError, MemoryError),
    *(OverflowError, EOFError, FFmpegError, DecompressionBombError),
)
"""Errors that the library raises for wrong input, the system for files, disks and memory, and decoders of videos and
pictures: not all errors of FFmpeg are ValueError or OSError, and a decompression bomb is neither.

Programs report these in one line; any other error is a bug and keeps its traceback.
"""


class InvalidFileError(ValueError):
    """The contents of a file or an upload are invalid.

    Attributes:
        path: The file.
        reason: What is wrong.
        place: Where in the file, such as "frame 3, object 1"; can be empty.
    """

    def __init__(self, path: StrPath, reason: str, place: str = "") -> None:
        """Create the error.

        Args:
            path: The file.
            reason: What is wrong.
            place: Where in the file.
        """
        super().__init__(os.fspath(path), reason, place)  # args are what pickle restores the error from
        self.path, self.reason, self.place = os.fspath(path), reason, place

    def __str__(self) -> str:
        return ": ".join(part for part in (self.path, self.place, self.reason) if part)


@contextlib.contextmanager
def reading(path: StrPath, what: str, place: str = "") -> Iterator[None]:
    """Turn any error in the block into InvalidFileError: "PATH: ``what`` cannot be read: ...".

    For third-party parsers, whose exceptions on corrupt input are undocumented. OSErrors that name a path are kept.

    Args:
        path: The file.
        what: What is read, such as "this image".
        place: Where in the file.
    """
    try:
        yield
    except InvalidFileError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        reason = describe_error(error)
        raise InvalidFileError(path, f"{what} cannot be read: {reason}", place) from error


@contextlib.contextmanager
def locating(path: StrPath, place: str = "") -> Iterator[None]:
    """Turn a ValueError in the block, from code that does not know the file, into InvalidFileError.

    Args:
        path: The file.
        place: Where in the file.
    """
    try:
        yield
    except InvalidFileError:
        raise
    except ValueError as error:
        raise InvalidFileError(path, str(error), place) from error


def describe_error(error: BaseException, limit: int = 2000) -> str:
    """Describe an error in one line of at most about ``limit`` printable characters."""
    return printable(error, limit) or type(error).__name__


def shortened(text: str, limit: int) -> str:
    """Truncate a text to ``limit`` characters, ending in dots."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def listed(names: Sequence[object], most: int) -> str:
    """List the first ``most`` names, and say how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def brief(value: object) -> str:
    """Represent a value in at most 80 characters, for messages."""
    return shortened(reprlib.repr(value), 80)
