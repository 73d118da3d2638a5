"""Frames at the model's size, read ahead of their use."""

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

from i2v.video.frame_source import FrameSource

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Frames that the model looks at together with the current one; the cache has to have room for them.
WINDOW_LENGTH = 5


class FrameLoader:
    """Frames of a source as uint8 tensors (3,S,S): those used last are kept, the next ones read ahead.

    May be used from several threads, and beside other loaders of the same source, which it does not close.
    Its background thread is joined by `close`, and ends with the loader or the program if nobody calls that. It does
    not survive a fork: in a process that was forked, the methods raise RuntimeError.
    """

    def __init__(self, source: FrameSource, image_size: int, capacity: int = 24, ahead: int = 8) -> None:
        """Keep at most `capacity` frames, 3 * `image_size`^2 bytes each, and read at most `ahead` ahead.

        Less is read ahead if the capacity does not leave room for a window of 5 frames besides. ValueError
        unless `image_size` and `capacity` are at least 1 and `ahead` at least 0.
        """
        for name, value, least in (
            ("image_size", image_size, 1),
            ("capacity", capacity, 1),
            ("ahead", ahead, 0),
        ):
            if value < least:
                raise ValueError(f"{name}: got {value}, expected at least {least}")
        self.source = source
        self.image_size = image_size
        self._capacity = capacity
        self._ahead = max(min(ahead, capacity - WINDOW_LENGTH), 0)
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._frames: OrderedDict[int, Future[torch.Tensor]] = OrderedDict()  # least recently used first
        self._guesses: set[int] = set()  # asked of the thread by `expect`, and by no caller yet
        # One thread that works first come, first served: what is asked in order is decoded in order.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="i2v-frames")

    def get(self, index: int) -> torch.Tensor:
        """Frame `index` (3,S,S) uint8, shared with later calls; what reading it raised is raised here."""
        self._check_process()
        future = self._request(index)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError(f"{self.source.name}: closed while frame {index} was waited for") from None
        finally:
            if future.done() and (future.cancelled() or future.exception() is not None):
                self._forget(index, future)

    def expect(self, index: int, step: int) -> None:
        """Say that frames are being used from `index` on, upward (`step` 1) or downward (-1).

        The thread reads `index` and up to `ahead` frames beyond it, and forgets what it was going to read
        otherwise. A live source is never read ahead.
        """
        self._check_process()
        if step not in (1, -1):
            raise ValueError(f"step: got {step}, expected 1 or -1")
        count = self.source.num_frames
        if count is None:
            return
        wanted = [i for i in range(index, index + step * (self._ahead + 1), step) if 0 <= i < count]
        with self._lock:
            if self._closed:
                return
            self._drop_guesses(keep=wanted)
            for i in reversed(wanted):  # the nearest is to stay longest
                if i in self._frames:
                    self._frames.move_to_end(i)
            for i in wanted:
                if i not in self._frames:
                    self._guesses.add(i)
                    self._submit(i)

    def close(self) -> None:
        """Stop reading; returns when the frame being read is done. `get` raises RuntimeError from then on."""
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
                raise RuntimeError(f"{self.source.name}: frame {index} was asked for after the loader was closed")
            self._guesses.discard(index)
            future = self._frames.get(index)
            if future is not None:
                self._frames.move_to_end(index)
                return future
            if self.source.num_frames is not None:
                # The guess was wrong: do not let the caller wait for it.
                self._drop_guesses(keep=())
                return self._submit(index)
        # A camera's iterator belongs to the caller's thread.
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
        """Take back what the thread has not begun to read, nobody waits for, and is not to be kept."""
        for index in self._guesses.difference(keep):
            self._guesses.discard(index)
            if self._frames[index].cancel():
                del self._frames[index]

    def _forget(self, index: int, future: Future[torch.Tensor]) -> None:
        with self._lock:
            if self._frames.get(index) is future:
                del self._frames[index]

    def _load(self, index: int) -> torch.Tensor:
        picture = Image.fromarray(self.source.read(index))
        resized = np.asarray(picture.resize((self.image_size, self.image_size)))
        # Copied by NumPy: a torch operation would start a thread pool of its own in this thread.
        return torch.from_numpy(resized.transpose(2, 0, 1).copy())


def normalize(frames: torch.Tensor) -> torch.Tensor:
    """Frames (...,3,S,S) uint8 -> float32 as the model takes them: over 255, less the mean, over the std."""
    if frames.dtype != torch.uint8 or frames.ndim < 3 or frames.shape[-3] != 3:
        raise ValueError(f"frames: got {frames.dtype} {tuple(frames.shape)}, expected uint8 (...,3,S,S)")
    scale, mean, std = _normalization(frames.device)
    return frames.to(torch.float32).div_(scale).sub_(mean).div_(std)


@functools.lru_cache(maxsize=8)
def _normalization(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """255, mean (3,1,1) and deviation (3,1,1), on the device.

    255 is a tensor because CUDA divides by a plain number through its reciprocal, which is off by a bit.
    """
    # Made once for all sessions, so they must not be tied to the inference mode of the first.
    with torch.inference_mode(False):
        scale = torch.tensor(255.0, device=device)
        mean, std = (torch.tensor(values, device=device).reshape(3, 1, 1) for values in (MEAN, STD))
        return scale, mean, std
