"""Reading users' files: regular files only, up to a maximum size."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from i2v.errors import InvalidFileError, StrPath

MAX_TEXT_BYTES = 16 << 20


def open_input(path: StrPath, max_bytes: int) -> BinaryIO:
    """Open a file for reading.

    Args:
        path: Path of the file.
        max_bytes: Largest accepted size.

    Returns:
        The open file.

    Raises:
        OSError: If the file cannot be opened.
        InvalidFileError: If it is larger, or not a regular file: a pipe could block forever.
    """
    # Non-blocking, because opening a pipe without a writer would block before fstat can reject it.
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
    """Read a file of up to ``max_bytes`` bytes. Raises the errors of ``open_input``."""
    with open_input(path, max_bytes) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InvalidFileError(path, f"the file grew while it was read, beyond {max_bytes:,} bytes")
    return data


def read_text(path: StrPath, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a UTF-8 text file.

    Args:
        path: Path of the file.
        max_bytes: Largest accepted size.

    Returns:
        The text, without a byte order mark.

    Raises:
        OSError: If the file cannot be opened.
        InvalidFileError: If it is larger, not a regular file, or not UTF-8.
    """
    return as_text(read_input(path, max_bytes), path)


def as_text(data: bytes, name: StrPath) -> str:
    """Decode UTF-8, with or without a byte order mark.

    Args:
        data: The bytes.
        name: Name of the file in messages.

    Raises:
        InvalidFileError: If they are not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidFileError(name, f"this is no UTF-8 text: {error.reason}", f"byte {error.start}") from error
