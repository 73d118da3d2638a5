"""Picture files that hold several frames: animated WebP, PNG and AVIF, TIFF of several pages, GIF without delays."""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections import OrderedDict

import numpy as np
from PIL import Image

from i2v.errors import InvalidFileError, StrPath, reading
from i2v.utils.image_file import MAX_BYTES, open_picture
from i2v.utils.input_file import open_input, read_input
from i2v.utils.picture_size import check_size
from i2v.utils.process_local import ProcessLocal
from i2v.video.frame_source import FrameSource, picture_to_rgb

MAX_FRAMES = 100_000
_KEPT_BYTES = 64 << 20  # of frames decoded lately, for those who go backwards
_FORMATS = ("PNG", "WEBP", "TIFF", "AVIF", "GIF")
_GIF = b"GIF8"
_MAGICS = (b"\x89PNG\r\n\x1a\n", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", _GIF)
_DEFAULT_DURATION = 0.1  # seconds, of a frame whose duration is 0, as in browsers
_HEAD = 16  # bytes in which a file says its format


class AnimatedImage(FrameSource):
    """The frames of one picture file, as Pillow reads them, with their times where the file has durations.

    Frames build on those before them: reading forward decodes onward, reading backward decodes from the start, unless a
    frame is among the last 64 MiB. It can be pickled, and used in processes that were forked.
    """

    def __init__(self, picture: StrPath | bytes) -> None:
        """Open a path or bytes.

        Raises:
            OSError: If the file cannot be read.
            InvalidFileError: If it is no picture of several frames.
        """
        self.name = "bytes" if isinstance(picture, bytes) else os.fspath(picture)
        source = picture if isinstance(picture, bytes) else os.path.abspath(os.fspath(picture))
        self._opened = ProcessLocal(functools.partial(_OpenPicture, source, self.name))
        opened = self._opened.get()
        if not 2 <= opened.num_frames <= MAX_FRAMES:
            raise InvalidFileError(self.name, f"expected 2 to {MAX_FRAMES:,} frames, found {opened.num_frames:,}")
        self._num_frames = opened.num_frames
        self.height, self.width = opened.read(0).shape[:2]
        self._times = opened.times()
        self.frame_rate = None
        if self._times is not None and self._times[-1] > 0:
            self.frame_rate = (self._num_frames - 1) / self._times[-1]

    @property
    def num_frames(self) -> int:
        return self._num_frames

    def frame_time(self, index: int) -> float | None:
        self._check_index(index)
        return None if self._times is None else self._times[index]

    def read(self, index: int) -> np.ndarray:
        """Return frame ``index`` as (H,W,3) uint8.

        Raises:
            IndexError: If there is no such frame.
            InvalidFileError: If it is damaged or of another size than the first.
        """
        self._check_index(index)
        frame = self._opened.get().read(index)
        if frame.shape[:2] != (self.height, self.width):
            raise InvalidFileError(
                self.name,
                f"it is {frame.shape[1]}x{frame.shape[0]}, expected {self.width}x{self.height} like the first",
                f"frame {index}",
            )
        return frame


class _OpenPicture:
    """An opened file and the frames decoded lately; a process has its own."""

    def __init__(self, source: str | bytes, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._position = -1  # the frame that was decoded last
        data = source if isinstance(source, bytes) else read_input(source, MAX_BYTES)
        self._image = open_picture(data, name, _FORMATS)
        with reading(name, "this picture"):
            self.num_frames = int(getattr(self._image, "n_frames", 1))

    def read(self, index: int) -> np.ndarray:
        with self._lock:
            if index not in self._kept:
                if index <= self._position:
                    self._position = -1
                # Frames build on those before them, which Pillow does not always draw by itself when it skips some.
                start = index if self._stands_alone else self._position + 1
                for frame in range(start, index + 1):
                    self._decode(frame)
            return self._kept[index]

    def times(self) -> list[float] | None:
        """When each frame is shown, in seconds, or ``None`` where the file has no durations."""
        with self._lock, reading(self._name, "this picture"):
            durations = []
            if self._stands_alone:
                return None
            for frame in range(self.num_frames - 1):
                self._image.seek(frame)
                if self._image.format != "PNG":
                    self._image.load()  # they say it only then
                duration = self._image.info.get("duration", 0 if self._image.format == "GIF" else None)
                if duration is None:
                    return None
                durations.append(float(duration) / 1000 or _DEFAULT_DURATION)
            self._position = -1
            return [0.0, *itertools.accumulate(durations)]

    @property
    def _stands_alone(self) -> bool:
        return self._image.format == "TIFF"

    def _decode(self, frame: int) -> None:
        with reading(self._name, "this picture", f"frame {frame}"):
            self._image.seek(frame)
            check_size(self._image.width, self._image.height)  # those of a TIFF differ
            self._image.load()
            pixels = picture_to_rgb(_on_white(self._image) if self._image.format == "GIF" else self._image)
        self._position = frame
        self._kept[frame] = pixels
        while len(self._kept) > 1 and len(self._kept) * pixels.nbytes > _KEPT_BYTES:
            self._kept.popitem(last=False)


def _on_white(image: Image.Image) -> Image.Image:
    """Put a picture on white, as FFmpeg does with a GIF, whose transparent parts have no colour."""
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image.convert("RGBA"))
    return ground


def is_animated(picture: StrPath | bytes) -> bool:
    """Whether a file, or its bytes, is a picture of several frames that is better not left to FFmpeg.

    FFmpeg merges the frames of a GIF that have no delay, and does not know the other formats or all of their kinds.

    Raises:
        OSError: If the file cannot be read.
    """
    if not isinstance(picture, bytes):
        with open_input(picture, 1 << 62) as file:
            head = file.read(_HEAD)
        if not _may_be_picture(head) or os.path.getsize(picture) > MAX_BYTES:
            return False
        picture = read_input(picture, MAX_BYTES)
    if not _may_be_picture(picture[:_HEAD]) or (picture.startswith(_GIF) and all(_gif_delays(picture))):
        return False
    try:
        return int(getattr(open_picture(picture, "", _FORMATS), "n_frames", 1)) > 1
    except Exception:  # noqa: BLE001 what is wrong with it is said by whoever reads it
        return False


def _gif_delays(data: bytes) -> list[int]:
    """The delay after each image of a GIF but the last, in hundredths of a second; of those that are not cut."""
    at, delay, delays = 13 + _table_size(data[10:11]), 0, list[int]()
    while (kind := data[at : at + 1]) in (b"!", b","):
        if kind == b"!":  # an extension; 0xf9 is that about the next image
            if data[at + 1 : at + 2] == b"\xf9":
                delay = int.from_bytes(data[at + 4 : at + 6], "little")
            at += 2
        else:
            delays.append(delay)
            delay = 0
            at += 11 + _table_size(data[at + 9 : at + 10])
        while at < len(data) and data[at]:  # blocks, of which each says its length
            at += 1 + data[at]
        at += 1
    return delays[:-1]


def _table_size(flags: bytes) -> int:
    """Bytes of the colour table that the flags of a GIF or of an image in it declare."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _may_be_picture(head: bytes) -> bool:
    if head.startswith(b"RIFF"):  # AVI is one, too
        return head[8:12] == b"WEBP"
    return head.startswith(_MAGICS) or head[4:12] in (b"ftypavif", b"ftypavis")
