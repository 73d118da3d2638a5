"""Session files: objects, prompts and masks as JSON, masks in COCO RLE."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AliasChoices, Field, TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from i2v.annotator.checked_json import CHECKED, validate_json
from i2v.annotator.document import MAX_STEPS, Box, Click, Document, ObjectInfo, Paint, Place, Step, step_as_json
from i2v.annotator.footage import Footage
from i2v.annotator.masks import Masks, MaskStore, Size, StoredMask, checked_counts, decode
from i2v.annotator.session import Session
from i2v.errors import locating
from i2v.results.export import MAX_OBJECTS
from i2v.results.rle import encode_mask
from i2v.results.streamed_json import compact_json
from i2v.utils.files import replacing
from i2v.utils.input_file import read_input
from i2v.utils.output_folder import own_folder

FORMAT, VERSION = "i2v-session", 1
MAX_BYTES = 256 << 20


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class Segmentation:
    """A mask in COCO RLE.

    Attributes:
        size: (height, width).
        counts: Compressed run lengths.
    """

    size: tuple[int, int]
    counts: str


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class MaskEntry:
    """One object's mask on a frame, as written by ``i2v track`` and in session files.

    Attributes:
        id: Number of the object in 1..255.
        segmentation: The mask.
        object_score: Logit that the object is in view, if known.
        iou: Predicted mask quality in 0..1, if known.
        ceded: Pixels that belong to other objects, as compressed run lengths.
    """

    id: Annotated[int, Field(ge=1, le=255)]
    segmentation: Segmentation
    # Files of version 0.1.0 call it "presence".
    object_score: float | None = Field(default=None, validation_alias=AliasChoices("object_score", "presence"))
    iou: float | None = None
    ceded: str | None = None

    def stored(self, size: Size) -> StoredMask:
        """Return the mask.

        Args:
            size: (height, width) of the video.

        Raises:
            ValueError: If the mask has another size or is malformed.
        """
        if tuple(self.segmentation.size) != size:
            got = self.segmentation.size
            raise ValueError(f"a mask is {got[1]}x{got[0]}, expected {size[1]}x{size[0]} like the video")
        return StoredMask(checked_counts(self.segmentation.counts, size), self.object_score, self.iou)


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class FrameEntry:
    """The masks of one frame.

    Attributes:
        frame: Index of the frame.
        objects: The masks.
    """

    frame: Annotated[int, Field(ge=0)]
    objects: Annotated[list[MaskEntry], Field(fail_fast=True, max_length=MAX_OBJECTS)]


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _StepEntry:
    click: tuple[float, float, Literal[0, 1]] | None = None
    box: tuple[float, float, float, float] | None = None
    mask: str | None = None

    def step(self, size: Size) -> Step:
        if self.click is not None:
            return Click(self.click[0], self.click[1], bool(self.click[2]))
        if self.box is not None:
            return Box(*self.box)
        if self.mask is not None:
            return Paint(checked_counts(self.mask, size))
        raise ValueError("a prompt: expected a click, a box or a mask")


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _PromptEntry:
    object: int
    frame: Annotated[int, Field(ge=0)]
    steps: Annotated[list[_StepEntry], Field(fail_fast=True, min_length=1, max_length=MAX_STEPS)]


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _ObjectEntry:
    number: Annotated[int, Field(ge=1, le=255)]
    name: Annotated[str, Field(max_length=80)]
    visible: bool = True
    category: Annotated[str, Field(max_length=80)] = ""
    locked: bool = False


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _VideoEntry:
    name: str
    width: int
    height: int
    frames: int


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class SessionEntry:
    format: Literal["i2v-session"]
    version: Literal[1]
    video: _VideoEntry
    next_number: Annotated[int, Field(ge=1)]
    objects: Annotated[list[_ObjectEntry], Field(fail_fast=True, max_length=MAX_OBJECTS)]
    prompts: Annotated[list[_PromptEntry], Field(fail_fast=True)]
    masks: Annotated[list[FrameEntry], Field(fail_fast=True)]
    reviewed: Annotated[list[tuple[int, int]], Field(fail_fast=True)] = field(default_factory=list)


_FILE = TypeAdapter(SessionEntry)


@dataclass(frozen=True)
class SavedSession:
    """The contents of a session file.

    Attributes:
        document: Objects and prompts.
        masks: Masks by object and frame.
    """

    document: Document
    masks: Masks


def save_session(path: Path, pieces: Iterator[str]) -> None:
    """Write a session file atomically.

    Args:
        path: Path of the file. Its folder is created if necessary.
        pieces: Its text, from ``session_pieces``.

    Raises:
        OSError: If the file cannot be written, for example a DiskFullError.
    """
    own_folder(path.parent)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(pieces)


def session_pieces(session: Session) -> Iterator[str]:
    """Yield the text of a session file in pieces. Later changes of the session do not affect it."""
    footage = session.footage
    video = {"name": footage.name, "width": footage.width, "height": footage.height, "frames": footage.num_available}
    return _pieces(session.document, session.store, video, session.size)


def _pieces(document: Document, store: MaskStore, video: dict[str, Any], size: Size) -> Iterator[str]:
    objects = [asdict(info) for info in document.objects]
    prompts = [
        {"object": place[0], "frame": place[1], "steps": [step_as_json(step) for step in _lasting(place, steps, store)]}
        for place, steps in document.prompts.items()
    ]
    head = {"format": FORMAT, "version": VERSION, "video": video, "next_number": document.next_number}
    head["reviewed"] = ranges_of(document.reviewed)
    yield compact_json({**head, "objects": objects, "prompts": prompts})[:-1] + ',"masks":['
    for i, frame in enumerate(store.frames_of(document.numbers)):
        entry = {"frame": frame, "objects": _masks_json(document, frame, store, size)}
        yield ("," if i else "") + "\n" + compact_json(entry)
    yield "\n]}\n"


def _lasting(place: Place, steps: tuple[Step, ...], store: MaskStore) -> tuple[Step, ...]:
    # Clicks that corrected a tracked mask mean nothing without its memories, so save the resulting mask instead.
    number, frame = place
    masks = store.of(number)
    answer = masks.prompted.get(frame)
    corrects = frame in masks.tracked
    return (Paint(answer.counts),) if corrects and answer is not None else steps


def _masks_json(document: Document, frame: int, store: MaskStore, size: Size) -> list[dict[str, Any]]:
    entries = []
    for number in document.numbers:
        stored = store.shown(number, frame)
        if stored is not None:
            segmentation = {"size": list(size), "counts": stored.counts.decode("ascii")}
            entry = {"id": number, "segmentation": segmentation, "object_score": stored.object_score, "iou": stored.iou}
            lost = store.lost(number, frame)
            entries.append({**entry, "ceded": _union(lost, size).decode("ascii")} if lost else entry)
    return entries


def _union(masks: list[bytes], size: Size) -> bytes:
    if len(masks) == 1:
        return masks[0]
    return encode_mask(np.logical_or.reduce([decode(counts, size) for counts in masks]))


def read_session(path: Path, footage: Footage) -> SavedSession:
    """Read a session file.

    Args:
        path: Path of the file.
        footage: The video it must be for.

    Raises:
        OSError: If the file cannot be read.
        InvalidFileError: If it is malformed or for another video.
    """
    return parse_session(read_input(path, MAX_BYTES), str(path), footage)


def parse_session(data: bytes, name: str, footage: Footage) -> SavedSession:
    """Read a session file from its contents. Arguments and errors as for ``read_session``; ``name`` is for messages."""
    saved = validate_json(_FILE, data, name, "a session file")
    with locating(name):
        return _checked(saved, footage)


def _checked(saved: SessionEntry, footage: Footage) -> SavedSession:
    size = (footage.height, footage.width)
    got = (saved.video.height, saved.video.width, saved.video.frames)
    if got[:2] != size or got[2] > footage.num_available:
        own = f"{size[1]}x{size[0]} and {footage.num_available} frames"
        raise ValueError(f"made for {saved.video.name}, {got[1]}x{got[0]} and {got[2]} frames; this video has {own}")
    objects = tuple(ObjectInfo(e.number, e.name, e.visible, e.category, e.locked) for e in saved.objects)
    numbers = {info.number for info in objects}
    if len(numbers) != len(objects):
        raise ValueError("two objects have the same number")
    places = [(entry.object, entry.frame) for entry in saved.prompts]
    check_places(places, footage.num_available, numbers)
    prompts = {
        place: tuple(step.step(size) for step in entry.steps)
        for place, entry in zip(places, saved.prompts, strict=True)
    }
    masks = masks_by_object(saved.masks, size, footage.num_available, numbers)
    next_number = max([saved.next_number, *(number + 1 for number in numbers)])
    reviewed: set[int] = set()
    for first, last in saved.reviewed:
        if not 0 <= first <= last < footage.num_available:
            raise ValueError(f"reviewed frames {first} to {last} are not in the video")
        reviewed.update(range(first, last + 1))
    return SavedSession(Document(objects, prompts, next_number, frozenset(reviewed)), masks)


def masks_by_object(
    frames: Iterable[FrameEntry], size: Size, num_frames: int, numbers: Collection[int] | None = None
) -> dict[int, dict[int, StoredMask]]:
    """Convert the masks of a file.

    Args:
        frames: The frames of the file.
        size: (height, width) of the video.
        num_frames: Number of frames of the video.
        numbers: Existing objects; ``None`` to accept any.

    Returns:
        Masks by object and frame.

    Raises:
        ValueError: If a mask, object or frame does not fit.
    """
    entries = [(entry.frame, mask) for entry in frames for mask in entry.objects]
    check_places(((mask.id, frame) for frame, mask in entries), num_frames, numbers)
    masks: dict[int, dict[int, StoredMask]] = {}
    for frame, mask in entries:
        masks.setdefault(mask.id, {})[frame] = mask.stored(size)
    return masks


def ranges_of(frames: Iterable[int]) -> list[tuple[int, int]]:
    """Convert frames to ranges (first, last)."""
    ranges: list[tuple[int, int]] = []
    for frame in sorted(frames):
        if ranges and ranges[-1][1] == frame - 1:
            ranges[-1] = (ranges[-1][0], frame)
        else:
            ranges.append((frame, frame))
    return ranges


def check_places(places: Iterable[Place], num_frames: int, numbers: Collection[int] | None = None) -> None:
    """Check objects and frames of a file.

    Args:
        places: (object, frame) pairs.
        num_frames: Number of frames of the video.
        numbers: Existing objects; ``None`` to accept any.

    Raises:
        ValueError: If an object or frame does not exist, or a pair occurs twice.
    """
    known: set[Place] = set()
    for number, frame in places:
        if frame >= num_frames or (numbers is not None and number not in numbers):
            raise ValueError(f"object {number} on frame {frame} is not in the session or not in the video")
        if (number, frame) in known:
            raise ValueError(f"object {number} comes twice on frame {frame}")
        known.add((number, frame))
