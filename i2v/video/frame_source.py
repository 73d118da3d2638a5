"""Random access to the frames of a video: the interface, arrays and live frames."""

from __future__ import annotations

import operator
import os
import re
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar, Union

import numpy as np
from PIL import Image

from i2v.errors import brief
from i2v.utils.tensors import is_tensor, tensor_to_array

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import TypeIs

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff"),
    *(".jp2", ".j2k", ".avif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Of picture files that are taken for frames, in lower case."""

# One picture as users pass it; see `rgb_array` for shapes and value ranges.
Frame: TypeAlias = Union[np.ndarray, "Tensor", Image.Image]

_Source = TypeVar("_Source", bound="FrameSource")


class FrameSource(ABC):
    """The frames of one video as RGB pictures, indexed from 0.

    ``read`` can be called from several threads. A source is a context manager that closes itself.

    Attributes:
        name: The video's name in messages: its path, "bytes", "array" or "live".
        height: Height of the frames in pixels, after rotation.
        width: Width of the frames in pixels, after rotation.
        frame_rate: Frames per second, ``None`` if unknown.
    """

    name: str  # for messages: the path, "bytes", "array" or "live"
    height: int  # pixels, of the frames as shown (after rotation)
    width: int
    frame_rate: float | None  # frames per second; None where nothing says so

    @property
    @abstractmethod
    def num_frames(self) -> int | None:
        """Number of frames; ``None`` while a live source has not ended."""

    @abstractmethod
    def read(self, index: int) -> np.ndarray:
        """Read a frame.

        Args:
            index: Index of the frame.

        Returns:
            ``(H, W, 3)`` uint8 RGB. Do not modify it: it may be shared.

        Raises:
            IndexError: If there is no such frame.
            ValueError: If the frame is damaged or of another size than the first.
        """

    def frame_name(self, index: int) -> str | None:
        """Name of the file of frame `index`, without its folder; None where frames have no files of their own."""
        del index
        return None

    def frame_time(self, index: int) -> float | None:
        """When frame `index` is shown, in seconds after the first one; None where nothing says so."""
        del index
        return None

    def close(self) -> None:
        """Release files and decoders."""
        return

    def __enter__(self: _Source) -> _Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_index(self, index: int) -> None:
        """Raise IndexError unless ``index`` is the number of a frame."""
        count = self.num_frames
        if index < 0:
            raise IndexError(f"{self.name}: frame {index}: frames are numbered from 0")
        if count is not None and index >= count:
            raise IndexError(f"{self.name}: frame {index} is beyond the end: there are {count} frames")


class FrameArray(FrameSource):
    """Frames in memory. A frame is copied or converted only when it is read."""

    def __init__(self, frames: np.ndarray | Tensor | Sequence[Frame], name: str = "array") -> None:
        """Check the frames.

        Args:
            frames: Array or tensor ``(T, H, W, 3)`` or ``(T, 3, H, W)``, or a sequence of single frames, each as in
                ``rgb_array``. A shape that fits both layouts, ``(T, 3, H, 3)``, is read as channels last.
            name: Name in messages.

        Raises:
            TypeError: If a frame is not a picture.
            ValueError: If there are no frames, sizes differ, a shape is wrong, or floats of the first frame are outside
                0..1.
        """
        self.name = name
        self.frame_rate = None
        if _is_array(frames) and frames.ndim != 4:
            raise ValueError(f"{name}: expected shape (T,H,W,3) or (T,3,H,W), got {tuple(frames.shape)}")
        if len(frames) == 0:
            raise ValueError(f"{name}: got no frames")
        # Single frames of sparse tensors cannot be taken in inference mode.
        self._frames = tensor_to_array(frames, name) if is_tensor(frames) and frames.is_sparse else frames
        self.height, self.width = frame_size(self._frames[0], f"{name}: frame 0")
        if not _is_array(frames):
            for index, frame in enumerate(frames):
                _check_size(frame, (self.height, self.width), f"{name}: frame {index}")
        self.read(0)  # floats in 0..255 are a common mistake: fail now rather than midway

    @property
    def num_frames(self) -> int:
        return len(self._frames)

    def read(self, index: int) -> np.ndarray:
        """Read a frame, see ``FrameSource.read``. May return the caller's own array."""
        self._check_index(index)
        return rgb_array(self._frames[index], f"{self.name}: frame {index}")


class LiveFrames(FrameSource):
    """Frames that arrive one by one: appended by the caller, pulled from an iterator, or both.

    The iterator is advanced only when ``read`` needs a frame that has not arrived, and never further. ``num_frames`` is
    ``None`` until the iterator ends or ``finish`` is called.
    """

    def __init__(self, frames: Iterable[Frame] | None = None, keep: int = 16, frame_rate: float | None = None) -> None:
        """Start a stream.

        Args:
            frames: Iterable of single frames as in ``rgb_array``, or ``None`` if frames are only appended.
            keep: Number of latest frames to keep in memory.
            frame_rate: Frames per second, if known.

        Raises:
            ValueError: If ``keep`` is below 1.
        """
        if keep < 1:
            raise ValueError(f"keep: expected at least 1 frame, got {keep}")
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

    # The size is known once a frame has arrived, so these may have to pull the first one.
    @property
    def height(self) -> int:  # type: ignore[override]
        return self._first_size()[0]

    @property
    def width(self) -> int:  # type: ignore[override]
        return self._first_size()[1]

    def __reduce__(self) -> NoReturn:
        raise TypeError("live frames cannot be pickled or sent to another process: nobody knows where they come from")

    def append(self, frame: Frame) -> None:
        """Append a copy of a frame.

        Args:
            frame: A picture as in ``rgb_array``.

        Raises:
            RuntimeError: If the stream has ended.
            TypeError: If the frame is not a picture.
            ValueError: If its values are out of range, or its size differs from the first frame's.
        """
        with self._lock:
            if self._finished:
                raise RuntimeError(f"{self.name}: frame {self._arrived} came after the end")
            where = f"{self.name}: frame {self._arrived}"
            size = _check_size(frame, self._size, where)
            # Cameras reuse their buffers.
            self._kept.append(rgb_array(frame, where).copy())
            self._size = size
            self._arrived += 1

    def finish(self) -> None:
        """End the stream: no more frames will come."""
        with self._lock:
            self._finished = True
            self._incoming = None

    def read(self, index: int) -> np.ndarray:
        """Read a frame, see ``FrameSource.read``. Raises IndexError if it has not arrived or is no longer kept."""
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
        """End the stream and drop its frames."""
        with self._lock:
            self.finish()
            self._kept.clear()

    def _pull(self) -> bool:
        """Append the iterator's next frame, and return whether there was one."""
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


def check_frame(frame_idx: Any, source: FrameSource, num_frames: int | None) -> int:
    """Return the index of a frame of a video as an integer.

    Args:
        frame_idx: An integer of any kind.
        source: The video.
        num_frames: How many frames it has, if that is known.

    Raises:
        TypeError: If ``frame_idx`` is no integer.
        IndexError: If the video has no such frame.
    """
    try:
        frame = operator.index(frame_idx)
    except (TypeError, RuntimeError):  # the latter of tensors without values
        raise TypeError(f"frame_idx: expected a whole number, got {brief(frame_idx)}") from None
    if frame < 0 or (num_frames is not None and frame >= num_frames):
        raise IndexError(f"frame {frame} is not in the video {source.name}, which has {num_frames} frames")
    return frame


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key for file names in natural order: digits compare as numbers, letters ignore case.

    Stems that compare equal (1.png, 01.png, 1.jpg) are ordered by the full name.
    """
    pieces = re.split(r"([0-9]+)", os.path.splitext(name)[0].casefold())
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], name


def frame_size(frame: Frame, where: str) -> tuple[int, int]:
    """Return the (height, width) of a frame.

    Args:
        frame: A picture as in ``rgb_array``.
        where: Prefix of messages, such as the video and frame.

    Raises:
        TypeError: If the frame is not a picture.
        ValueError: If it is empty or its shape is not that of a picture.
    """
    if isinstance(frame, Image.Image):
        size = (frame.height, frame.width)
    elif _is_array(frame):
        shape = tuple(frame.shape)
        if len(shape) != 3 or (shape[2] != 3 and shape[0] != 3):
            raise ValueError(f"{where}: expected shape (H,W,3) or (3,H,W), got {shape}")
        size = shape[:2] if shape[2] == 3 else shape[1:]
    else:
        raise TypeError(f"{where}: expected an array, a tensor or a Pillow image, got {type(frame).__name__}")
    if 0 in size:
        raise ValueError(f"{where}: got an empty picture of {size[1]}x{size[0]}")
    return size


def rgb_array(frame: Frame, where: str) -> np.ndarray:
    """Convert a frame to RGB.

    Args:
        frame: A Pillow image of any mode, or an array or tensor ``(H, W, 3)`` or ``(3, H, W)`` (the former if both
            fit), uint8 or float in 0..1. Floats are scaled by 255 and rounded.
        where: Prefix of messages, such as the video and frame.

    Returns:
        ``(H, W, 3)`` uint8, which may be the caller's own array.

    Raises:
        TypeError: If the frame is not a picture, or its dtype is neither uint8 nor float.
        ValueError: If its shape is not that of a picture, or a float is outside 0..1.
    """
    frame_size(frame, where)
    if isinstance(frame, Image.Image):
        return picture_to_rgb(frame)
    if is_tensor(frame):
        frame = tensor_to_array(frame, where)
    if frame.shape[2] != 3:
        frame = frame.transpose(1, 2, 0)
    if frame.dtype == np.uint8:
        return frame
    if not np.issubdtype(frame.dtype, np.floating):
        raise TypeError(f"{where}: expected uint8 or floats in [0,1], got {frame.dtype}")
    return _scaled(frame, where)


def _is_array(value: object) -> TypeIs[np.ndarray | Tensor]:
    return isinstance(value, np.ndarray) or is_tensor(value)


def _check_size(frame: Frame, expected: tuple[int, int] | None, where: str) -> tuple[int, int]:
    """Return the frame's (height, width); ValueError if it differs from ``expected``."""
    size = frame_size(frame, where)
    if expected is not None and size != expected:
        raise ValueError(f"{where}: the picture is {size[1]}x{size[0]}, expected {expected[1]}x{expected[0]}")
    return size


def picture_to_rgb(image: Image.Image) -> np.ndarray:
    """Convert a Pillow image to ``(H, W, 3)`` uint8. Alpha is dropped, grey and palette images become RGB.

    Raises:
        ValueError: If it has floats outside 0..1, which are scaled by 255.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's convert clips 16-bit grey at 255. Keep the high byte, as Pillow does for 16-bit colour.
        grey = (np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
    elif image.mode == "F":  # which Pillow would clip, too
        grey = _scaled(np.asarray(image), "a picture of floats")
    else:
        return np.asarray(image.convert("RGB"))
    return np.repeat(grey[:, :, None], 3, axis=2)


def _scaled(frame: np.ndarray, where: str) -> np.ndarray:
    """Floats in [0,1] as uint8."""
    # Negated so that NaN fails too.
    if not (frame.min() >= 0 and frame.max() <= 1):
        raise ValueError(f"{where}: expected floats in [0,1], got values from {frame.min():g} to {frame.max():g}")
    return np.rint(frame.astype(np.float32) * 255).astype(np.uint8)
