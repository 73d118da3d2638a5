"""Masks of one video or image: RLE in JSON (SA-V, SA-1B) and PNG files (DAVIS and similar)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from i2v.errors import InvalidFileError, StrPath, brief, locating
from i2v.results.rle import RunLengths, Size, read_size
from i2v.utils.image_file import read_image_size
from i2v.utils.json_file import JsonValue, read_json
from sav_dataset.utils.label_pictures import read_binary, read_labels


class SegmentLoader(Protocol):
    """Masks of one video by frame number and object number."""

    @property
    def frames(self) -> Sequence[int]:
        """Numbers of the annotated frames, ascending."""

    def visible(self, frame: int) -> Sequence[int]:
        """List the objects with at least one pixel on a frame, ascending."""

    def void(self, frame: int) -> Sequence[int]:
        """Labels on the frame that are no objects, beside 0; only label images have any."""

    def size(self, frame: int) -> Size:
        """Height and width of the masks of a frame, without decoding them."""

    def load(self, frame: int, objects: Sequence[int]) -> Tensor:
        """Load the masks ``(N, h, w)`` bool of these objects; the mask of an absent one is empty."""


class JSONSegmentLoader:
    """SA-V's masks: per annotated frame a list of RLEs, one per object; null and area 0 mean absent."""

    def __init__(self, path: StrPath, ann_every: int = 4, frames_fps: int = 24) -> None:
        """Parse the file.

        It holds the list itself, or an object with the list under ``masklet`` or ``masks``. Entry i is for frame
        ``i * ann_every`` of the video. A key ``fps`` overrides this with the annotation rate.

        Args:
            path: The file.
            ann_every: Frames of the video per annotated frame.
            frames_fps: Frame rate of the video, a multiple of the annotation rate.

        Raises:
            InvalidFileError: If the file has another format.
        """
        self._path = os.fspath(path)
        content = read_json(path)
        self._ann_every = ann_every
        if isinstance(content.value, dict):
            fps = content.get("fps")
            if fps is not None:
                self._ann_every = _frames_per_annotation(fps, frames_fps)
            masks = content.get("masklet") or content.get("masks")
            if masks is None:
                content.fail("no list of masks under the key masklet or masks")
            content = masks
        self._entries = [entry.value for entry in content.elements()]

    @property
    def frames(self) -> Sequence[int]:
        return [i * self._ann_every for i, entry in enumerate(self._entries) if isinstance(entry, list)]

    def visible(self, frame: int) -> Sequence[int]:
        """List the objects with area on a frame, without decoding masks."""
        rles = enumerate(self._rles(frame))
        return [i for i, rle in rles if rle is not None and _read_rle(rle, self._path, _place(frame, i)).area > 0]

    def void(self, frame: int) -> Sequence[int]:
        return ()

    def size(self, frame: int) -> Size:
        """Height and width given by the masks of the frame or, if it has none, by any in the file."""
        entries = itertools.chain([self._rles(frame)], self._entries)
        rles = (rle for entry in entries if isinstance(entry, list) for rle in entry)
        with locating(self._path, f"frame {frame}"):
            return read_size(next(filter(None, rles), None))

    def load(self, frame: int, objects: Sequence[int]) -> Tensor:
        """Load masks ``(N, h, w)`` bool.

        Raises:
            InvalidFileError: If the file lacks the frame or an object, or an RLE is damaged.
        """
        rles = self._rles(frame)
        if objects and max(objects) >= len(rles):
            raise InvalidFileError(self._path, f"this frame has {len(rles)} objects", _place(frame, max(objects)))
        size = self.size(frame)
        masks = (None if rles[i] is None else _read_rle(rles[i], self._path, _place(frame, i), size) for i in objects)
        return _stack([np.zeros(size, bool) if rle is None else rle.mask() for rle in masks], size)

    def _rles(self, frame: int) -> list[Any]:
        entry, rest = divmod(frame, self._ann_every)
        if rest or not 0 <= entry < len(self._entries) or not isinstance(self._entries[entry], list):
            raise InvalidFileError(self._path, f"frame {frame} is not annotated")
        return self._entries[entry]


