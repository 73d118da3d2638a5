"""The annotated video, shared by several sessions and shown as JPEG pictures."""

from __future__ import annotations

import io
import stat
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from pathlib import Path

from PIL import Image

from i2v.video.frame_source import FrameSource
from i2v.video.sources import open_source

JPEG_QUALITY = 90
CACHE_BYTES = 64 << 20


class Footage(ABC):
    """A video whose frames are available or still arriving. Thread-safe.

    Attributes:
        name: Name of the video.
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        frame_rate: Frames per second, ``None`` if unknown.
        trouble: Why no more frames arrive, after an error.
    """

    name: str
    height: int
    width: int
    frame_rate: float | None
    trouble: str | None = None

    @property
    @abstractmethod
    def num_available(self) -> int:
        """Number of frames that can be read now."""

    @property
    def live(self) -> bool:
        """Whether more frames may arrive."""
        return False

    @property
    def replaced(self) -> str | None:
        """What to tell a user if another video has taken the place of this one since it was opened."""
        return None

    @abstractmethod
    def open(self) -> FrameSource:
        """Open a source for one session, which closes it."""

    @abstractmethod
    def jpeg(self, frame: int) -> bytes:
        """Return a frame as a JPEG file.

        Raises:
            IndexError: If there is no such frame.
        """

    @abstractmethod
    def close(self) -> None:
        """Release files and devices."""


class VideoFootage(Footage):
    """A video file or a folder of images. Caches up to 64 MiB of recently shown pictures."""

    def __init__(self, path: Path) -> None:
        """Open the video. Raises the errors of ``open_source``."""
        self._path = path
        self._identity = _identity(path)
        self._source = open_source(path)
        self.name = path.name or path.resolve().name
        self.height, self.width, self.frame_rate = self._source.height, self._source.width, self._source.frame_rate
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    @property
    def num_available(self) -> int:
        count = self._source.num_frames
        assert count is not None
        return count

    @property
    def replaced(self) -> str | None:
        if _identity(self._path) == self._identity:
            return None
        return f"{self._path} has been replaced or removed since it was opened: restart the annotator"

    def open(self) -> FrameSource:
        return open_source(self._path)

    def jpeg(self, frame: int) -> bytes:
        with self._lock:
            if frame in self._kept:
                self._kept.move_to_end(frame)
                return self._kept[frame]
        data = to_jpeg(Image.fromarray(self._source.read(frame)))
        with self._lock:
            if frame not in self._kept:
                self._kept[frame] = data
                self._num_bytes += len(data)
            while self._num_bytes > CACHE_BYTES:
                self._num_bytes -= len(self._kept.popitem(last=False)[1])
        return data

    def close(self) -> None:
        self._source.close()


def _identity(path: Path) -> tuple[int, ...] | None:
    """What tells a file from one that takes its place; of a folder, whose frames may be added to, only which it is.

    ``None`` for a pattern, or if there is nothing.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    own = (found.st_dev, found.st_ino)
    return own if stat.S_ISDIR(found.st_mode) else (*own, found.st_size, found.st_mtime_ns)


def to_jpeg(picture: Image.Image, quality: int = JPEG_QUALITY) -> bytes:
    """Encode an RGB picture as a JPEG file.

    Args:
        picture: The picture.
        quality: JPEG quality, up to 95.
    """
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
