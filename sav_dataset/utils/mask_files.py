"""Trees of mask PNGs: lists their videos, objects and frames, and reads the masks.

A tree has a folder per video. It contains either a folder of binary masks per object (SA-V), or one label image per
frame, whose pixel values are objects (DAVIS, MOSE, LVOS, YouTube-VOS).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from i2v.errors import USER_ERRORS, StrPath
from i2v.results.rle import Mask, Size
from i2v.utils.listing import visible_entries
from sav_dataset.utils.label_pictures import Labels, ignored_labels_of, labels_in, read_binary, read_labels

ANY_LABEL = "255"
"""Name of the only object in benchmarks that distinguish just object and background, after DAVIS 2016."""


def list_videos(root: StrPath) -> list[str]:
    """List the videos of a tree, sorted.

    Raises:
        FileNotFoundError: If there is no such folder.
        NotADirectoryError: If it is a file.
    """
    return [entry.name for entry in visible_entries(root) if entry.is_dir()]


def natural_order(names: Iterable[str]) -> list[str]:
    """Sort names so that 2 comes before 10, with or without leading zeros."""
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


@dataclass(frozen=True)
class FrameMasks:
    """The masks of one frame.

    Attributes:
        image: ``(H, W)`` labels, or a mask.
        values: Label by object; ``None`` for all labels but 0.
        ignored: Labels that belong to no object.
    """

    image: Labels | Mask
    values: Mapping[str, int | None]
    ignored: frozenset[int] = frozenset()

    @property
    def size(self) -> Size:
        """Height and width."""
        height, width = self.image.shape
        return height, width

    def mask(self, obj: str) -> Mask:
        """Mask ``(H, W)`` of an object, empty if it is not in the image."""
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
    """The mask files of one video.

    Attributes:
        folder: Folder of the video.
        is_folder_per_object: Whether it has a folder per object (SA-V) instead of label images.
        single_object: Whether all labels of a label image count as one object, "255".
        ignored: Labels of label images that are not objects, besides 0; their pixels are void.
    """

    folder: Path
    is_folder_per_object: bool
    single_object: bool = False
    ignored: frozenset[int] = frozenset()

    @classmethod
    def open(
        cls, folder: StrPath, single_object: bool = False, ignore_labels: Collection[int] | None = None
    ) -> MaskVideo:
        """Open the folder of a video: if it contains folders, there is one per object, else label images.

        Args:
            folder: The folder.
            single_object: Whether all labels of a label image count as one object.
            ignore_labels: Void labels of label images; ``None`` for the rule of :func:`void_labels`, unless all labels
                are one object. Masks in folders of objects have no labels, and so no void ones.
        """
        has_folders = any(entry.is_dir() for entry in visible_entries(folder))
        video = cls(Path(folder), has_folders, single_object)
        if has_folders:
            return video
        if single_object and ignore_labels is None:
            return video
        files = (video.folder / frame for frame in video.frames())
        return replace(video, ignored=ignored_labels_of(files, ignore_labels))

    def has_void(self) -> bool:
        """Whether any label image that can be read has a pixel of an ignored label; reads no further than to it."""
        for frame in self.frames() if self.ignored else ():
            with contextlib.suppress(*USER_ERRORS):
                if self.read(frame).void is not None:
                    return True
        return False

    def objects(self) -> list[str]:
        """List the object folders in natural order; none for label images, whose objects are known only when read."""
        if not self.is_folder_per_object:
            return []
        return natural_order(entry.name for entry in visible_entries(self.folder) if entry.is_dir())

    def frames(self, obj: str | None = None) -> list[str]:
        """List the file names of an object's masks, or of the label images, sorted; none without a folder."""
        folder = self.folder / obj if obj is not None else self.folder
        if not folder.is_dir():
            return []
        return [entry.name for entry in visible_entries(folder) if entry.name.endswith(".png")]

    def read(self, frame: str, obj: str | None = None, size: Size | None = None) -> FrameMasks:
        """Read the masks of a frame.

        Args:
            frame: File name.
            obj: The object whose folder to read from; ``None`` for a label image.
            size: Expected height and width; ``None`` for any.

        Raises:
            InvalidFileError: If the file is not a mask, or has another size.
        """
        if obj is not None:
            return FrameMasks(read_binary(self.folder / obj / frame, size), {obj: None})
        labels = read_labels(self.folder / frame, size)
        if self.single_object:
            return FrameMasks(labels, {ANY_LABEL: None}, self.ignored)
        present = (label for label in labels_in(labels) if label not in self.ignored)
        return FrameMasks(labels, {str(label): label for label in present}, self.ignored)

    def first_masks(self, size: Size | None = None) -> Iterator[tuple[str, str, Mask]]:
        """Find the first non-empty mask of each object.

        Args:
            size: Expected height and width; ``None`` for any.

        Yields:
            Object, file name and mask, ordered by frame.
        """
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
