"""Masks of one video or image: RLE in JSON (SA-V, SA-1B) and PNG files (DAVIS and its like)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from train.dataset.frame_reader import read_labels, reading


class SegmentLoader(Protocol):
    """Masks of one video by frame number and object number."""

    @property
    def frames(self) -> Sequence[int]:
        """Numbers of the annotated frames, ascending."""

    def visible(self, frame: int) -> Sequence[int]:
        """Objects that have at least one pixel on the frame, ascending."""

    def load(self, frame: int, objects: Sequence[int]) -> Tensor:
        """Masks (N,h,w) bool of these objects, empty where one is absent."""


class JSONSegmentLoader:
    """SA-V's masks: per annotated frame a list of RLEs, one for each object; null and area 0 mean absent."""

    def __init__(self, path: str | os.PathLike[str], ann_every: int = 4, frames_fps: int = 24) -> None:
        """Parse the file.

        It holds the list itself or an object with it under `masklet` or `masks`. Entry i belongs to frame
        `i * ann_every` of the video; a key `fps` gives the rate of annotation instead, which has to divide
        `frames_fps`. ValueError names a file that is not so.
        """
        self._path = os.fspath(path)
        content = _parse_json(self._path)
        self._ann_every = ann_every
        if isinstance(content, dict):
            if content.get("fps") is not None:
                self._ann_every = _frames_per_annotation(content["fps"], frames_fps, self._path)
            content = content.get("masklet", content.get("masks"))
        if not isinstance(content, list):
            raise ValueError(f"{self._path}: no list of masks under the key masklet or masks")
        self._entries = content

    @property
    def frames(self) -> Sequence[int]:
        return [i * self._ann_every for i, entry in enumerate(self._entries) if isinstance(entry, list)]

    def visible(self, frame: int) -> Sequence[int]:
        """Objects with area on the frame, found without decoding a mask."""
        rles = self._rles(frame)
        return [i for i, rle in enumerate(rles) if rle is not None and rle_area(rle, self._where(frame, i)) > 0]

    def load(self, frame: int, objects: Sequence[int]) -> Tensor:
        """Masks (N,h,w) bool; ValueError names a frame or an object that the file lacks, or a damaged RLE."""
        rles = self._rles(frame)
        if max(objects, default=0) >= len(rles):
            raise ValueError(f"{self._where(frame, max(objects))}: this frame has {len(rles)} objects")
        masks = [None if rles[i] is None else decode_rle(rles[i], self._where(frame, i)) for i in objects]
        size = next((mask.shape for mask in masks if mask is not None), None) or self._any_size()
        return _stack([np.zeros(size, bool) if mask is None else mask for mask in masks], size)

    def _any_size(self) -> tuple[int, int]:
        """Height and width from any RLE of the file."""
        return _size(next((rle for entry in self._entries for rle in entry or () if rle), None), self._path)

    def _rles(self, frame: int) -> list[Any]:
        entry, rest = divmod(frame, self._ann_every)
        if rest or not 0 <= entry < len(self._entries) or not isinstance(self._entries[entry], list):
            raise ValueError(f"{self._path}: frame {frame} is not annotated")
        return self._entries[entry]

    def _where(self, frame: int, i: int) -> str:
        return f"{self._path}: frame {frame}, object {i}"


class SA1BSegmentLoader:
    """Masks of one image of SA-1B; its only frame has the number 0. A mask is decoded when asked for."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        mask_area_frac_thresh: float = 1.1,
        uncertain_iou: float = -1.0,
    ) -> None:
        """Keep masks with pixels, of less than this share of the image (a threshold above 1 keeps all) and, where
        the file says how uncertain their IoU is, of at least that. ValueError for a file of another kind."""
        self._path = os.fspath(path)
        content = _parse_json(self._path)
        annotations = content.get("annotations") if isinstance(content, dict) else None
        if not isinstance(annotations, list):
            raise ValueError(f"{self._path}: no list under the key annotations")
        self._rles = []
        for number, annotation in enumerate(annotations):
            where = f"{self._path}: annotation {number}"
            if not isinstance(annotation, dict):
                raise ValueError(f"{where}: wanted an object, got {annotation!r:.40}")
            rle, area = annotation.get("segmentation"), annotation.get("area")
            height, width = _size(rle, where)
            if not isinstance(area, int | float):
                area = rle_area(rle, where)
            too_big = mask_area_frac_thresh <= 1 and area >= mask_area_frac_thresh * height * width
            if area > 0 and not too_big and annotation.get("uncertain_iou", uncertain_iou) >= uncertain_iou:
                self._rles.append(rle)

    @property
    def frames(self) -> Sequence[int]:
        return [0]

    def visible(self, frame: int) -> Sequence[int]:
        """All masks kept, numbered from 0 in the order of the file."""
        return range(len(self._rles))

    def load(self, frame: int, objects: Sequence[int]) -> Tensor:
        """Masks (N,h,w) bool."""
        return _stack([decode_rle(self._rles[i], f"{self._path}: mask {i}") for i in objects], (1, 1))


class PalettisedPNGSegmentLoader:
    """One PNG per frame that holds all objects: an object's number is its label, see `read_labels`."""

    def __init__(self, files: Mapping[int, Path], ignored_labels: Sequence[int] = ()) -> None:
        """`files` by frame number. Ignored labels count as background, as the 255 does that marks borders in some
        data sets."""
        self._files = files
        self._ignored = {0, *ignored_labels}
        self._last: tuple[int, np.ndarray] | None = None

    @property
    def frames(self) -> Sequence[int]:
        return sorted(self._files)

    def visible(self, frame: int) -> Sequence[int]:
        return [int(label) for label in np.unique(self._labels(frame)) if int(label) not in self._ignored]

    def load(self, frame: int, objects: Sequence[int]) -> Tensor:
        labels = self._labels(frame)
        return _stack([labels == label for label in objects], labels.shape)

    def _labels(self, frame: int) -> np.ndarray:
        # The sampler looks at the first frame before it is loaded.
        if self._last is None or self._last[0] != frame:
            self._last = (frame, read_labels(self._files[frame]))
        return self._last[1]


