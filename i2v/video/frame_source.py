"""Frames of a video by number: the interface, and arrays and live frames behind it."""

from __future__ import annotations

import os
import re
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import NoReturn, TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff"),
    *(".jp2", ".j2k", ".avif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Of picture files that are taken for frames, in lower case."""

# One picture as users hand it over; `rgb_array` says which shapes and values are meant.
Frame: TypeAlias = np.ndarray | torch.Tensor | Image.Image

_Source = TypeVar("_Source", bound="FrameSource")


class FrameSource(ABC):
    """The frames of one video as raw RGB pictures, by number from 0.

    `read` may be called from several threads. Sources are context managers that close themselves.
    """

    name: str  # for messages: the path, "bytes", "array" or "live"
    height: int  # pixels, of the frames as shown (after rotation)
    width: int
    frame_rate: float | None  # frames per second; None where nothing says so

    @property
    @abstractmethod
    def num_frames(self) -> int | None:
        """How many frames there are; None while a live source has not ended."""

    @abstractmethod
    def read(self, index: int) -> np.ndarray:
        """Frame `index` as (H,W,3) uint8 RGB, not to be written into; IndexError if there is none."""

    def frame_name(self, index: int) -> str | None:
        """Name of the file of frame `index`, without its folder; None where frames have no files of their own."""
        del index
        return None

    def frame_time(self, index: int) -> float | None:
        """When frame `index` is shown, in seconds after the first one; None where nothing says so."""
        del index
        return None

    def close(self) -> None:
        """Let go of files and decoders."""
        return

    def __enter__(self: _Source) -> _Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_index(self, index: int) -> None:
        """Raise IndexError unless `index` is the number of a frame."""
        count = self.num_frames
        if index < 0:
            raise IndexError(f"{self.name}: frame {index}: frames are numbered from 0")
        if count is not None and index >= count:
            raise IndexError(f"{self.name}: frame {index} is beyond the end: there are {count} frames")


class FrameArray(FrameSource):
    """Frames already in memory; nothing is copied or converted before it is read.

    Takes an array or tensor (T,H,W,3) or (T,3,H,W), or a sequence of single frames; their values as in
    `rgb_array`. Where both layouts fit (T,3,H,3), the last axis holds the colours.
    """

    def __init__(self, frames: np.ndarray | torch.Tensor | Sequence[Frame], name: str = "array") -> None:
        """TypeError or ValueError if `frames` is empty, no pictures, or pictures of different sizes."""
        self.name = name
        self.frame_rate = None
        if isinstance(frames, (np.ndarray, torch.Tensor)) and frames.ndim != 4:
            raise ValueError(f"{name}: got shape {tuple(frames.shape)}, expected (T,H,W,3) or (T,3,H,W)")
        if len(frames) == 0:
            raise ValueError(f"{name}: got no frames")
        self._frames = frames
        self.height, self.width = frame_size(frames[0], f"{name}: frame 0")
        if not isinstance(frames, (np.ndarray, torch.Tensor)):
            for index, frame in enumerate(frames):
                _check_size(frame, (self.height, self.width), f"{name}: frame {index}")
        self.read(0)  # floats in 0..255 are a common slip, better told now than on the way

    @property
    def num_frames(self) -> int:
        return len(self._frames)

    def read(self, index: int) -> np.ndarray:
        """Frame `index` (H,W,3) uint8, perhaps the caller's own; ValueError for floats outside [0,1]."""
        self._check_index(index)
        return rgb_array(self._frames[index], f"{self.name}: frame {index}")


class LiveFrames(FrameSource):
    """Frames that arrive one by one: appended by the caller, pulled from an iterator, or both.

    The iterator is asked only when `read` wants a frame that has not arrived, and never for more than that.
    Only the last `keep` frames stay in memory. `num_frames` is None until the iterator ends or `finish` is
    called.
    """

    def __init__(self, frames: Iterable[Frame] | None = None, keep: int = 16, frame_rate: float | None = None) -> None:
        """`frames` yields single frames as `rgb_array` takes them; ValueError unless `keep` is at least 1."""
        if keep < 1:
            raise ValueError(f"keep: got {keep}, expected at least 1 frame")
        self.name = "live"
        self.frame_rate = frame_rate
        self._incoming: Iterator[Frame] | None = None if frames is None else iter(frames)
        self._kept: deque[np.ndarray] = deque(maxlen=keep)
        self._arrived = 0
        self._finished = False
        self._size: tuple[int, int] | None = None
        self._lock = threading.RLock()

    @property
    def num_frames(self) -> int | None:
        return self._arrived if self._finished else None

    @property
    def finished(self) -> bool:
        """Whether no more frames will come."""
        return self._finished

    # The size of a camera's pictures is known from the first on, so these may have to fetch it.
    @property
    def height(self) -> int:  # type: ignore[override]
        return self._first_size()[0]

    @property
    def width(self) -> int:  # type: ignore[override]
        return self._first_size()[1]

    def __reduce__(self) -> NoReturn:
        raise TypeError("live frames cannot be pickled or sent to another process: nobody knows where they come from")

    def append(self, frame: Frame) -> None:
        """Take one more frame, copied; ValueError if its size is not that of the first."""
        with self._lock:
            if self._finished:
                raise RuntimeError(f"{self.name}: frame {self._arrived} came after the end")
            where = f"{self.name}: frame {self._arrived}"
            size = _check_size(frame, self._size, where)
            # A camera may fill the same buffer again.
            self._kept.append(rgb_array(frame, where).copy())
            self._size = size
            self._arrived += 1

    def finish(self) -> None:
        """Say that no more frames will come."""
        with self._lock:
            self._finished = True
            self._incoming = None

    def read(self, index: int) -> np.ndarray:
        """Frame `index` (H,W,3) uint8; IndexError if it is gone, beyond the end, or has not arrived."""
        with self._lock:
            while index >= self._arrived and self._pull():
                pass
            self._check_index(index)
            if index >= self._arrived:
                raise IndexError(f"{self.name}: frame {index} has not arrived: {self._arrived} frames so far")
            oldest = self._arrived - len(self._kept)
            if index < oldest:
                raise IndexError(f"{self.name}: frame {index} is no longer kept: the oldest one is {oldest}")
            return self._kept[index - oldest]

    def close(self) -> None:
        """End the stream and drop the frames kept."""
        with self._lock:
            self.finish()
            self._kept.clear()

    def _pull(self) -> bool:
        """Append the iterator's next frame; False if there is none."""
        if self._incoming is None:
            return False
        try:
            frame = next(self._incoming)
        except StopIteration:
            self.finish()
            return False
        self.append(frame)
        return True

    def _first_size(self) -> tuple[int, int]:
        with self._lock:
            if self._size is None:
                self._pull()
            if self._size is None:
                raise RuntimeError(f"{self.name}: the frame size is unknown: no frame has arrived")
            return self._size


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key of a file name: all runs of digits of its stem as numbers, the text between without case.

    Stems equal in that sense (1.png, 01.png, 1.jpg) keep a fixed order by the full name.
    """
    pieces = re.split(r"([0-9]+)", os.path.splitext(name)[0].casefold())
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], name


def frame_size(frame: Frame, where: str) -> tuple[int, int]:
    """(height, width) of one frame; TypeError or ValueError, starting with `where`, if it is no picture."""
    if isinstance(frame, Image.Image):
        size = (frame.height, frame.width)
    elif isinstance(frame, (np.ndarray, torch.Tensor)):
        shape = tuple(frame.shape)
        if len(shape) != 3 or (shape[2] != 3 and shape[0] != 3):
            raise ValueError(f"{where}: got shape {shape}, expected (H,W,3) or (3,H,W)")
        size = shape[:2] if shape[2] == 3 else shape[1:]
    else:
        raise TypeError(f"{where}: got {type(frame).__name__}, expected an array, a tensor or a Pillow image")
    if 0 in size:
        raise ValueError(f"{where}: got an empty picture of {size[1]}x{size[0]}")
    return size


def rgb_array(frame: Frame, where: str) -> np.ndarray:
    """One frame as (H,W,3) uint8 RGB.

    Takes a Pillow image of any mode, or an array or tensor (H,W,3) or (3,H,W), the first if both fit, of
    uint8 or of floats in [0,1], which are scaled by 255 and rounded. Raises TypeError or ValueError, starting
    with `where`, for anything else.
    """
    frame_size(frame, where)
    if isinstance(frame, Image.Image):
        return picture_to_rgb(frame)
    if isinstance(frame, torch.Tensor):
        tensor = frame.detach().cpu()
        frame = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if frame.shape[2] != 3:
        frame = frame.transpose(1, 2, 0)
    if frame.dtype == np.uint8:
        return frame
    if not np.issubdtype(frame.dtype, np.floating):
        raise TypeError(f"{where}: got values of type {frame.dtype}, expected uint8 or floats in [0,1]")
    return _scaled(frame, where)


def _check_size(frame: Frame, wanted: tuple[int, int] | None, where: str) -> tuple[int, int]:
    """The frame's (height, width); ValueError if another one was wanted."""
    size = frame_size(frame, where)
    if wanted is not None and size != wanted:
        raise ValueError(f"{where}: the picture is {size[1]}x{size[0]}, expected {wanted[1]}x{wanted[0]}")
    return size


def picture_to_rgb(image: Image.Image) -> np.ndarray:
    """Any Pillow image as (H,W,3) uint8; alpha is dropped, grey and palette are spread to three channels.

    Grey of 16 bits keeps its high byte, floats are scaled by 255. ValueError for floats outside [0,1].
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow would clip 16-bit grey at 255. Its reader of 16-bit colour keeps the high byte: do the same.
        grey = (np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
    elif image.mode == "F":  # which Pillow would clip, too
        grey = _scaled(np.asarray(image), "a picture of floats")
    else:
        return np.asarray(image.convert("RGB"))
    return np.repeat(grey[:, :, None], 3, axis=2)


def _scaled(frame: np.ndarray, where: str) -> np.ndarray:
    """Floats in [0,1] as uint8."""
    # Written so that NaN fails too.
    if not (frame.min() >= 0 and frame.max() <= 1):
        raise ValueError(f"{where}: got floats from {frame.min():g} to {frame.max():g}, expected 0 to 1")
    return np.rint(frame.astype(np.float32) * 255).astype(np.uint8)
