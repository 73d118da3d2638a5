"""Importing masks of other tools and of our own exports: PNG label maps, JSON of several kinds, YOLO and CVAT."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field

import numpy as np

from i2v.annotator.cvat_masks import masks_in_cvat
from i2v.annotator.json_masks import is_labelme, masks_in_json
from i2v.annotator.masks import Masks, StoredMask
from i2v.annotator.read_mask import ReadMask, frame_in_name
from i2v.annotator.session import Session
from i2v.annotator.session_file import check_places
from i2v.annotator.uploads import Files
from i2v.annotator.work import Outcome
from i2v.annotator.yolo_masks import masks_in_yolo
from i2v.errors import InvalidFileError, locating
from i2v.prompts.mask_values import VOID, Meaning, meaning_of
from i2v.results.rle import Size, encode_mask
from i2v.utils.image_file import decode_image

_TOLD_EVERY = 50  # masks of a file


@dataclass(frozen=True)
class Target:
    """Where masks are imported to.

    Attributes:
        size: (height, width) of the video.
        num_frames: Number of frames.
        selected: Number of the selected object.
    """

    size: Size
    num_frames: int
    selected: int


@dataclass(frozen=True)
class Reading:
    """How far the reading of an import is.

    Attributes:
        name: The file that is being read.
        done: Files read, or masks of a single file.
        total: Their number, if known.
    """

    name: str
    done: int
    total: int | None


@dataclass
class Collected:
    """Masks of several files, put together.

    Attributes:
        masks: Masks by object and frame.
        names: Names of objects, where files tell them.
    """

    masks: dict[int, dict[int, StoredMask]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    _files: dict[tuple[int, int], str] = field(default_factory=dict)

    def add(self, name: str, mask: ReadMask) -> None:
        """Add a mask of a file.

        Raises:
            InvalidFileError: If the object has a mask on the frame already; both files are named.
        """
        place = mask.number, mask.frame
        other = self._files.setdefault(place, name)
        if mask.frame in self.masks.get(mask.number, {}):
            what = f"object {mask.number} comes twice on frame {mask.frame}"
            raise InvalidFileError(name, what if other == name else f"{what}, in {other}, too: import one of them")
        self.masks.setdefault(mask.number, {})[mask.frame] = mask.stored
        if mask.name is not None:
            self.names.setdefault(mask.number, mask.name)

    @property
    def num_frames(self) -> int:
        """Number of frames with a mask."""
        return len(set().union(*self.masks.values()))


def read_masks(name: str, data: bytes, target: Target) -> Masks:
    """Read the masks of one file, see ``read_files``. Empty if it marks no object."""
    collected = Collected()
    for _ in read_files([(name, data)], 1, target, collected):
        pass
    return collected.masks


def read_files(
    files: Iterable[tuple[str, bytes]], num_files: int, target: Target, into: Collected
) -> Generator[Reading, None, None]:
    """Read masks from files.

    A PNG belongs to the frame whose number ends its name. Its values are object numbers, but without a palette, a
    single nonzero value, or grey levels, are the mask of the selected object. 255 is void: no object, unless it is
    the only value of a picture without palette, where it is white. A picture without any object is fine. For JSON see
    ``masks_in_json``.

    Args:
        files: Names and contents.
        num_files: Their number.
        target: The video and the selected object.
        into: Takes the masks.

    Yields:
        How far it is, before each file and every few masks of a JSON file.

    Raises:
        InvalidFileError: If a file is anything else, does not match the video's size, or has frames beyond its end.
    """
    for place, (name, data) in enumerate(files):
        yield Reading(name, place, num_files)
        with locating(name):
            if name.lower().endswith(".png"):
                for mask in _masks_in_png(name, data, target):
                    into.add(name, mask)
            elif name.lower().endswith(".txt"):
                for mask in masks_in_yolo(name, data, target.size, target.num_frames):
                    into.add(name, mask)
            elif name.lower().endswith(".json"):
                found = masks_in_json(name, data, target.size, target.num_frames)
                # A frame of labelme without objects is fine.
                yield from _read_many(name, found, into, may_be_empty=is_labelme(data))
            elif name.lower().endswith(".xml"):
                yield from _read_many(name, masks_in_cvat(name, data, target.size, target.num_frames), into)
            else:
                raise InvalidFileError(name, "expected masks as PNG, JSON, YOLO's TXT or CVAT's XML")


def _read_many(
    name: str, masks: Iterable[tuple[int, ReadMask]], into: Collected, may_be_empty: bool = False
) -> Generator[Reading, None, None]:
    found = 0
    for total, mask in masks:
        into.add(name, mask)
        if found % _TOLD_EVERY == 0:
            yield Reading(name, found, total)
        found += 1
    if not found and not may_be_empty:
        raise InvalidFileError(name, "there is no mask in it")


def _masks_in_png(name: str, data: bytes, target: Target) -> list[ReadMask]:
    frame = frame_in_name(name)
    check_places([(target.selected, frame)], target.num_frames)
    image = decode_image(data, name, formats=("PNG",), size=target.size)
    if image.mode not in ("P", "L", "1"):
        raise ValueError(f"expected 8-bit labels or a black and white mask, got mode {image.mode}")
    labels = np.asarray(image, dtype=np.uint8)
    values = [int(value) for value in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)) if value]
    if image.mode == "L" and meaning_of(labels, VOID) is Meaning.LEVELS:  # soft edges are no objects
        found = {target.selected: labels > VOID // 2}
    elif len(values) == 1 and image.mode != "P":
        found = {target.selected: labels > 0}
    else:
        found = {value: labels == value for value in values if value != VOID}
    return [ReadMask(number, frame, StoredMask(encode_mask(mask))) for number, mask in found.items()]


def start_import(session: Session, files: Files, selected: int) -> None:
    """Start importing files, as a job of the session and a single edit.

    Args:
        session: The session.
        files: The files; closed at the end.
        selected: Number of the selected object.

    Raises:
        RuntimeError: If another job is running.
    """
    target = Target(session.size, session.footage.num_available, selected)

    def tell(reading: Reading) -> None:
        session.work.describe(reading.name, reading.done, reading.total)

    async def run() -> Outcome:
        collected = Collected()
        try:
            await session.work.each(read_files(files, len(files), target, collected), tell)
        finally:
            files.close()
        if not collected.masks:
            raise ValueError(f"nothing was imported: none of the {len(files)} files marks an object")
        await session.bring_in(collected.masks, collected.names)
        counts = {"files": len(files), "frames": collected.num_frames, "objects": len(collected.masks)}
        return Outcome("imported", counts)

    try:
        session.work.start("import", run, len(files))
    except RuntimeError:
        files.close()
        raise