class MultiplePNGSegmentLoader:
    """One PNG per object and frame, in a folder for each object; nonzero is object, a missing file is absence."""

    def __init__(self, folders: Mapping[int, Mapping[int, Path]]) -> None:
        """`folders`: files by object number and frame number."""
        self._folders = folders

    @property
    def frames(self) -> Sequence[int]:
        return sorted({frame for files in self._folders.values() for frame in files})

    def visible(self, frame: int) -> Sequence[int]:
        return [
            number
            for number, files in sorted(self._folders.items())
            if frame in files and read_labels(files[frame]).any()
        ]

    def load(self, frame: int, objects: Sequence[int]) -> Tensor:
        any_file = next(files[frame] for files in self._folders.values() if frame in files)
        with reading(any_file), Image.open(any_file) as image:
            size = (image.height, image.width)
        masks = []
        for number in objects:
            path = self._folders[number].get(frame)
            mask = np.zeros(size, bool) if path is None else read_labels(path) != 0
            if mask.shape != size:
                raise ValueError(f"{path}: the mask is {mask.shape}, wanted {size} like {any_file}")
            masks.append(mask)
        return _stack(masks, size)


def rle_area(rle: Any, where: str) -> int:
    """Pixels of an RLE, without decoding it; ValueError, starting with `where`, if it is damaged."""
    return sum(_runs(rle, where)[0][1::2])


def decode_rle(rle: Any, where: str) -> np.ndarray:
    """Mask (h,w) bool of an RLE in COCO's format; ValueError, starting with `where`, if it is damaged."""
    # Not by pycocotools, which returns uninitialized memory where the runs end too early.
    runs, (height, width) = _runs(rle, where)
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _runs(rle: Any, where: str) -> tuple[list[int], tuple[int, int]]:
    """Lengths of the runs of background and object in turn, down the columns, and (height, width)."""
    height, width = _size(rle, where)
    counts = rle.get("counts")
    if isinstance(counts, str) and counts.isascii():
        runs = _uncompressed(counts.encode("ascii"))
    elif isinstance(counts, list) and all(isinstance(count, int) for count in counts):
        runs = counts
    else:
        raise ValueError(f"{where}: wanted the counts of an RLE as text or integers, got {counts!r:.40}")
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise ValueError(f"{where}: the runs of the RLE do not fill its size of {width}x{height}")
    return runs, (height, width)


def _size(rle: Any, where: str) -> tuple[int, int]:
    size = rle.get("size") if isinstance(rle, dict) else None
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(v, int | float) for v in size)):
        raise ValueError(f"{where}: wanted an RLE with a size of two numbers, got {rle!r:.80}")
    return int(size[0]), int(size[1])


def _uncompressed(counts: bytes) -> list[int]:
    """Run lengths of COCO's text form.

    Five bits a character, low ones first, with one bit that says whether more follow; from the fourth run on, the
    difference from the run two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _parse_json(path: str) -> Any:
    with open(path, "rb") as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise ValueError(f"{path}: this JSON cannot be read: {error}") from error


def _frames_per_annotation(fps: Any, frames_fps: int, path: str) -> int:
    rate = fps[0] if isinstance(fps, list) and fps else fps
    if not isinstance(rate, int | float) or rate <= 0 or frames_fps % rate:
        raise ValueError(f"{path}: annotated {fps} times a second, wanted a divisor of {frames_fps}")
    return int(frames_fps // rate)


def _stack(masks: Sequence[np.ndarray], size: Sequence[int]) -> Tensor:
    """(N,h,w) bool, also of no masks."""
    if not masks:
        return torch.zeros(0, *size, dtype=torch.bool)
    return torch.from_numpy(np.stack(masks))
