"""Frames at the model's size, read ahead in a background thread."""

from __future__ import annotations

import functools
import os
import threading
from collections import OrderedDict
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import torch
from PIL import Image

from i2v.modeling.constants import IMAGE_MEAN, IMAGE_STD
from i2v.video.frame_source import FrameSource
from i2v.video.window import WINDOW_LENGTH


class FrameLoader:
    """Loads frames of a source as uint8 tensors ``(3, S, S)``, caches the recent ones and reads ahead.

    A loader can be used from several threads, and several loaders can share a source, which they do not close.
    ``close`` joins the background thread; otherwise the thread ends with the loader or the program.
    It does not survive a fork: in a forked process its methods raise a RuntimeError.
    """

    def __init__(self, source: FrameSource, image_size: int, capacity: int = 24, ahead: int = 8) -> None:
        """Create a loader. Nothing is read yet.

        Args:
            source: The video.
            image_size: Side ``S`` of the model image in pixels.
            capacity: Most frames to cache, ``3 * S * S`` bytes each.
            ahead: Most frames to read ahead; fewer if the capacity leaves no room for a window of 5 frames besides.

        Raises:
            ValueError: If ``image_size`` or ``capacity`` is below 1, or ``ahead`` below 0.
        """
        for name, value, least in (
            ("image_size", image_size, 1),
            ("capacity", capacity, 1),
            ("ahead", ahead, 0),
        ):
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        self.source = source
        self.image_size = image_size
        self._capacity = capacity
        self._ahead = max(min(ahead, capacity - WINDOW_LENGTH), 0)
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._frames: OrderedDict[int, Future[torch.Tensor]] = OrderedDict()  # least recently used first
        self._guesses: set[int] = set()  # submitted by `expect`, not yet requested by a caller
        # A single thread serves requests in order, so the decoder reads forward instead of seeking.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="i2v-frames")

    def get(self, index: int) -> torch.Tensor:
        """Get a frame, waiting for it if necessary. Errors from reading the frame are raised here.

        Args:
            index: Index of the frame.

        Returns:
            ``(3, S, S)`` uint8, shared with later calls: do not modify it.

        Raises:
            IndexError: If the video has no such frame.
            ValueError: If the frame is damaged.
            RuntimeError: If the loader is closed, or was created in another process.
        """
        self._check_process()
        future = self._request(index)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError(f"{self.source.name}: closed while waiting for frame {index}") from None
        finally:
            if future.done() and (future.cancelled() or future.exception() is not None):
                self._forget(index, future)

    def expect(self, index: int, step: int) -> None:
        """Announce which frames come next, so that they are read ahead. No effect on a live source.

        Frames that were announced earlier but not requested are no longer read.

        Args:
            index: Index of the next frame. This frame and up to ``ahead`` frames beyond it are read.
            step: 1 for increasing frame indices, -1 for decreasing ones.

        Raises:
            ValueError: If ``step`` is neither.
        """
        self._check_process()
        if step not in (1, -1):
            raise ValueError(f"step: expected 1 or -1, got {step}")
        count = self.source.num_frames
        if count is None:
            return
        expected = [i for i in range(index, index + step * (self._ahead + 1), step) if 0 <= i < count]
        with self._lock:
            if self._closed:
                return
            self._drop_guesses(keep=expected)
            for i in reversed(expected):  # the nearest frame is evicted last
                if i in self._frames:
                    self._frames.move_to_end(i)
            for i in expected:
                if i not in self._frames:
                    self._guesses.add(i)
                    self._submit(i)

    def close(self) -> None:
        """Stop reading and wait for the frame being read. From then on, ``get`` raises a RuntimeError."""
        if self._process != os.getpid():
            return  # the thread is the other process's
        with self._lock:
            self._closed = True
            self._frames.clear()
            self._guesses.clear()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> FrameLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise RuntimeError(
                f"{self.source.name}: this loader reads frames in another process, from before a fork: "
                "open the video in this process"
            )

    def _request(self, index: int) -> Future[torch.Tensor]:
        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self.source.name}: frame {index} was requested after the loader was closed")
            self._guesses.discard(index)
            future = self._frames.get(index)
            if future is not None:
                self._frames.move_to_end(index)
                return future
            if self.source.num_frames is not None:
                # The guess was wrong: do not let the caller wait for frames that it may never need.
                self._drop_guesses(keep=())
                return self._submit(index)
        # A live iterator is only ever called from the caller's thread.
        frame: Future[torch.Tensor] = Future()
        frame.set_result(self._load(index))
        with self._lock:
            self._keep(index, frame)
        return frame

    def _submit(self, index: int) -> Future[torch.Tensor]:
        future = self._thread.submit(self._load, index)
        self._keep(index, future)
        return future

    def _keep(self, index: int, future: Future[torch.Tensor]) -> None:
        self._frames[index] = future
        while len(self._frames) > self._capacity:
            oldest, dropped = self._frames.popitem(last=False)
            if oldest in self._guesses:
                self._guesses.discard(oldest)
                dropped.cancel()

    def _drop_guesses(self, keep: list[int] | tuple[int, ...]) -> None:
        """Cancel announced frames that no caller waits for and that are not in ``keep``, if reading has not begun."""
        for index in self._guesses.difference(keep):
            self._guesses.discard(index)
            if self._frames[index].cancel():
                del self._frames[index]

    def _forget(self, index: int, future: Future[torch.Tensor]) -> None:
        with self._lock:
            if self._frames.get(index) is future:
                del self._frames[index]

    def _load(self, index: int) -> torch.Tensor:
        return to_model_size(self.source.read(index), self.image_size)


def to_model_size(
    picture: np.ndarray, image_size: int, box: tuple[float, float, float, float] | None = None
) -> torch.Tensor:
    """Resize a picture, or a part of it, to the size of the model image.

    Args:
        picture: ``(H, W, 3)`` uint8 RGB.
        image_size: Side ``S`` of the model image in pixels.
        box: Left, top, right and bottom of the part in pixels, which may be fractions; by default the whole picture.

    Returns:
        ``(3, S, S)`` uint8.
    """
    resized = np.asarray(Image.fromarray(picture).resize((image_size, image_size), box=box))
    # NumPy does the copy: a torch operation would start another thread pool for a thread that reads ahead.
    return torch.from_numpy(resized.transpose(2, 0, 1).copy())


def normalize(frames: torch.Tensor) -> torch.Tensor:
    """Normalize frames with ImageNet's mean and standard deviation.

    Args:
        frames: ``(..., 3, S, S)`` uint8.

    Returns:
        ``(..., 3, S, S)`` float32.

    Raises:
        ValueError: If the frames have another dtype or shape.
    """
    if frames.dtype != torch.uint8 or frames.ndim < 3 or frames.shape[-3] != 3:
        raise ValueError(f"frames: expected uint8 (...,3,S,S), got {frames.dtype} {tuple(frames.shape)}")
    scale, mean, std = _normalization(frames.device)
    return frames.to(torch.float32).div_(scale).sub_(mean).div_(std)


@functools.lru_cache(maxsize=8)
def _normalization(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return 255, the mean ``(3, 1, 1)`` and the standard deviation ``(3, 1, 1)`` as tensors on the device.

    255 is a tensor because CUDA divides by a Python number through its reciprocal, which is off by one bit.
    """
    # Cached for all callers, so these must be normal tensors even if the first caller is in inference mode.
    with torch.inference_mode(False):
        scale = torch.tensor(255.0, device=device)
        mean, std = (torch.tensor(values, device=device).reshape(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
        return scale, mean, std
