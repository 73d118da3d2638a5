"""Footage: the video that is annotated, read by several sessions and shown as JPEG pictures."""

from __future__ import annotations

import io
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
    """A video whose frames arrive or have arrived; thread-safe."""

    name: str
    height: int
    width: int
    frame_rate: float | None
    trouble: str | None = None  # why no more frames come, where that is no ordinary end

    @property
    @abstractmethod
    def num_available(self) -> int:
        """How many frames can be read now."""

    @property
    def live(self) -> bool:
        """Whether more frames may come."""
        return False

    @abstractmethod
    def open(self) -> FrameSource:
        """A source of one's own, for one session, to be closed by its owner."""

    @abstractmethod
    def jpeg(self, frame: int) -> bytes:
        """A frame as a JPEG file; IndexError if there is none."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files and devices."""


class VideoFootage(Footage):
    """A file or a folder of images. Pictures shown lately are kept, 64 MiB at most."""

    def __init__(self, path: Path) -> None:
        """Raises what `open_source` raises."""
        self._path = path
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


def to_jpeg(picture: Image.Image, quality: int = JPEG_QUALITY) -> bytes:
    """An RGB picture as a JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
