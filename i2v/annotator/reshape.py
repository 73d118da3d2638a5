"""Edits of what objects are on ranges of frames: out of view, cleared, merged into another one, split."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np

from i2v.annotator.document import Document, Paint
from i2v.annotator.masks import Frames, Masks, MaskStore, StoredMask, decode
from i2v.results.rle import Size, encode_mask


@dataclass(frozen=True)
class Reshaped:
    """A document and the masks that come and go with it.

    Attributes:
        document: The new document.
        imported: Masks by object and frame.
        cleared: Frames whose masks go, by object.
    """

    document: Document
    imported: Masks = field(default_factory=dict)
    cleared: Frames = field(default_factory=dict)


def absent(document: Document, store: MaskStore, size: Size, number: int, frames: Collection[int]) -> Reshaped:
    """Make an object out of view on frames: its prompts there go, and its masks are empty.

    Args:
        document: The current document.
        store: The current masks.
        size: (height, width) of the video.
        number: The object.
        frames: The frames.

    Raises:
        ValueError: If the object does not exist or is locked, or one of the frames was accepted.
    """
    new = document.cleared_in(number, frames)
    empty = StoredMask(encode_mask(np.zeros(size, dtype=bool)))
    return Reshaped(new, {number: {**_orphans(new, store, number, frames), **dict.fromkeys(frames, empty)}})


def unprompted(document: Document, store: MaskStore, number: int, frame: int) -> Reshaped:
    """Take back an object's prompts on a frame. Without any prompt left, its tracked masks go, but for accepted ones.

    Args:
        document: The current document.
        store: The current masks.
        number: The object.
        frame: The frame.

    Raises:
        ValueError: If it has no prompt there, or is locked.
    """
    new = document.cleared((number, frame))
    orphans = _orphans(new, store, number, ())
    accepted = {f: mask for f, mask in orphans.items() if f in new.reviewed}
    return Reshaped(new, {number: accepted} if accepted else {})


def cleared(document: Document, store: MaskStore, number: int, frames: Collection[int]) -> Reshaped:
    """Remove an object's masks and prompts on frames. Arguments and errors as for ``absent``.

    Raises:
        ValueError: Also if it has no mask there.
    """
    new = document.cleared_in(number, frames)
    gone = sorted(set(store.frames_of([number])) & set(frames))
    if not gone:
        first, last = min(frames), max(frames)
        raise ValueError(f"object {number} has no mask on frames {first} to {last}: there is nothing to clear")
    orphans = _orphans(new, store, number, frames)
    return Reshaped(new, {number: orphans} if orphans else {}, {number: gone})


def _orphans(new: Document, store: MaskStore, number: int, frames: Collection[int]) -> dict[int, StoredMask]:
    """Tracked masks off the frames of an object that has no prompt left: they stay, as if imported."""
    if new.prompted_frames(number):
        return {}
    return {f: mask for f, mask in store.of(number).tracked.items() if f not in frames}


def merged(document: Document, store: MaskStore, size: Size, number: int, into: int) -> Reshaped:
    """Merge an object into another one, which then has the pixels of both on every frame.

    Where the other one has prompts, the union becomes its prompt; elsewhere it is shown like an imported mask.

    Args:
        document: The current document.
        store: The current masks.
        size: (height, width) of the video.
        number: The object that goes.
        into: The object that stays.

    Raises:
        ValueError: If one of them does not exist or is locked, both are the same, or a frame with masks of the object
            that goes was accepted.
    """
    document.check_unlocked(number)
    document.check_unlocked(into)
    if number == into:
        raise ValueError(f"object {number} cannot be merged into itself")
    frames = store.frames_of([number])
    document.check_unreviewed(frames)
    new, imported = document.without_object(number), {}
    for frame in frames:
        counts = _union(store, frame, size, number, into)
        if (into, frame) in document.prompts:
            new = replace(new, prompts={**new.prompts, (into, frame): (Paint(counts),)})
        else:
            imported[frame] = StoredMask(counts)
    return Reshaped(new, {into: imported} if imported else {})


def split(document: Document, store: MaskStore, size: Size, number: int, frame: int) -> Reshaped:
    """Make another object of what an object is from a frame on; the object itself is out of view from there.

    The new object has the masks, as if imported, and the class of the old one.

    Args:
        document: The current document.
        store: The current masks.
        size: (height, width) of the video.
        number: The object.
        frame: First frame of the new object.

    Raises:
        ValueError: If the object does not exist or is locked, or has no mask from the frame on, or none before it.
    """
    document.check_unlocked(number)
    frames = store.frames_of([number])
    later = [f for f in frames if f >= frame]
    if not later or len(later) == len(frames):
        raise ValueError(f"object {number} has no masks on both sides of frame {frame}: there is nothing to split")
    new = document.cleared_in(number, later).with_object()
    own, empty = new.numbers[-1], StoredMask(encode_mask(np.zeros(size, dtype=bool)))
    category = next(info.category for info in document.objects if info.number == number)
    shown = {f: store.shown(number, f) for f in later}
    moved = {f: StoredMask(mask.counts) for f, mask in shown.items() if mask is not None}
    left = {**_orphans(new, store, number, later), **dict.fromkeys(later, empty)}
    return Reshaped(new.classified(own, category), {number: left, own: moved})


def _union(store: MaskStore, frame: int, size: Size, *numbers: int) -> bytes:
    found = [mask for mask in (store.shown(number, frame) for number in numbers) if mask is not None]
    if len(found) == 1:
        return found[0].counts
    return encode_mask(np.logical_or.reduce([decode(mask.counts, size) for mask in found]))
