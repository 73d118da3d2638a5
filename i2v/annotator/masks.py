"""The annotator's store of masks: COCO run lengths, in layers, by object and frame.

All are immutable values: a change returns a new value that shares what has not changed. So snapshots for undo are
cheap, and threads can read a value for as long as they like.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from i2v.annotator.document import Box, Paint, Stroke
from i2v.results.instances import confidence
from i2v.results.rle import Mask, RunLengths, Size, encode_mask


def decode(counts: bytes, size: Size) -> Mask:
    """Decode compressed run lengths to a mask ``(H, W)``.

    Args:
        counts: The run lengths.
        size: (height, width).

    Raises:
        ValueError: If they do not cover the size.
    """
    return RunLengths.of_counts(counts, size).mask()


def checked_counts(text: str, size: Size) -> bytes:
    """Check untrusted compressed run lengths, and convert them to bytes.

    Args:
        text: The run lengths.
        size: (height, width) that they must cover.

    Raises:
        ValueError: If they are malformed or do not cover the size.
    """
    RunLengths.of_counts(text, size)
    return text.encode("ascii")


def box_of(counts: bytes, size: Size) -> Box | None:
    """Return the box around a mask, ``None`` if it is empty.

    Args:
        counts: Its compressed run lengths, from ``encode_mask`` or checked.
        size: (height, width).
    """
    x, y, width, height = (float(value) for value in coco_mask.toBbox({"size": list(size), "counts": counts}))
    return Box(x, y, x + width, y + height) if width and height else None


@dataclass(frozen=True)
class StoredMask:
    """The mask of one object on one frame.

    Attributes:
        counts: COCO's compressed run lengths.
        object_score: Logit that the object is in view; ``None`` if the mask is not the model's.
        iou: Predicted mask quality in 0..1; ``None`` if the mask is not the model's.
    """

    counts: bytes
    object_score: float | None = None
    iou: float | None = None

    @property
    def confidence(self) -> float | None:
        """Probability that the object is in view, times the predicted IoU, in 0..1; ``None`` without scores."""
        return confidence(self.object_score, self.iou)


def painted(shown: StoredMask | None, stroke: Stroke, size: Size) -> Paint:
    """Apply a stroke of the brush to the mask that is shown, if any.

    Args:
        shown: The mask.
        stroke: The stroke.
        size: (height, width) of both.
    """
    mask = np.zeros(size, dtype=bool) if shown is None else decode(shown.counts, size)
    return Paint(encode_mask(mask & ~stroke.mask if stroke.erases else mask | stroke.mask))


Layer: TypeAlias = Mapping[int, StoredMask]  # frame -> mask
Masks: TypeAlias = Mapping[int, Layer]  # object -> frame -> mask
Frames: TypeAlias = Mapping[int, Collection[int]]  # object -> frames
NO_FRAMES: Frames = {}
Overlaps: TypeAlias = Mapping[tuple[int, int], Mapping[int, bytes]]  # (loser, winner) -> frame -> pixels, as counts


@dataclass(frozen=True)
class ObjectMasks:
    """One object's masks, in layers. A frame shows the answer to its prompts, otherwise the tracked or imported mask.

    Attributes:
        prompted: Answers to prompts, by frame.
        tracked: Tracked masks, by frame.
        imported: Imported masks, by frame.
        outdated: Frames whose masks depend on prompts that have changed since.
        corrected: Frames of those prompts.
    """

    prompted: Layer = field(default_factory=dict)
    tracked: Layer = field(default_factory=dict)
    imported: Layer = field(default_factory=dict)
    outdated: frozenset[int] = frozenset()
    corrected: frozenset[int] = frozenset()

    @property
    def layers(self) -> tuple[Layer, Layer, Layer]:
        """The layers in order of precedence."""
        return self.prompted, self.tracked, self.imported

    @property
    def frames(self) -> set[int]:
        """Frames with a mask, which can be empty."""
        return set().union(*self.layers)

    def shown(self, frame: int) -> StoredMask | None:
        """Return the mask that is shown on a frame, if any."""
        return next((layer[frame] for layer in self.layers if frame in layer), None)

    def with_tracked(self, frame: int, mask: StoredMask) -> ObjectMasks:
        """Set the tracked mask of a frame. On a prompted frame, the answer to the prompts stays."""
        tracked = self.tracked if frame in self.prompted else {**self.tracked, frame: mask}
        outdated = self.outdated - {frame}
        return replace(self, tracked=tracked, outdated=outdated, corrected=self.corrected if outdated else frozenset())

    def with_answer(self, frame: int, mask: StoredMask | None) -> ObjectMasks:
        """Set or remove the answer to a frame's prompts. Tracked masks up to the neighbouring prompts become outdated.

        Without any prompt left, all tracked masks are removed.

        Args:
            frame: Index of the frame.
            mask: The answer; ``None`` if the frame has no prompts left.
        """
        prompted = {f: m for f, m in self.prompted.items() if f != frame}
        if mask is not None:
            prompted[frame] = mask
        first = max((f for f in prompted if f < frame), default=-1)
        last = min((f for f in prompted if f > frame), default=math.inf)
        own = replace(self, prompted=prompted, tracked=self.tracked if prompted else {})
        unprompted = own.frames - prompted.keys()
        changed = {f for f in unprompted if first <= f <= last}
        return replace(own, outdated=self.outdated & unprompted | changed, corrected=self.corrected | {frame})

    def without(self, frames: Collection[int]) -> ObjectMasks:
        """Remove the tracked and imported masks of frames, which have no prompts."""
        tracked, imported = ({f: m for f, m in layer.items() if f not in frames} for layer in self.layers[1:])
        return replace(self, tracked=tracked, imported=imported, outdated=self.outdated.difference(frames))

    def with_imported(self, masks: Layer) -> ObjectMasks:
        """Add imported masks. They replace earlier imported and tracked masks on their frames."""
        tracked = {frame: mask for frame, mask in self.tracked.items() if frame not in masks}
        return replace(self, tracked=tracked, imported={**self.imported, **masks})


NO_MASKS = ObjectMasks()


@dataclass(frozen=True)
class MaskStore:
    """All masks of a session, and which object owns a pixel where masks overlap.

    The object with the highest logit at the time of prediction owns a pixel. Overlaps are stored for each pair of
    objects, so an object regains its pixels when the other one is removed. For masks without logits, such as imported
    ones, the first object wins.

    Takes from a hundred bytes to a few kilobytes per object and frame.

    Attributes:
        objects: Masks by object.
        overlaps: Pixels that an object lost to another one, by (loser, winner) and frame, as compressed run lengths.
    """

    objects: Mapping[int, ObjectMasks] = field(default_factory=dict)
    overlaps: Overlaps = field(default_factory=dict)

    def of(self, number: int) -> ObjectMasks:
        """Return an object's masks."""
        return self.objects.get(number, NO_MASKS)

    def shown(self, number: int, frame: int) -> StoredMask | None:
        """Return the mask of an object that is shown on a frame, if any."""
        return self.of(number).shown(frame)

    def frames_of(self, numbers: Iterable[int]) -> list[int]:
        """Return the frames on which any of the objects has a mask, in ascending order."""
        return sorted(set().union(*(self.of(number).frames for number in numbers)))

    def overlaps_of(self, number: int) -> Overlaps:
        """Return the overlaps that involve an object, as loser or winner."""
        return {pair: lost for pair, lost in self.overlaps.items() if number in pair}

    def lost(self, number: int, frame: int) -> list[bytes]:
        """Return the pixels that an object loses to others that have a mask on the frame, as compressed run lengths."""
        return [
            lost[frame]
            for (loser, winner), lost in self.overlaps.items()
            if loser == number and frame in lost and self.shown(winner, frame) is not None
        ]

    def with_masks(self, number: int, masks: ObjectMasks) -> MaskStore:
        """Set an object's masks, keeping overlaps."""
        return replace(self, objects={**self.objects, number: masks})

    def with_object(self, number: int, masks: ObjectMasks, overlaps: Overlaps) -> MaskStore:
        """Set an object's masks and overlaps. Without masks, the object is removed."""
        objects = {n: m for n, m in self.objects.items() if n != number}
        if masks != NO_MASKS:
            objects[number] = masks
        others = {pair: lost for pair, lost in self.overlaps.items() if number not in pair}
        return MaskStore(objects, {**others, **overlaps})

    def with_overlaps(self, frame: int, numbers: Collection[int], lost: Mapping[tuple[int, int], bytes]) -> MaskStore:
        """Replace the overlaps of objects on a frame.

        Args:
            frame: Index of the frame.
            numbers: The objects.
            lost: The new overlaps: pixels by (loser, winner), as compressed run lengths.
        """
        overlaps = dict(self.overlaps)
        for pair, frames in self.overlaps.items():
            if frame in frames and not set(pair).isdisjoint(numbers):
                overlaps[pair] = {f: counts for f, counts in frames.items() if f != frame}
        for pair, counts in lost.items():
            overlaps[pair] = {**overlaps.get(pair, {}), frame: counts}
        return replace(self, overlaps=overlaps)

    def changed_frames(self, other: MaskStore) -> list[int]:
        """Return the frames on which an object shows another mask than in another store, in ascending order."""
        changed: set[int] = set()
        for number in {*self.objects, *other.objects}:
            ours, theirs = self.of(number), other.of(number)
            if ours is not theirs:
                changed |= {f for f in ours.frames | theirs.frames if ours.shown(f) != theirs.shown(f)}
        return sorted(changed)

    def label_map(self, frame: int, labels: Mapping[int, int], size: Size) -> NDArray[np.uint8]:
        """Merge all objects of a frame into a label map.

        Args:
            frame: Index of the frame.
            labels: Label of each object. The first one wins where ownership is not known.
            size: (height, width) of the video.

        Returns:
            ``(H, W)`` uint8, 0 on the background.
        """
        merged = np.zeros(size, np.uint8)
        for number, label in labels.items():
            stored = self.shown(number, frame)
            if stored is not None:
                mask = decode(stored.counts, size)
                for counts in self.lost(number, frame):
                    mask &= ~decode(counts, size)
                merged[mask & (merged == 0)] = label
        return merged
