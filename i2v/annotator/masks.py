"""Masks as the annotator keeps them: COCO run-length codes, in layers by object and frame.

All are immutable values: a change gives another value, which shares what has not changed. So a history of them is
cheap, and a thread may read one for as long as it likes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from i2v.results.rle import Mask, RunLengths, Size


def decode(counts: bytes, size: Size) -> Mask:
    """The mask (H,W) of compressed run lengths; ValueError if they do not cover the size."""
    return RunLengths.of_counts(counts, size).mask()


def checked_counts(text: str, size: Size) -> bytes:
    """Compressed run lengths from outside, as bytes; ValueError if they are none or do not cover the frame."""
    RunLengths.of_counts(text, size)
    return text.encode("ascii")


@dataclass(frozen=True)
class StoredMask:
    """One object on one frame: compressed `counts`, and what the model thinks of it; None where it was not asked."""

    counts: bytes
    object_score: float | None = None
    iou: float | None = None

    @property
    def confidence(self) -> float | None:
        """Within 0..1: the chance that the object is in view, times the predicted IoU."""
        if self.object_score is None or self.iou is None or not math.isfinite(self.object_score + self.iou):
            return None
        return min(1.0, max(0.0, self.iou)) / (1 + math.exp(-max(-60.0, min(60.0, self.object_score))))


Layer: TypeAlias = Mapping[int, StoredMask]  # frame -> mask
Masks: TypeAlias = Mapping[int, Layer]  # object -> frame -> mask
Overlaps: TypeAlias = Mapping[tuple[int, int], Mapping[int, bytes]]  # (loser, winner) -> frame -> pixels, as counts


@dataclass(frozen=True)
class ObjectMasks:
    """One object's masks by frame. A frame shows the answer to its prompts, or else what was tracked, or imported.

    ``outdated``: frames whose masks rest on prompts that have changed; ``corrected``: the frames of those prompts.
    """

    prompted: Layer = field(default_factory=dict)
    tracked: Layer = field(default_factory=dict)
    imported: Layer = field(default_factory=dict)
    outdated: frozenset[int] = frozenset()
    corrected: frozenset[int] = frozenset()

    @property
    def layers(self) -> tuple[Layer, Layer, Layer]:
        """The layers; the one that counts comes first."""
        return self.prompted, self.tracked, self.imported

    @property
    def frames(self) -> set[int]:
        """Frames with a mask, perhaps an empty one."""
        return set().union(*self.layers)

    def shown(self, frame: int) -> StoredMask | None:
        """The mask of a frame that counts."""
        return next((layer[frame] for layer in self.layers if frame in layer), None)

    def with_tracked(self, frame: int, mask: StoredMask) -> ObjectMasks:
        """A frame was tracked; on a prompted one the answer to the prompts stands."""
        tracked = self.tracked if frame in self.prompted else {**self.tracked, frame: mask}
        outdated = self.outdated - {frame}
        return replace(self, tracked=tracked, outdated=outdated, corrected=self.corrected if outdated else frozenset())

    def with_answer(self, frame: int, mask: StoredMask | None) -> ObjectMasks:
        """The prompts of a frame have changed: the answer to them; ``None``: there are none left.

        What was tracked between the prompts around it is outdated. Without any prompt, nothing that was tracked stands.
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

    def with_imported(self, masks: Layer) -> ObjectMasks:
        """Imported masks, over those imported before and in place of what was tracked on their frames."""
        tracked = {frame: mask for frame, mask in self.tracked.items() if frame not in masks}
        return replace(self, tracked=tracked, imported={**self.imported, **masks})


NO_MASKS = ObjectMasks()


@dataclass(frozen=True)
class MaskStore:
    """All masks of a session, by object, and who has the pixels where they overlap.

    A pixel belongs to the object with the highest logit when the masks were made. ``overlaps`` tells it of every two
    objects apart, so that the pixels that one lost to another are its own again once the other is gone. Masks without
    logits, such as imported ones, overlap by the order of the objects.

    Some hundred bytes to a few kilobytes for every object and frame.
    """

    objects: Mapping[int, ObjectMasks] = field(default_factory=dict)
    overlaps: Overlaps = field(default_factory=dict)

    def of(self, number: int) -> ObjectMasks:
        """An object's masks."""
        return self.objects.get(number, NO_MASKS)

    def shown(self, number: int, frame: int) -> StoredMask | None:
        """The mask of an object on a frame that counts."""
        return self.of(number).shown(frame)

    def frames_of(self, numbers: Iterable[int]) -> list[int]:
        """Frames on which one of the objects has a mask, perhaps an empty one, in order."""
        return sorted(set().union(*(self.of(number).frames for number in numbers)))

    def overlaps_of(self, number: int) -> Overlaps:
        """The pixels that an object lost to others or won from them."""
        return {pair: lost for pair, lost in self.overlaps.items() if number in pair}

    def lost(self, number: int, frame: int) -> list[bytes]:
        """The pixels of an object's mask on a frame that belong to others which have a mask there, as counts."""
        return [
            lost[frame]
            for (loser, winner), lost in self.overlaps.items()
            if loser == number and frame in lost and self.shown(winner, frame) is not None
        ]

    def with_masks(self, number: int, masks: ObjectMasks) -> MaskStore:
        """An object has these masks; what overlaps stays as it is."""
        return replace(self, objects={**self.objects, number: masks})

    def with_object(self, number: int, masks: ObjectMasks, overlaps: Overlaps) -> MaskStore:
        """An object with masks and overlaps in place of those it has; with none, it is gone."""
        objects = {n: m for n, m in self.objects.items() if n != number}
        if masks != NO_MASKS:
            objects[number] = masks
        others = {pair: lost for pair, lost in self.overlaps.items() if number not in pair}
        return MaskStore(objects, {**others, **overlaps})

    def with_overlaps(self, frame: int, numbers: Collection[int], lost: Mapping[tuple[int, int], bytes]) -> MaskStore:
        """Say anew which pixels of a frame these objects lost or won; ``lost`` is of them, by (loser, winner)."""
        overlaps = dict(self.overlaps)
        for pair, frames in self.overlaps.items():
            if frame in frames and not set(pair).isdisjoint(numbers):
                overlaps[pair] = {f: counts for f, counts in frames.items() if f != frame}
        for pair, counts in lost.items():
            overlaps[pair] = {**overlaps.get(pair, {}), frame: counts}
        return replace(self, overlaps=overlaps)

    def changed_frames(self, other: MaskStore) -> list[int]:
        """The frames on which an object shows another mask than in another store, in order."""
        changed: set[int] = set()
        for number in {*self.objects, *other.objects}:
            ours, theirs = self.of(number), other.of(number)
            if ours is not theirs:
                changed |= {f for f in ours.frames | theirs.frames if ours.shown(f) != theirs.shown(f)}
        return sorted(changed)

    def label_map(self, frame: int, labels: Mapping[int, int], size: Size) -> NDArray[np.uint8]:
        """All objects of a frame in one label map (H,W); of two that claim a pixel alike, the first gets it."""
        merged = np.zeros(size, np.uint8)
        for number, label in labels.items():
            stored = self.shown(number, frame)
            if stored is not None:
                mask = decode(stored.counts, size)
                for counts in self.lost(number, frame):
                    mask &= ~decode(counts, size)
                merged[mask & (merged == 0)] = label
        return merged
