"""Predicted masks to disk: PNGs written beside the tracking, in folders that appear once they are complete."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from i2v.utils.output_folder import child, new_folder
from i2v.utils.picture_file import write_picture

MAX_WAITING = 64  # PNGs of a folder that may wait for the disk before the tracking does

SaveImage = Callable[[Path, NDArray[Any]], None]


def write_binary_png(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write a mask (H,W) as a PNG of one bit per pixel, which readers show as 0 and 255."""
    write_picture(path, Image.fromarray(mask), "PNG")


@contextlib.contextmanager
def mask_folder(
    parent: Path, name: str, save: SaveImage, threads: ThreadPoolExecutor, overwrite: bool = False
) -> Iterator[MaskFolder]:
    """A folder of images that appears when the block ends without an error, so it is complete.

    So a folder that is there is complete. What runs that were killed have left beside it is removed first.
    ``name``, of a folder right below ``parent``, may come from a file. Raises as `new_folder` does, and what writing an
    image has raised.
    """
    with new_folder(parent, name, overwrite=overwrite) as hidden:
        folder = MaskFolder(hidden, save, threads)
        try:
            yield folder
            folder.finish()
        finally:
            folder.abandon()


class MaskFolder:
    """Images of a folder, written in the background."""

    def __init__(self, folder: Path, save: SaveImage, threads: ThreadPoolExecutor) -> None:
        self._folder = folder
        self._save = save
        self._threads = threads
        self._waiting: deque[Future[None]] = deque()

    def put(self, name: str, image: NDArray[Any]) -> None:
        """Write an image. Raises what an earlier write has raised, as on a full disk."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= MAX_WAITING):
            self._waiting.popleft().result()
        self._waiting.append(self._threads.submit(self._save, child(self._folder, name), image))

    def finish(self) -> None:
        """Wait until all is written. Raises what writing has raised."""
        while self._waiting:
            self._waiting.popleft().result()

    def abandon(self) -> None:
        """Drop what has not begun, and wait for what is being written."""
        wait([future for future in self._waiting if not future.cancel()])
