"""Masks as the annotator keeps them: COCO run-length codes, in layers by object and frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class FrameAnswer:
    """What the model said of a frame: masks by object, and, where masks overlap, the pixels that an object lost.

    A pixel belongs to the object with the highest logit; `ceded` has the others' compressed counts there.
    """

    frame: int
    masks: Mapping[int, StoredMask] = field(default_factory=dict)
    ceded: Mapping[int, bytes] = field(default_factory=dict)


Layer = dict[int, dict[int, StoredMask]]  # object -> frame -> mask


class MaskStore:
    """A session's masks in three layers. A prompted frame shows the answer to its prompts, any other what was tracked
    there, or else what was imported.

    Some hundred bytes to a few kilobytes for every object and frame.
    """

    def __init__(self) -> None:
        self.prompted: Layer = {}
        self.tracked: Layer = {}
        self.given: Layer = {}
        self._ceded: dict[int, dict[int, bytes]] = {}
        self.outdated: dict[int, set[int]] = {}  # object -> tracked frames that a later prompt may change

    def shown(self, obj_id: int, frame: int) -> StoredMask | None:
        """The mask of an object on a frame that counts."""
        layers = (self.prompted, self.tracked, self.given)
        return next((layer[obj_id][frame] for layer in layers if frame in layer.get(obj_id, ())), None)

    def frames_of(self, obj_id: int) -> set[int]:
        """Frames on which an object has a mask, perhaps an empty one."""
        return set().union(*(layer.get(obj_id, ()) for layer in (self.prompted, self.tracked, self.given)))

    def ceded(self, frame: int) -> Mapping[int, bytes]:
        """By object, the pixels of its mask on a frame that belong to another one."""
        return self._ceded.get(frame, {})

    def cede(self, frame: int, ceded: Mapping[int, bytes]) -> None:
        """Say anew who lost which pixels of a frame."""
        self._ceded.pop(frame, None)
        if ceded:
            self._ceded[frame] = dict(ceded)

    def put_tracked(self, answer: FrameAnswer, prompted: Iterable[int]) -> None:
        """Keep a tracked frame; `prompted` objects were only passed there, and keep the answer to their prompts."""
        own = set(prompted)
        for obj_id, mask in answer.masks.items():
            if obj_id not in own:
                self.tracked.setdefault(obj_id, {})[answer.frame] = mask
            self.outdated.get(obj_id, set()).discard(answer.frame)
        self.cede(answer.frame, answer.ceded)

    def put_prompted(self, obj_id: int, frame: int, mask: StoredMask | None) -> None:
        """Keep the answer to the prompts on a frame, or, with None, forget it: what was tracked there shows again."""
        layer = self.prompted.setdefault(obj_id, {})
        layer.pop(frame, None)
        if mask is not None:
            layer[frame] = mask
        self.outdated.get(obj_id, set()).discard(frame)

    def mark_outdated(self, obj_id: int, first: int, last: int) -> None:
        """Say that tracked frames of an object from `first` to `last` rest on prompts that have changed."""
        own = self.prompted.get(obj_id, {})
        stale = {f for f in self.frames_of(obj_id) if first <= f <= last and f not in own}
        self.outdated.setdefault(obj_id, set()).update(stale)

    def take(self, obj_id: int) -> tuple[dict[int, StoredMask], ...]:
        """Remove an object's prompted and tracked masks, and hand them over for `put_back`."""
        self.outdated.pop(obj_id, None)
        return self.prompted.pop(obj_id, {}), self.tracked.pop(obj_id, {})

    def put_back(self, obj_id: int, layers: tuple[dict[int, StoredMask], ...]) -> None:
        """Undo `take`."""
        self.prompted[obj_id], self.tracked[obj_id] = layers

    def copy(self) -> MaskStore:
        """As it is now, for a thread that writes it to a file."""
        twin = MaskStore()
        for name in ("prompted", "tracked", "given"):
            setattr(twin, name, {obj_id: dict(masks) for obj_id, masks in getattr(self, name).items()})
        twin._ceded = dict(self._ceded)
        return twin

    def label_maps(self, labels: Mapping[int, int], size: Size) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Every frame with a mask of one of the objects, in order, with its label map (H,W)."""
        frames = sorted(set().union(*(self.frames_of(obj_id) for obj_id in labels)))
        for frame in frames:
            yield frame, self.label_map(frame, labels, size)

    def label_map(self, frame: int, labels: Mapping[int, int], size: Size) -> NDArray[np.uint8]:
        """All objects of a frame in one label map (H,W); of two that claim a pixel alike, the first gets it."""
        merged = np.zeros(size, np.uint8)
        lost = self.ceded(frame)
        for obj_id, label in labels.items():
            stored = self.shown(obj_id, frame)
            if stored is not None:
                mask = decode(stored.counts, size)
                if obj_id in lost:
                    mask &= ~decode(lost[obj_id], size)
                merged[mask & (merged == 0)] = label
        return merged
