"""Trees of mask PNGs: which videos, objects and frames they hold, and the masks themselves.

A tree has a folder for every video. In it lies either a folder of binary masks for every object (SA-V), or one label
image for every frame, whose pixels say which object they belong to (DAVIS, MOSE, LVOS, YouTube-VOS).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from i2v.errors import USER_ERRORS, InvalidFileError, StrPath
from i2v.results.rle import Mask, Size
from i2v.utils.image_file import load_image
from sav_dataset.utils.void_labels import void_labels

ANY_LABEL = "255"
"""The one object of a benchmark that tells object from background only, as DAVIS 2016 writes it."""


def list_videos(root: StrPath) -> list[str]:
    """Names of the videos of a tree, sorted. Raises FileNotFoundError or NotADirectoryError for a bad root."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def natural_order(names: Iterable[str]) -> list[str]:
    """Names sorted so that 2 comes before 10, with or without leading zeros."""
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


@dataclass(frozen=True)
class FrameMasks:
    """The masks of one frame: an image (H,W), and its value for every object; None: all values but 0.

    ``ignored``: values that belong to no object.
    """

    image: NDArray[np.uint8] | Mask
    values: Mapping[str, int | None]
    ignored: frozenset[int] = frozenset()

    @property
    def size(self) -> Size:
        """Height and width."""
        height, width = self.image.shape
        return height, width

    def mask(self, obj: str) -> Mask:
        """An object's mask (H,W), empty if the frame does not have one."""
        if obj not in self.values:
            return np.zeros(self.size, np.bool_)
        value = self.values[obj]
        if value is not None:
            return self.image == value
        void = self.void
        return self.image != 0 if void is None else (self.image != 0) & ~void

    @property
    def void(self) -> Mask | None:
        """The pixels (H,W) of ignored values; None where there are none."""
        if not self.ignored:
            return None
        found = np.isin(self.image, sorted(self.ignored))
        return found if found.any() else None


@dataclass(frozen=True)
class MaskVideo:
    """The mask files of one video. ``is_folder_per_object``: SA-V's layout, else label images.

    ``single_object``: all labels of a label image count as one object, "255". ``ignored``: labels of label images that
    are no objects, beside 0; pixels that have them are void.
    """

    folder: Path
    is_folder_per_object: bool
    single_object: bool = False
    ignored: frozenset[int] = frozenset()

    @classmethod
    def open(
        cls, folder: StrPath, single_object: bool = False, ignore_labels: Collection[int] | None = None
    ) -> MaskVideo:
        """Look at a video's folder: one with folders in it has one for every object, another one label images.

        ``ignore_labels``: void labels of label images; None for the rule of :func:`void_labels`, which holds where
        labels tell objects apart. Masks in folders of objects have no labels, and so no void ones.
        """
        with os.scandir(folder) as entries:
            has_folders = any(entry.is_dir() and not entry.name.startswith(".") for entry in entries)
        video = cls(Path(folder), has_folders, single_object)
        if has_folders:
            return video
        if ignore_labels is not None:
            return replace(video, ignored=frozenset(ignore_labels))
        return video if single_object else replace(video, ignored=void_labels(video._labels()))

    def _labels(self) -> Iterator[list[int]]:
        """The labels of each label image that can be read; whoever reads the others is told what is wrong."""
        for frame in self.frames():
            with contextlib.suppress(*USER_ERRORS):
                values, is_one_bit = _read(self.folder / frame, None)
                yield [255] if is_one_bit else labels_in(values)

    def has_void(self) -> bool:
        """Whether any label image has a pixel of an ignored label; reads no further than to the first."""
        return bool(self.ignored) and any(not self.ignored.isdisjoint(labels) for labels in self._labels())

    def objects(self) -> list[str]:
        """Object folders in natural order. Label images name theirs only when they are read."""
        if not self.is_folder_per_object:
            return []
        return natural_order(name for name in _visible(self.folder) if (self.folder / name).is_dir())

    def frames(self, obj: str | None = None) -> list[str]:
        """Sorted file names of an object's masks, or of the label images; none without a folder."""
        folder = self.folder / obj if obj is not None else self.folder
        if not folder.is_dir():
            return []
        return sorted(name for name in _visible(folder) if name.endswith(".png"))

    def read(self, frame: str, obj: str | None = None, size: Size | None = None) -> FrameMasks:
        """The masks of a file: that of ``obj``, or of all labels that a label image has.

        InvalidFileError for a file that is no mask, or has not the ``size`` that is wanted.
        """
        if obj is not None:
            return FrameMasks(read_binary(self.folder / obj / frame, size), {obj: None})
        labels = read_labels(self.folder / frame, size)
        if self.single_object:
            return FrameMasks(labels, {ANY_LABEL: None}, self.ignored)
        present = (label for label in labels_in(labels) if label not in self.ignored)
        return FrameMasks(labels, {str(label): label for label in present}, self.ignored)

    def first_masks(self, size: Size | None = None) -> Iterator[tuple[str, str, Mask]]:
        """Object, file name and mask where each object is first seen, in order of frames; never seen: left out."""
        if self.is_folder_per_object:
            found = [first for obj in self.objects() for first in self._first_masks(obj, size)]
            yield from sorted(found, key=lambda first: first[1])
        else:
            yield from self._first_masks(None, size)

    def _first_masks(self, obj: str | None, size: Size | None) -> Iterator[tuple[str, str, Mask]]:
        known: set[str] = set()
        for frame in self.frames(obj):
            masks = self.read(frame, obj, size)
            for name in (name for name in masks.values if name not in known):
                mask = masks.mask(name)
                if mask.any():
                    known.add(name)
                    yield name, frame, mask
            if obj in known:
                return


def read_binary(path: StrPath, size: Size | None = None) -> Mask:
    """Mask (H,W) of a PNG: pixels that are not 0.

    InvalidFileError if it has more than two values, is no PNG of one, or has not the ``size`` that is wanted.
    """
    values, is_one_bit = _read(path, size)
    if not is_one_bit:
        low, high = values.min(), values.max()
        if not ((values == low) | (values == high)).all():
            raise InvalidFileError(path, f"expected a binary mask, got the values {np.unique(values)[:8].tolist()}")
    return values != 0


def read_labels(path: StrPath, size: Size | None = None) -> NDArray[np.uint8]:
    """Pixels (H,W) of a palette or grey PNG as stored, of a 1-bit one 0 and 255; else as ``read_binary``."""
    values, is_one_bit = _read(path, size)
    return np.where(values, np.uint8(255), np.uint8(0)) if is_one_bit else values


def _read(path: StrPath, size: Size | None) -> tuple[NDArray[np.uint8], bool]:
    """Pixels of a PNG, and whether it has one bit for each; then ones are any numbers but 0."""
    image = load_image(path, formats=("PNG",), size=size)
    if image.mode not in ("P", "L", "1"):
        raise InvalidFileError(path, f"expected a palette, grey or 1-bit image, got one of mode {image.mode}")
    # Pillow gives a 1-bit image as bools, but does not say what bytes these are.
    return np.asarray(image).view(np.uint8), image.mode == "1"


def labels_in(labels: NDArray[np.uint8]) -> list[int]:
    """The labels of a label image, without 0, ascending."""
    counts = np.bincount(labels.reshape(-1), minlength=256)
    return [int(label) for label in np.flatnonzero(counts) if label]


def _visible(folder: StrPath) -> list[str]:
    # A leading dot marks hidden files: unfinished ones, and what macOS leaves beside each copied picture.
    return [name for name in os.listdir(folder) if not name.startswith(".")]
