"""Predicted masks to disk: PNGs written beside the tracking, in folders that appear once they are complete."""

from __future__ import annotations

import glob
import os
import shutil
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from i2v.utils.files import replacing

MAX_WAITING = 64  # PNGs of a folder that may wait for the disk before the tracking does

SaveImage = Callable[[Path, NDArray[Any]], None]


def write_binary_png(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write a mask (H,W) as a PNG of one bit per pixel, which readers show as 0 and 255."""
    with replacing(path) as temporary:
        Image.fromarray(mask).save(temporary, format="PNG")


class MaskFolder:
    """A folder of PNGs under a hidden name, which gets its own name when the block ends without an error.

    So a folder that is there is complete. Left-overs of runs that were killed are removed first.
    """

    def __init__(self, folder: Path, save: SaveImage, threads: ThreadPoolExecutor) -> None:
        self.folder = folder
        self._save = save
        self._threads = threads
        self._hidden = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> MaskFolder:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.parent.glob(f".{glob.escape(self.folder.name)}.*.tmp"):
            shutil.rmtree(leftover)
        self._hidden.mkdir()
        return self

    def put(self, name: str, image: NDArray[Any]) -> None:
        """Write an image, in the background. Raises what an earlier write has raised, as on a full disk."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= MAX_WAITING):
            self._waiting.popleft().result()
        self._waiting.append(self._threads.submit(self._save, self._hidden / name, image))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                while self._waiting:
                    self._waiting.popleft().result()
                shutil.rmtree(self.folder, ignore_errors=True)
                self._hidden.rename(self.folder)
        finally:
            wait([future for future in self._waiting if not future.cancel()])
            shutil.rmtree(self._hidden, ignore_errors=True)