class SA1BSegmentLoader:
    """Masks of one image of SA-1B, whose only frame is number 0. Masks are decoded on request."""

    def __init__(self, path: StrPath, mask_area_frac_thresh: float = 1.1, uncertain_iou: float = -1.0) -> None:
        """Parse the file and filter its masks; empty ones are dropped.

        Args:
            path: The file.
            mask_area_frac_thresh: Drop masks that cover at least this fraction of the image; above 1 keeps all.
            uncertain_iou: Drop masks whose ``uncertain_iou`` in the file, if given, is lower.

        Raises:
            InvalidFileError: If the file has another format, or its masks differ in size.
        """
        self._path = os.fspath(path)
        self._size: Size = (1, 1)
        self._rles = []
        for number, annotation in enumerate(read_json(path).member("annotations").elements()):
            rle = annotation.member("segmentation").value
            with locating(self._path, annotation.place):
                size = read_size(rle)
            if number and size != self._size:
                annotation.fail(f"the mask is {size[1]}x{size[0]}, those before it {self._size[1]}x{self._size[0]}")
            self._size = size
            area, uncertain = annotation.get("area"), annotation.get("uncertain_iou")
            if area is None or not isinstance(area.value, int | float):
                pixels: float = _read_rle(rle, self._path, annotation.place).area
            else:
                pixels = area.value
            too_big = mask_area_frac_thresh <= 1 and pixels >= mask_area_frac_thresh * size[0] * size[1]
            certain = uncertain is None or uncertain.number() >= uncertain_iou
            if pixels > 0 and not too_big and certain:
                self._rles.append(rle)

    @property
    def frames(self) -> Sequence[int]:
        return [0]

    def visible(self, frame: int) -> Sequence[int]:
        """List the kept masks, numbered from 0 in the order of the file."""
        return range(len(self._rles))

    def void(self, frame: int) -> Sequence[int]:
        return ()

    def size(self, frame: int) -> Size:
        return self._size

    def load(self, frame: int, objects: Sequence[int]) -> Tensor:
        """Load masks ``(N, h, w)`` bool."""
        rles = (_read_rle(self._rles[i], self._path, f"mask {i}", self._size) for i in objects)
        return _stack([rle.mask() for rle in rles], self._size)


class PalettisedPNGSegmentLoader:
    """One PNG per frame with all objects: an object's number is its label, see :func:`read_labels`."""

    def __init__(self, files: Mapping[int, Path], ignored_labels: Collection[int] = ()) -> None:
        """Keep the paths; masks are read on request.

        Args:
            files: PNG by frame number.
            ignored_labels: Labels that count as background, see :func:`ignored_labels_of`.
        """
        self._files = files
        self._ignored = {0, *ignored_labels}
        self._last: tuple[int, np.ndarray] | None = None

    @property
    def frames(self) -> Sequence[int]:
        return sorted(self._files)

    def visible(self, frame: int) -> Sequence[int]:
        return [int(label) for label in np.unique(self._labels(frame)) if int(label) not in self._ignored]

    def void(self, frame: int) -> Sequence[int]:
        return [int(label) for label in np.unique(self._labels(frame)) if label and int(label) in self._ignored]

    def size(self, frame: int) -> Size:
        return read_image_size(self._files[frame])

    def load(self, frame: int, objects: Sequence[int]) -> Tensor:
        labels = self._labels(frame)
        return _stack([labels == label for label in objects], labels.shape)

    def _labels(self, frame: int) -> np.ndarray:
        # The sampler reads the first frame's labels just before they are loaded.
        if self._last is None or self._last[0] != frame:
            self._last = (frame, read_labels(self._files[frame]))
        return self._last[1]


class MultiplePNGSegmentLoader:
    """One binary PNG per object and frame, in a folder per object; a missing file means absent."""

    def __init__(self, folders: Mapping[int, Mapping[int, Path]]) -> None:
        """Keep the paths; masks are read on request.

        Args:
            folders: PNG by object number and frame number.
        """
        self._folders = folders

    @property
    def frames(self) -> Sequence[int]:
        return sorted({frame for files in self._folders.values() for frame in files})

    def visible(self, frame: int) -> Sequence[int]:
        return [
            number
            for number, files in sorted(self._folders.items())
            if frame in files and read_binary(files[frame]).any()
        ]

    def void(self, frame: int) -> Sequence[int]:
        return ()

    def size(self, frame: int) -> Size:
        return read_image_size(self._any_file(frame))

    def load(self, frame: int, objects: Sequence[int]) -> Tensor:
        size = self.size(frame)
        masks = []
        for number in objects:
            path = self._folders[number].get(frame)
            mask = np.zeros(size, bool) if path is None else read_binary(path)
            if path is not None and mask.shape != size:
                other = self._any_file(frame)
                raise InvalidFileError(path, f"expected a mask of size {size} like {other}, got {mask.shape}")
            masks.append(mask)
        return _stack(masks, size)

    def _any_file(self, frame: int) -> Path:
        return next(files[frame] for files in self._folders.values() if frame in files)


def _read_rle(rle: Any, path: str, place: str, size: Size | None = None) -> RunLengths:
    """Parse an RLE in COCO's format, see :meth:`RunLengths.of_coco`; errors name the file and the place in it."""
    with locating(path, place):
        return RunLengths.of_coco(rle, size)


def _place(frame: int, i: int) -> str:
    return f"frame {frame}, object {i}"


def _frames_per_annotation(fps: JsonValue, frames_fps: int) -> int:
    # Some files list one rate per object.
    rate = next(fps.elements(), fps).number() if isinstance(fps.value, list) else fps.number()
    if rate <= 0 or frames_fps % rate:
        fps.fail(f"expected a divisor of {frames_fps} as annotation rate, got {brief(fps.value)}")
    return int(frames_fps // rate)


def _stack(masks: Sequence[np.ndarray], size: Sequence[int]) -> Tensor:
    """Stack masks as ``(N, h, w)`` bool, also for N = 0."""
    if not masks:
        return torch.zeros(0, *size, dtype=torch.bool)
    return torch.from_numpy(np.stack(masks))
