"""Masks in JSON files: of ``i2v track`` and exports, session files, COCO instances, YouTube-VIS, labelme."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from i2v.annotator.checked_json import CHECKED, validate_json
from i2v.annotator.masks import StoredMask
from i2v.annotator.read_mask import ReadMask, frame_in_name
from i2v.annotator.session_file import FrameEntry, SessionEntry, check_places
from i2v.errors import brief
from i2v.results.polygons import fill_polygons
from i2v.results.rle import RunLengths, Size, encode_mask

Found = Iterator[tuple[int, ReadMask]]  # the number of masks in the file, and one of them


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _MaskFile:
    frames: Annotated[list[FrameEntry], Field(fail_fast=True)]


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _Rle:
    size: tuple[int, int]
    counts: str | Annotated[list[int], Field(fail_fast=True)]

    def stored(self, size: Size) -> StoredMask:
        runs = RunLengths.of_coco({"size": self.size, "counts": self.counts}, size)
        return StoredMask(self.counts.encode("ascii") if isinstance(self.counts, str) else encode_mask(runs.mask()))


_Corners = Annotated[list[float], Field(fail_fast=True, min_length=6, max_length=100_000)]


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _Category:
    id: int
    name: Annotated[str, Field(max_length=80)]


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _CocoImage:
    id: int
    file_name: str
    frame: Annotated[int, Field(ge=0)] | None = None

    def index(self) -> int:
        return frame_in_name(self.file_name) if self.frame is None else self.frame


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _CocoAnnotation:
    image_id: int
    category_id: int
    segmentation: _Rle | Annotated[list[_Corners], Field(fail_fast=True)]

    def stored(self, size: Size) -> StoredMask:
        if isinstance(self.segmentation, _Rle):
            return self.segmentation.stored(size)
        if any(len(corners) % 2 for corners in self.segmentation):
            raise ValueError(f"a polygon of image {self.image_id}: expected pairs of numbers")
        polygons = [np.reshape(corners, (-1, 2)) for corners in self.segmentation]
        return StoredMask(encode_mask(fill_polygons(polygons, size)))

    track_id: Annotated[int, Field(ge=1, le=255)] | None = None


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _CocoFile:
    images: Annotated[list[_CocoImage], Field(fail_fast=True)]
    annotations: Annotated[list[_CocoAnnotation], Field(fail_fast=True)]
    categories: Annotated[list[_Category], Field(fail_fast=True)]


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _VisVideo:
    id: int


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _VisAnnotation:
    id: Annotated[int, Field(ge=1, le=255)]
    video_id: int
    category_id: int
    segmentations: Annotated[list[_Rle | None], Field(fail_fast=True)]


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _VisFile:
    videos: Annotated[list[_VisVideo], Field(fail_fast=True)]
    annotations: Annotated[list[_VisAnnotation], Field(fail_fast=True)]
    categories: Annotated[list[_Category], Field(fail_fast=True)]


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _LabelmeShape:
    label: Annotated[str, Field(max_length=80)]
    points: Annotated[list[tuple[float, float]], Field(fail_fast=True, max_length=100_000)]
    shape_type: str = "polygon"
    group_id: Annotated[int, Field(ge=1, le=255)] | None = None


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _LabelmeFile:
    shapes: Annotated[list[_LabelmeShape], Field(fail_fast=True)]


def masks_in_json(name: str, data: bytes, size: Size, num_frames: int) -> Found:
    """Read the masks of a JSON file, one by one.

    COCO's annotations belong to the object of their ``track_id``. Without any, there must be one instance of a category
    per image: each category is an object then. Images belong to the frame of their ``frame``, else of the number that
    ends their file name.

    Args:
        name: Name of the file in messages.
        data: Its contents.
        size: (height, width) of the video.
        num_frames: Number of frames of the video.

    Yields:
        The number of masks in the file, and a mask.

    Raises:
        InvalidFileError: If it is of another form.
        ValueError: If a mask, object or frame does not fit.
    """
    if b'"i2v-session"' in data[:4096]:
        found = _in_session(validate_json(_SESSION, data, name, "a session file"), size)
    elif is_labelme(data):
        found = _in_labelme(validate_json(_LABELME, data, name, "a labelme file"), name, size)
    elif b'"annotations"' in data and b'"videos"' in data:
        found = _in_vis(validate_json(_VIS, data, name, "a YouTube-VIS file"), size)
    elif b'"annotations"' in data:
        found = _in_coco(validate_json(_COCO, data, name, "a file of COCO instances"), size)
    else:
        found = _in_frames(validate_json(_MASKS, data, name, "a file of masks").frames, size)
    for total, mask in found:
        check_places([(mask.number, mask.frame)], num_frames)
        yield total, mask


def is_labelme(data: bytes) -> bool:
    """Whether JSON looks like a file of labelme."""
    return b'"shapes"' in data and b'"imagePath"' in data


def _in_labelme(content: _LabelmeFile, name: str, size: Size) -> Found:
    """A file is a frame; the shapes of a group are an object, those without a group must differ in their labels."""
    frame = frame_in_name(name)
    groups: dict[int | str, list[_LabelmeShape]] = {}
    for shape in content.shapes:
        if shape.shape_type != "polygon":
            raise ValueError(
                f"a shape labelled {brief(shape.label)}: expected polygons, got a {brief(shape.shape_type)}"
            )
        groups.setdefault(shape.label if shape.group_id is None else shape.group_id, []).append(shape)
    for group, shapes in groups.items():
        if isinstance(group, str):
            raise ValueError(f"a shape labelled {brief(group)}: expected the number of its object as group_id")
        polygons = [np.array(shape.points) for shape in shapes]
        stored = StoredMask(encode_mask(fill_polygons(polygons, size)))
        yield len(groups), ReadMask(group, frame, stored, shapes[0].label)


def _in_frames(frames: list[FrameEntry], size: Size, names: dict[int, str] | None = None) -> Found:
    total = sum(len(entry.objects) for entry in frames)
    for entry in frames:
        for mask in entry.objects:
            yield total, ReadMask(mask.id, entry.frame, mask.stored(size), (names or {}).get(mask.id))


def _in_session(saved: SessionEntry, size: Size) -> Found:
    return _in_frames(saved.masks, size, {entry.number: entry.name for entry in saved.objects})


def _in_coco(content: _CocoFile, size: Size) -> Found:
    frames = {image.id: image.index() for image in content.images}
    categories = {category.id: category.name for category in content.categories}
    tracked = any(entry.track_id is not None for entry in content.annotations)
    if not tracked:
        _check_single(content.annotations)
    numbers = {category: number for number, category in enumerate(categories, start=1)}
    for entry in content.annotations:
        if entry.image_id not in frames or entry.category_id not in categories:
            raise ValueError(f"an annotation of image {entry.image_id}: there is no such image or category")
        number = entry.track_id if tracked else numbers[entry.category_id]
        if number is None:
            raise ValueError(f"an annotation of image {entry.image_id}: it has no track_id, unlike others")
        stored = entry.stored(size)
        name = categories[entry.category_id]
        yield len(content.annotations), ReadMask(number, frames[entry.image_id], stored, name)


def _check_single(annotations: list[_CocoAnnotation]) -> None:
    counts = Counter((entry.image_id, entry.category_id) for entry in annotations)
    place = next((place for place, count in counts.items() if count > 1), None)
    if place is not None:
        several = f"image {place[0]} has several annotations of category {place[1]}"
        raise ValueError(f"{several}, and no track_id says which object each is")


def _in_vis(content: _VisFile, size: Size) -> Found:
    if len(content.videos) != 1:
        raise ValueError(f"expected one video in it, got {len(content.videos)}")
    categories = {category.id: category.name for category in content.categories}
    total = sum(rle is not None for entry in content.annotations for rle in entry.segmentations)
    for entry in content.annotations:
        for frame, rle in enumerate(entry.segmentations):
            if rle is not None:
                yield total, ReadMask(entry.id, frame, rle.stored(size), categories.get(entry.category_id))


_LABELME: TypeAdapter[_LabelmeFile] = TypeAdapter(_LabelmeFile)
_MASKS: TypeAdapter[_MaskFile] = TypeAdapter(_MaskFile)
_SESSION: TypeAdapter[SessionEntry] = TypeAdapter(SessionEntry)
_COCO: TypeAdapter[_CocoFile] = TypeAdapter(_CocoFile)
_VIS: TypeAdapter[_VisFile] = TypeAdapter(_VisFile)
