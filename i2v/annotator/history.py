"""Undo and redo: documents, and snapshots of the objects that each edit changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from i2v.annotator.document import Document
from i2v.annotator.masks import NO_MASKS, ObjectMasks, Overlaps
from i2v.inference.object_track import ObjectSnapshot

MAX_EDITS = 200
# Objects of tracking runs that can be undone, in total. A run keeps the masks and memories that it replaced: up to
# about 15 MB per object, and about a kilobyte per frame.
MAX_TRACKED = 64


@dataclass(frozen=True, eq=False)
class ObjectState:
    """The complete state of an object in a session. The default is an object that does not exist or has no prompts yet.

    Attributes:
        masks: Its masks.
        overlaps: Its overlaps with other objects.
        model: The model's memories of it, if any.
    """

    masks: ObjectMasks = NO_MASKS
    overlaps: Overlaps = field(default_factory=dict)
    model: ObjectSnapshot | None = None


States: TypeAlias = Mapping[int, ObjectState]


@dataclass(frozen=True, eq=False)
class Entry:
    """The state on the other side of an edit or a tracking run.

    Attributes:
        document: The document there.
        states: The state there of each object that the edit changed.
        tracked: Whether it was a tracking run, which does not change the document.
    """

    document: Document
    states: States
    tracked: bool = False


@dataclass(frozen=True, eq=False)
class History:
    """The current document, and the edits before and after it.

    Undoing or redoing an edit exchanges the states of its entry with the current ones, which form the entry for the way
    back. So nothing is lost, not even what was tracked after the edit.

    Attributes:
        present: The current document.
        past: Edits that can be undone, the latest last.
        future: Edits that can be redone, the next first.
    """

    present: Document = field(default_factory=Document)
    past: tuple[Entry, ...] = ()
    future: tuple[Entry, ...] = ()

    def then(self, document: Document, before: States, tracked: bool = False) -> History:
        """Append an edit. Discards the edits that could be redone, and the oldest ones beyond the limits.

        Args:
            document: The document after the edit.
            before: States, before the edit, of the objects that it changed.
            tracked: Whether it is a tracking run.
        """
        return History(document, _bounded((*self.past, Entry(self.present, before, tracked))))

    @property
    def last(self) -> Entry:
        """The edit to undo.

        Raises:
            ValueError: If there is none.
        """
        if not self.past:
            raise ValueError("there is nothing to undo")
        return self.past[-1]

    @property
    def next(self) -> Entry:
        """The edit to redo.

        Raises:
            ValueError: If there is none.
        """
        if not self.future:
            raise ValueError("there is nothing to redo")
        return self.future[0]

    def undone(self, states: States) -> History:
        """Go one edit back. ``states`` are the current states of the objects that it changed."""
        back = self.last
        here = replace(back, document=self.present, states=states)
        return History(back.document, self.past[:-1], (here, *self.future))

    def redone(self, states: States) -> History:
        """Go one edit forward. ``states`` are the current states of the objects that it changed."""
        ahead = self.next
        here = replace(ahead, document=self.present, states=states)
        return History(ahead.document, (*self.past, here), self.future[1:])


def _bounded(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Keep the latest entries within the limits, at least one."""
    room, first = MAX_TRACKED, len(entries) - 1
    for place in range(len(entries) - 1, max(-1, len(entries) - 1 - MAX_EDITS), -1):
        room -= len(entries[place].states) if entries[place].tracked else 0
        if room < 0:
            break
        first = place
    return entries[first:]
