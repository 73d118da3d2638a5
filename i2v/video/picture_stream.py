"""Pictures one right after another in one file, as `cat *.jpg` and some cameras write them."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
from collections.abc import Iterator

from i2v.errors import InvalidFileError, StrPath
from i2v.utils.image_file import JPEG, JPEG_END, PNG, PNG_END, picture_parts
from i2v.utils.input_file import open_input
from i2v.video.image_files import PictureFrames

_FORMATS = ("JPEG", "PNG")
_ANY_SIZE = 1 << 62
_APP2, _SCAN = b"\xff\xe2", b"\xff\xda"
_PADDING = (b"\0", b"\xff")  # of JPEG encoders, to whole words


class PictureStream(PictureFrames):
    """JPEG or PNG pictures, concatenated, as the frames of a video.

    It can be pickled, and used in other processes.
    """

    def __init__(self, stream: StrPath | bytes) -> None:
        """Find the pictures.

        Args:
            stream: Path of the file, or its bytes.

        Raises:
            OSError: If the file cannot be read.
            InvalidFileError: If it holds anything else, the first picture is damaged, or a JPEG brings further pictures
                (MPO): smaller ones or depth maps, which are no frames.
        """
        name = "bytes" if isinstance(stream, bytes) else os.fspath(stream)
        self._stream = stream if isinstance(stream, bytes) else os.path.abspath(name)
        with _opened(self._stream) as data:
            self._ranges = list(_find_pictures(data, name))
            several = next((i for i, (start, _) in enumerate(self._ranges) if _holds_several(data, start)), None)
        if not self._ranges:
            raise InvalidFileError(name, "expected pictures, found no bytes")
        if several is not None:
            raise InvalidFileError(
                name, "this JPEG holds further pictures, which are no frames (MPO)", f"picture {several}"
            )
        super().__init__(name, _FORMATS)

    @property
    def num_frames(self) -> int:
        return len(self._ranges)

    def _encoded(self, index: int) -> bytes:
        start, end = self._ranges[index]
        if isinstance(self._stream, bytes):
            return self._stream[start:end]
        with open_input(self._stream, _ANY_SIZE) as file:
            file.seek(start)
            return file.read(end - start)

    def _where(self, index: int) -> str:
        return f"{self.name}: picture {index}"


def begins_with_pictures(stream: StrPath | bytes) -> bool:
    """Whether a file, or its bytes, begins with two JPEG or PNG pictures, one right after another.

    Raises:
        OSError: If the file cannot be read.
    """
    if not isinstance(stream, bytes):
        with open_input(stream, _ANY_SIZE) as file:
            if not _is_start(file.read(len(PNG)), 0):
                return False
    with _opened(stream) as data:
        return _is_start(data, 0) and _is_start(data, _end_of_picture(data, 0))


@contextlib.contextmanager
def _opened(stream: StrPath | bytes) -> Iterator[bytes | mmap.mmap]:
    if isinstance(stream, bytes):
        yield stream
        return
    with open_input(stream, _ANY_SIZE) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _find_pictures(data: bytes | mmap.mmap, name: str) -> Iterator[tuple[int, int]]:
    """Yield where each picture begins and ends; it may be cut."""
    at = 0
    while at < len(data):
        if not _is_start(data, at):
            raise InvalidFileError(name, f"expected a JPEG or PNG picture after the one before byte {at:,}")
        end = _end_of_picture(data, at)
        yield at, end
        at = end


def _is_start(data: bytes | mmap.mmap, at: int) -> bool:
    return data[at : at + 3] == JPEG + b"\xff" or data[at : at + len(PNG)] == PNG


def _end_of_picture(data: bytes | mmap.mmap, start: int) -> int:
    """Where a picture ends, with the padding behind it; where the next one or the data does, if it is cut."""
    for kind, content, end in picture_parts(data, start):
        if kind == JPEG:
            return content - len(JPEG)
        if kind in (JPEG_END, PNG_END):
            while end < len(data) and data[end : end + 1] in _PADDING and not _is_start(data, end):
                end += 1
            return end
    return len(data)


def _holds_several(data: bytes | mmap.mmap, start: int) -> bool:
    """Whether a JPEG says that it brings further pictures behind it."""
    parts = itertools.takewhile(lambda part: part[0] != _SCAN, picture_parts(data, start))
    return any(kind == _APP2 and data[content : content + 4] == b"MPF\0" for kind, content, _ in parts)
