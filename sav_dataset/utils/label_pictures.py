"""Reading annotations that are PNGs: label images and binary masks, for training, testing and scoring alike."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from i2v.errors import USER_ERRORS, InvalidFileError, StrPath
from i2v.prompts.mask_file import HALF_OPAQUE
from i2v.prompts.mask_values import GREY_LEVELS, has_grey_levels
from i2v.results.rle import Mask, Size
from i2v.utils.image_file import load_image
from sav_dataset.utils.void_labels import void_labels

Labels = NDArray[np.uint8] | NDArray[np.int32]


def read_labels(path: StrPath, size: Size | None = None) -> Labels:
    """Read a label image.

    Labels are the indices of palette images, the values of grey images (255 for white), and red * 65536 + green * 256 +
    blue for colour images. What is transparent is background.

    Args:
        path: The file.
        size: Expected height and width; ``None`` for any.

    Returns:
        Labels ``(H, W)``, 0 for background: uint8 where the file has 8 bits, else int32.

    Raises:
        InvalidFileError: If the file is no PNG, damaged, too large or of another size, or has grey levels instead of
            labels.
    """
    labels, mode = _read(path, size)
    if mode in ("L", "LA") and has_grey_levels(labels.astype(np.uint8, copy=False)):
        raise InvalidFileError(path, GREY_LEVELS)
    return labels


def read_binary(path: StrPath, size: Size | None = None) -> Mask:
    """Read a binary mask ``(H, W)``: pixels that are neither 0 nor transparent.

    Args:
        path: The file.
        size: Expected height and width; ``None`` for any.

    Raises:
        InvalidFileError: If the image has more than two values, or as ``read_labels``.
    """
    values, _ = _read(path, size)
    low, high = values.min(), values.max()
    if not ((values == low) | (values == high)).all():
        raise InvalidFileError(path, f"expected a binary mask, got the values {np.unique(values)[:8].tolist()}")
    return np.asarray(values != 0)


def labels_in(labels: NDArray[Any]) -> list[int]:
    """List the labels of a label image ``(H, W)``, without 0, ascending."""
    if labels.dtype != np.uint8:
        return [int(label) for label in np.unique(labels) if label]
    counts = np.bincount(labels.reshape(-1), minlength=256)
    return [int(label) for label in np.flatnonzero(counts) if label]


def ignored_labels_of(files: Iterable[Path], ignored_labels: Collection[int] | None) -> frozenset[int]:
    """Find the labels of the label images of a video that are no objects.

    Args:
        files: The images; those that cannot be read are passed over, as whoever reads them is told what is wrong.
        ignored_labels: The labels, if they are given; ``None`` for those of ``void_labels``. That rule is for labels of
            8 bits: among colours, and where there is room for more labels, 255 is one like any other.
    """
    return void_labels(_labels_of_8_bits(files)) if ignored_labels is None else frozenset(ignored_labels)


def _labels_of_8_bits(files: Iterable[Path]) -> Iterator[list[int]]:
    for path in files:
        with contextlib.suppress(*USER_ERRORS):
            labels, _ = _read(path, None)
            if labels.dtype == np.uint8:
                yield labels_in(labels)


def _read(path: StrPath, size: Size | None) -> tuple[Labels, str]:
    """The labels of a PNG, and its mode."""
    image = load_image(path, formats=("PNG",), size=size)
    if image.mode in ("P", "L"):
        return np.asarray(image), image.mode
    if image.mode == "1":
        return np.asarray(image.convert("L")), image.mode
    if image.mode == "LA":
        return np.asarray(image.convert("L")) * _opaque(image), image.mode
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.int32), image.mode
    colours = np.asarray(image.convert("RGB")).astype(np.int32)
    return ((colours[..., 0] << 16) | (colours[..., 1] << 8) | colours[..., 2]) * _opaque(image), image.mode


def _opaque(image: Image.Image) -> NDArray[np.uint8]:
    """Where a picture is at least half opaque ``(H, W)``: 0 or 1."""
    if not image.mode.endswith(("A", "a")):
        return np.ones((image.height, image.width), np.uint8)
    return (np.asarray(image.getchannel(image.mode[-1])) >= HALF_OPAQUE).astype(np.uint8)
