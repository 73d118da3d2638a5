"""What undo and redo lead to: documents, and snapshots of the objects that each edit touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from i2v.annotator.document import Document
from i2v.annotator.masks import NO_MASKS, ObjectMasks, Overlaps
from i2v.inference.object_track import ObjectSnapshot

MAX_EDITS = 200
# Objects of tracking runs that can be undone. A run keeps the masks and memories that it replaced: some 15 MB of an
# object at most, and a kilobyte or so of every frame.
MAX_TRACKED = 64


@dataclass(frozen=True, eq=False)
class ObjectState:
    """All that a session holds of one object: its masks, and what the model remembers of it (``None``: nothing).

    The default is an object that is not there, or that nothing has been said of yet.
    """

    masks: ObjectMasks = NO_MASKS
    overlaps: Overlaps = field(default_factory=dict)
    model: ObjectSnapshot | None = None


States: TypeAlias = Mapping[int, ObjectState]


@dataclass(frozen=True, eq=False)
class Entry:
    """The other side of an edit: the document there, and the state there of every object that the edit touched.

    ``tracked``: it was no edit of the document but a run of tracking.
    """

    document: Document
    states: States
    tracked: bool = False


@dataclass(frozen=True, eq=False)
class History:
    """The present document, and the edits before and after it.

    To undo or redo an edit is to exchange the states of its entry for the present ones, which makes the entry that
    leads back. So nothing is lost on the way, not even what was tracked since the edit was made.
    """

    present: Document = field(default_factory=Document)
    past: tuple[Entry, ...] = ()
    future: tuple[Entry, ...] = ()

    def then(self, document: Document, before: States, tracked: bool = False) -> History:
        """One more edit, of objects that were as in ``before``; what could be redone no longer can.

        The oldest entries are dropped where there would be too many.
        """
        return History(document, _bounded((*self.past, Entry(self.present, before, tracked))))

    @property
    def last(self) -> Entry:
        """The edit that undo takes back; ValueError at the beginning."""
        if not self.past:
            raise ValueError("there is nothing to undo")
        return self.past[-1]

    @property
    def next(self) -> Entry:
        """The edit that redo makes again; ValueError at the end."""
        if not self.future:
            raise ValueError("there is nothing to redo")
        return self.future[0]

    def undone(self, states: States) -> History:
        """One edit back, where the objects that it touched were in these states."""
        back = self.last
        here = replace(back, document=self.present, states=states)
        return History(back.document, self.past[:-1], (here, *self.future))

    def redone(self, states: States) -> History:
        """One edit forward, where the objects that it touched were in these states."""
        ahead = self.next
        here = replace(ahead, document=self.present, states=states)
        return History(ahead.document, (*self.past, here), self.future[1:])


def _bounded(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The latest entries, as many as there is room for; at least one."""
    room, first = MAX_TRACKED, len(entries) - 1
    for place in range(len(entries) - 1, max(-1, len(entries) - 1 - MAX_EDITS), -1):
        room -= len(entries[place].states) if entries[place].tracked else 0
        if room < 0:
            break
        first = place
    return entries[first:]
