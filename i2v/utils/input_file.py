"""Files that users hand over, read whole: regular files only, up to a size that is named."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from i2v.errors import InvalidFileError, StrPath

MAX_TEXT_BYTES = 16 << 20


def open_input(path: StrPath, max_bytes: int) -> BinaryIO:
    """Open a file for reading; InvalidFileError if it is larger, or no regular file: a pipe could block for ever.

    The system's OSError if there is none, or it may not be read.
    """
    # Not blocking: a pipe that nobody writes to must not hold the program before it can be told from a file.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise InvalidFileError(path, f"this is {what}, expected a file")
        if status.st_size > max_bytes:
            raise InvalidFileError(path, f"the file has {status.st_size:,} bytes, expected at most {max_bytes:,}")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_input(path: StrPath, max_bytes: int) -> bytes:
    """The bytes of a file. Raises as `open_input` does."""
    with open_input(path, max_bytes) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InvalidFileError(path, f"the file grew while it was read, beyond {max_bytes:,} bytes")
    return data


def read_text(path: StrPath, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """A UTF-8 text file. Raises as `open_input` does, and InvalidFileError for other encodings."""
    return as_text(read_input(path, max_bytes), path)


def as_text(data: bytes, name: StrPath) -> str:
    """Bytes as UTF-8, with or without a byte order mark; InvalidFileError if they are not."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidFileError(name, f"this is no UTF-8 text: {error.reason}", f"byte {error.start}") from error
