"""Writes predicted masks as PNGs in the background, to folders that appear once they are complete."""

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

from i2v.results.export import write_label_png
from i2v.utils.output_folder import child, new_folder
from i2v.utils.picture_file import write_picture

MAX_WAITING = 64  # queued PNGs of a folder; with more, tracking waits for the disk

SaveImage = Callable[[Path, NDArray[Any]], None]


def write_binary_png(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write a mask ``(H, W)`` as a 1-bit PNG, which readers show as 0 and 255."""
    write_picture(path, Image.fromarray(mask), "PNG")


def write_labels(path: Path, labels: NDArray[Any]) -> None:
    """Write labels ``(H, W)`` from 0 to 16777215 as ``sav_dataset.utils.label_pictures`` reads them.

    A palette PNG holds those of uint8, a 16-bit or colour PNG larger ones.
    """
    if labels.dtype == np.uint8:
        write_label_png(path, labels)
    elif labels.max() < 1 << 16:
        write_picture(path, Image.fromarray(labels.astype(np.uint16)), "PNG")
    else:
        colours = np.stack([(labels >> shift) & 255 for shift in (16, 8, 0)], axis=-1)
        write_picture(path, Image.fromarray(colours.astype(np.uint8)), "PNG")


@contextlib.contextmanager
def mask_folder(
    parent: Path, name: str, save: SaveImage, threads: ThreadPoolExecutor, overwrite: bool = False
) -> Iterator[MaskFolder]:
    """Write a folder of images, which appears when the block ends without an error.

    An existing folder is therefore complete. Temporary files of killed runs are removed first.

    Args:
        parent: Where the folder is created.
        name: Name of the folder; it may come from a file, so it must not lead out of ``parent``.
        save: Writes an image.
        threads: Where images are written.
        overwrite: Whether to replace an existing folder.

    Yields:
        The folder to put images into.

    Raises:
        FileExistsError: If the folder exists and ``overwrite`` is false, or it contains other files.
        ValueError: If the name leads out of ``parent``, or the folder is a symbolic link.
        OSError: If writing failed.
    """
    with new_folder(parent, name, overwrite=overwrite) as hidden:
        folder = MaskFolder(hidden, save, threads)
        try:
            yield folder
            folder.finish()
        finally:
            folder.abandon()


class MaskFolder:
    """Writes the images of a folder in the background."""

    def __init__(self, folder: Path, save: SaveImage, threads: ThreadPoolExecutor) -> None:
        """Create a writer for an existing folder; the arguments are those of :func:`mask_folder`."""
        self._folder = folder
        self._save = save
        self._threads = threads
        self._waiting: deque[Future[None]] = deque()

    def put(self, name: str, image: NDArray[Any]) -> None:
        """Queue an image for writing.

        Args:
            name: File name.
            image: What to pass to ``save``.

        Raises:
            OSError: If an earlier write failed, for example because the disk is full.
        """
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= MAX_WAITING):
            self._waiting.popleft().result()
        self._waiting.append(self._threads.submit(self._save, child(self._folder, name), image))

    def finish(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: If writing failed.
        """
        while self._waiting:
            self._waiting.popleft().result()

    def abandon(self) -> None:
        """Drop queued images, and wait for those being written."""
        wait([future for future in self._waiting if not future.cancel()])
