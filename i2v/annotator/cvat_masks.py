"""Masks in CVAT's XML for videos: tracks of polygons, or of masks as run lengths in boxes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

import numpy as np

from i2v.annotator.masks import StoredMask
from i2v.annotator.read_mask import ReadMask
from i2v.annotator.session_file import check_places
from i2v.errors import InvalidFileError, brief
from i2v.results.export import MAX_OBJECTS
from i2v.results.polygons import fill_polygons
from i2v.results.rle import Mask, Size, encode_mask

_MOST_SHAPES, _MOST_NUMBERS = 2_000_000, 200_000
_SHAPES = ("box", "polygon", "polyline", "points", "ellipse", "cuboid", "skeleton", "mask")


@dataclass(frozen=True)
class _Shape:
    frame: int
    kind: str
    values: Mapping[str, str]


@dataclass
class _Track:
    label: str
    group: str | None
    shapes: list[_Shape] = field(default_factory=list)

    @property
    def is_mask(self) -> bool:
        return any(shape.kind == "mask" for shape in self.shapes)


def masks_in_cvat(name: str, data: bytes, size: Size, num_frames: int) -> Iterator[tuple[int, ReadMask]]:
    """Read the masks of a file of CVAT 1.1 for videos, one by one. Shapes that are outside are passed over.

    Tracks belong to the object of their ``group_id`` if all have one. Without, every track of polygons is an object, in
    the order of the file. Masks have no tracks in CVAT, which writes one for each: those of a label are an object, of
    which there must be one per frame.

    Args:
        name: Name of the file in messages.
        data: Its contents.
        size: (height, width) of the video.
        num_frames: Number of frames of the video.

    Yields:
        The number of masks in the file, and a mask.

    Raises:
        InvalidFileError: If it is no such file.
        ValueError: If a shape, object or frame does not fit.
    """
    reader = _Reader(name)
    reader.read(data)
    for what, got in (("height", size[0]), ("width", size[1])):
        if reader.meta.get(what, str(got)) != str(got):
            meta = f"{reader.meta.get('width')}x{reader.meta.get('height')}"
            raise ValueError(f"made for a video of {meta}, expected {size[1]}x{size[0]}")
    total = sum(len(track.shapes) for track in reader.tracks)
    for number, track in _numbered(reader.tracks):
        for shape in track.shapes:
            place = f"track {brief(track.label)}, frame {shape.frame}"
            check_places([(number, shape.frame)], num_frames)
            yield total, ReadMask(number, shape.frame, StoredMask(encode_mask(_mask(shape, size, place))), track.label)


def _numbered(tracks: list[_Track]) -> Iterator[tuple[int, _Track]]:
    tracks = [track for track in tracks if track.shapes]
    groups = [track.group for track in tracks]
    if tracks and all(group not in (None, "", "0") for group in groups):
        for track in tracks:
            yield _integer(track.group or "", 1, MAX_OBJECTS, "group_id"), track
        return
    labels: dict[str, int] = {}
    for place, track in enumerate(tracks, start=1):
        number = place
        if any(other.is_mask for other in tracks):
            if not track.is_mask:
                raise ValueError(
                    "tracks of masks and of polygons without group_id: it is not known which belong together"
                )
            number = labels.setdefault(track.label, len(labels) + 1)
        if number > MAX_OBJECTS:
            raise ValueError(f"expected at most {MAX_OBJECTS} objects")
        yield number, track


def _mask(shape: _Shape, size: Size, place: str) -> Mask:
    if shape.kind == "polygon":
        corners = [pair.split(",") for pair in shape.values.get("points", "").split(";")]
        if not 3 <= len(corners) <= _MOST_NUMBERS or any(len(corner) != 2 for corner in corners):
            raise ValueError(f"{place}: expected a polygon of at least three corners x,y;x,y;x,y")
        try:
            return fill_polygons([np.array(corners, dtype=np.float64)], size)
        except ValueError:
            raise ValueError(f"{place}: expected a polygon of finite numbers") from None
    if shape.kind == "mask":
        return _in_box(shape.values, size, place)
    raise ValueError(f"{place}: expected a polygon or a mask, got a {shape.kind}")


def _in_box(values: Mapping[str, str], size: Size, place: str) -> Mask:
    """Fill a box row by row with runs of background and object in turn."""
    most = max(size)
    left, top = (_integer(values.get(key, ""), 0, most, f"{place}, {key}") for key in ("left", "top"))
    width, height = (_integer(values.get(key, ""), 1, most, f"{place}, {key}") for key in ("width", "height"))
    runs = [_integer(text.strip(), 0, 10**9, f"{place}, rle") for text in values.get("rle", "").split(",")]
    if len(runs) > _MOST_NUMBERS or sum(runs) != width * height or left + width > size[1] or top + height > size[0]:
        raise ValueError(f"{place}: expected run lengths that fill a box of {width}x{height} within the frame")
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(
        height, width
    )
    return mask


def _integer(text: str, least: int, most: int, what: str) -> int:
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or not least <= int(text) <= most:
        raise ValueError(f"{what}: expected a whole number from {least} to {most}, got {brief(text)}")
    return int(text)


class _Reader:
    """Collects what a file says, tag by tag. No entities: nothing in it grows or leads elsewhere."""

    def __init__(self, name: str) -> None:
        self.tracks: list[_Track] = []
        self.meta: dict[str, str] = {}  # width and height of the video
        self._name = name
        self._path: list[str] = []
        self._num_shapes = 0

    def read(self, data: bytes) -> None:
        parser = expat.ParserCreate()
        parser.StartElementHandler, parser.EndElementHandler = self._begin, self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._refuse
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            raise InvalidFileError(
                self._name, f"not XML: {expat.ErrorString(error.code)}", f"line {error.lineno}"
            ) from error

    def _begin(self, tag: str, values: dict[str, str]) -> None:
        self._path.append(tag)
        if self._path[0] != "annotations" or len(self._path) > 16:
            raise InvalidFileError(self._name, "expected the annotations of CVAT 1.1 for videos")
        if self._path == ["annotations", "image"]:
            raise InvalidFileError(self._name, "made by CVAT for images, expected CVAT 1.1 for videos")
        if self._path == ["annotations", "track"]:
            label = values.get("label", "")
            if not 1 <= len(label) <= 80:
                raise ValueError(f"a track: expected a label of 1 to 80 characters, got {brief(label)}")
            self.tracks.append(_Track(label, values.get("group_id")))
        elif self._path[:2] == ["annotations", "track"] and len(self._path) == 3 and tag in _SHAPES:
            self._add(tag, values)

    def _add(self, tag: str, values: dict[str, str]) -> None:
        self._num_shapes += 1
        if self._num_shapes > _MOST_SHAPES:
            raise ValueError(f"expected at most {_MOST_SHAPES:,} shapes")
        if values.get("outside", "0") != "1":
            frame = _integer(values.get("frame", ""), 0, 10**9, "the frame of a shape")
            self.tracks[-1].shapes.append(_Shape(frame, tag, values))

    def _end(self, _: str) -> None:
        self._path.pop()

    def _text(self, text: str) -> None:
        if self._path[-2:] in (["original_size", "width"], ["original_size", "height"]):
            self.meta[self._path[-1]] = self.meta.get(self._path[-1], "") + text.strip()[:20]

    def _refuse(self, *_: Any) -> None:
        raise InvalidFileError(self._name, "it declares a document type, expected none")
