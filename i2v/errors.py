"""Errors that users are told of in a sentence: which they are, the one for files, and how they are worded."""

from __future__ import annotations

import contextlib
import os
import reprlib
from collections.abc import Iterator

from av.error import FFmpegError
from PIL.Image import DecompressionBombError

from i2v.utils.terminal import printable

StrPath = str | os.PathLike[str]

USER_ERRORS = (
    *(ValueError, IndexError, OSError, RuntimeError, MemoryError),
    *(OverflowError, EOFError, FFmpegError, DecompressionBombError),
)
"""What the library raises for mistakes of its user, the system for files, disks and memory, and those who decode videos
and pictures. Not all errors of FFmpeg are ValueError or OSError, and a decompression bomb is neither.

Programs tell these in a sentence; anything else is a fault of the program and keeps its traceback.
"""


class InvalidFileError(ValueError):
    """A file, or an upload, whose contents cannot be used.

    ``path`` names it, ``place`` says where in it ("frame 3, object 1"; may be empty), ``reason`` what is wrong.
    """

    def __init__(self, path: StrPath, reason: str, place: str = "") -> None:
        super().__init__(os.fspath(path), reason, place)  # what the error is made of again in another process
        self.path, self.reason, self.place = os.fspath(path), reason, place

    def __str__(self) -> str:
        return ": ".join(part for part in (self.path, self.place, self.reason) if part)


@contextlib.contextmanager
def reading(path: StrPath, what: str, place: str = "") -> Iterator[None]:
    """Turn whatever is raised inside into InvalidFileError: "PATH: ``what`` cannot be read: ...".

    For calls of parsers that others wrote: which exceptions they raise on hostile bytes is nowhere documented. The
    system's own errors, which name the path, stay as they are.
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
    """Turn a ValueError raised inside, by code that knows no file, into InvalidFileError with file and place."""
    try:
        yield
    except InvalidFileError:
        raise
    except ValueError as error:
        raise InvalidFileError(path, str(error), place) from error


def describe_error(error: BaseException, limit: int = 2000) -> str:
    """An error as one line of about ``limit`` printable characters at most."""
    return printable(error, limit) or type(error).__name__


def shortened(text: str, limit: int) -> str:
    """A text of at most ``limit`` characters, with dots at its end if there were more."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def brief(value: object) -> str:
    """A value as messages show it, whatever its size."""
    return shortened(reprlib.repr(value), 80)
