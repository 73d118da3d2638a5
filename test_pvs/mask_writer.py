"""Predicted masks to disk: PNGs written beside the tracking, in folders that appear once they are complete."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from i2v.utils.files import replacing_folder
from i2v.utils.picture_file import write_picture

MAX_WAITING = 64  # PNGs of a folder that may wait for the disk before the tracking does

SaveImage = Callable[[Path, NDArray[Any]], None]


def write_binary_png(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write a mask (H,W) as a PNG of one bit per pixel, which readers show as 0 and 255."""
    write_picture(path, Image.fromarray(mask), "PNG")


class MaskFolder:
    """A folder of PNGs under a hidden name, which gets its own name when the block ends without an error.

    So a folder that is there is complete. What runs that were killed have left beside it is removed first.
    """

    def __init__(self, folder: Path, save: SaveImage, threads: ThreadPoolExecutor) -> None:
        self.folder = folder
        self._save = save
        self._threads = threads
        self._hidden = folder
        self._waiting: deque[Future[None]] = deque()
        self._block = self._replacing()

    def put(self, name: str, image: NDArray[Any]) -> None:
        """Write an image, in the background. Raises what an earlier write has raised, as on a full disk."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= MAX_WAITING):
            self._waiting.popleft().result()
        self._waiting.append(self._threads.submit(self._save, self._hidden / name, image))

    def __enter__(self) -> MaskFolder:
        self._block.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._block.__exit__(kind, error, trace)

    @contextmanager
    def _replacing(self) -> Iterator[None]:
        with replacing_folder(self.folder) as self._hidden:
            try:
                yield
                while self._waiting:
                    self._waiting.popleft().result()
            finally:
                wait([future for future in self._waiting if not future.cancel()])
