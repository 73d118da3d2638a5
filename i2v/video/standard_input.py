"""A video on standard input: kept in a temporary file, as tracking reads it more than once and out of order."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from i2v.utils.files import naming_full_disk
from i2v.utils.picture_size import check_size

NAME = "standard input"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class RawFormat:
    """Raw frames: RGB, 8 bits for each channel, row by row, one frame right after another.

    Attributes:
        width: Of a frame, in pixels.
        height: Of a frame, in pixels.
    """

    width: int
    height: int

    @staticmethod
    def parse(text: str) -> RawFormat:
        """Read WIDTHxHEIGHT. Raises ValueError for anything else, and for frames that are too large."""
        match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text, re.ASCII)
        if match is None:
            raise ValueError(f"got {text!r}, expected WIDTHxHEIGHT in pixels, such as 640x480")
        width, height = int(match[1]), int(match[2])
        check_size(width, height)
        return RawFormat(width, height)


@contextlib.contextmanager
def spooled(stream: BinaryIO, raw: RawFormat | None = None) -> Iterator[Path | NDArray[np.uint8]]:
    """Read a stream to its end, and give the block its video: a path, or an array ``(T, H, W, 3)`` of raw frames.

    What is kept goes to the system's folder for temporary files, and is removed after the block.

    Args:
        stream: A video of any format that FFmpeg recognizes, such as YUV4MPEG; JPEG or PNG pictures one after
            another, or raw frames.
        raw: The size of raw frames, where they are raw.

    Raises:
        ValueError: If the stream is a terminal or empty, or no whole number of raw frames.
        DiskFullError: If there is no room for it.
    """
    if stream.isatty():
        raise ValueError(f"{NAME} is a terminal: expected a video from a pipe or file")
    with tempfile.TemporaryDirectory(prefix="i2v-") as folder:
        path = Path(folder) / NAME
        with naming_full_disk(path), open(path, "wb") as file:
            shutil.copyfileobj(stream, file, _CHUNK)
        size = path.stat().st_size
        if size == 0:
            raise ValueError(f"{NAME} is empty, expected a video")
        yield path if raw is None else _raw_frames(path, size, raw)


def _raw_frames(path: Path, size: int, raw: RawFormat) -> NDArray[np.uint8]:
    count, rest = divmod(size, raw.width * raw.height * 3)
    if rest or not count:
        raise ValueError(
            f"{NAME}: {size:,} bytes are no whole number of raw frames of {raw.width}x{raw.height} pixels in RGB, "
            f"of {raw.width * raw.height * 3:,} bytes each"
        )
    return np.memmap(path, np.uint8, "r", shape=(count, raw.height, raw.width, 3))
