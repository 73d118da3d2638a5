"""Errors in the words of a page: what the system says of files, without its numbers."""

from __future__ import annotations

import errno

from i2v.errors import describe_error
from i2v.utils.files import DiskFullError
from i2v.utils.terminal import printable

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "it may not be written or read",
    errno.EROFS: "the disk can only be read",
    errno.ENOENT: "it is not there",
    errno.ENOTDIR: "a file is in the place of a folder",
    errno.EISDIR: "a folder is in the place of a file",
}


def for_page(error: BaseException) -> str:
    """Describe an error in one line, as ``describe_error`` but for errors of the system, such as a full disk."""
    if not isinstance(error, OSError) or error.errno is None:
        return describe_error(error)
    reason = _REASONS.get(error.errno) or (error.strerror or "it failed").lower()
    kept = f"; {error.kept}" if isinstance(error, DiskFullError) and error.kept else ""
    return printable(f"{error.filename}: {reason}{kept}" if error.filename is not None else f"{reason}{kept}")
