"""An annotation session: one tab's work on the video."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Coroutine, Generator, Mapping
from typing import Any, TypeVar

from i2v.annotator.document import Click, Document, Paint, Place, Step, Stroke, checked_step
from i2v.annotator.engine import Engine, changed_places, touched_objects
from i2v.annotator.events import EventHub
from i2v.annotator.footage import Footage
from i2v.annotator.history import Entry, History, States
from i2v.annotator.masks import NO_FRAMES, Frames, Masks, MaskStore, Size, StoredMask, decode, painted
from i2v.annotator.plan import TrackRange, plan_update
from i2v.annotator.reshape import Reshaped, absent, cleared, merged, split, unprompted
from i2v.annotator.saving import Saving
from i2v.annotator.turns import ModelTurns, Urgency
from i2v.annotator.uploads import Uploads
from i2v.annotator.work import Work
from i2v.errors import USER_ERRORS

Result = TypeVar("Result")

_POLL_SECONDS = 0.05  # between checks for new frames of a camera
_MAX_MASK_EVENTS = 8  # per edit: if more frames change, pages fetch all masks again


class Session:
    """One tab's objects, prompts, masks and history. Runs in the event loop; only the engine uses the model's thread.

    Edits are made one at a time, also while tracking. Events: ``state`` (fetch it again), ``masks`` of a frame,
    ``refetch`` (any mask may have changed), ``preview`` (a prompt's first mask, until the masks of its frame come), and
    those of ``Work``.

    Attributes:
        number: The session's number.
        footage: The video.
        events: Events for the pages.
        work: The background job.
        uploads: Files that were sent for an import.
        history: The document and its edits.
        saving: Whether the session's changes are in its file.
        last_used: Time of the last request, in seconds of ``time.monotonic``.
    """

    def __init__(self, number: int, footage: Footage, engine: Engine, turns: ModelTurns) -> None:
        """Create a session without objects.

        Args:
            number: The session's number.
            footage: The video.
            engine: The engine, for this session alone.
            turns: Access to the model's thread.
        """
        self.number = number
        self.footage = footage
        self.events = EventHub()
        self.work = Work(self.events)
        self.uploads = Uploads()
        self.history = History()
        self.saving = Saving(self.events)
        self.last_used = time.monotonic()
        self._engine, self._turns = engine, turns
        self._editing = asyncio.Lock()
        self._preparing: asyncio.Task[None] | None = None
        self._tracking: Entry | None = None  # the run of tracking that is going on

    @property
    def document(self) -> Document:
        return self.history.present

    @property
    def store(self) -> MaskStore:
        """The current masks, an immutable value."""
        return self._engine.store

    @property
    def size(self) -> Size:
        return self.footage.height, self.footage.width

    @property
    def unlocked(self) -> list[int] | None:
        """Numbers of the objects that are not locked; ``None`` if that is all of them, later ones too."""
        locked = self.document.locked
        return [number for number in self.document.numbers if number not in locked] if locked else None

    @property
    def prompted_frames(self) -> dict[int, list[int]]:
        """Prompted frames of each object."""
        return {number: self.document.prompted_frames(number) for number in self.document.numbers}

    def mask_on(self, number: int, frame: int, use: str) -> StoredMask:
        """Return the mask of an object that is shown on a frame.

        Args:
            number: The object.
            frame: Index of the frame.
            use: What the mask is for, for messages.

        Raises:
            ValueError: If the frame or object does not exist, or it has no mask there.
        """
        self._check_frame(frame)
        self.document.check(number)
        shown = self.store.shown(number, frame)
        if shown is None:
            raise ValueError(f"object {number} has no mask on frame {frame} that could {use}")
        return shown

    # Edits

    async def prompt(self, number: int | None, frame: int, step: Step | Stroke, new: bool = False) -> int:
        """Add a step on a frame. A first click on an imported mask corrects that mask.

        A stroke changes the mask that is there when all earlier edits are done.

        Args:
            number: The object, or ``None`` for a new one with the next free number.
            frame: Index of the frame.
            step: The step.
            new: Whether to add the object first, under this number.

        Returns:
            The object's number.

        Raises:
            ValueError: If the frame or object does not exist, a new object does exist, the step is invalid or off the
                frame, or it erases where there is nothing.
        """
        self._check_frame(frame)
        given = step if isinstance(step, Stroke) else checked_step(step, self.size)

        def change(document: Document) -> Document:
            adds = new or number is None
            document = document.with_object(number=number) if adds else document
            place = (document.numbers[-1] if adds or number is None else number), frame
            step = painted(self.store.shown(*place), given, self.size) if isinstance(given, Stroke) else given
            if isinstance(step, Paint) and not decode(step.counts, self.size).any() and self._shows_nothing(place):
                raise ValueError(f"object {place[0]} has no mask on frame {frame}: there is nothing to erase")
            base = self._base(place, document) if isinstance(step, Click) else None
            return document.with_steps(place, *([base, step] if base else [step]))

        changed = await self.edit(change)
        return changed.numbers[-1] if number is None else number

    async def adopt(self, number: int, frame: int, to: int | None = None) -> None:
        """Turn the shown mask into a prompt, so that tracking can start from it.

        Args:
            number: The object.
            frame: Index of the frame.
            to: Frame of the prompt, if it is another one.

        Raises:
            ValueError: If there is no mask.
        """
        shown = self.mask_on(number, frame, "become a prompt")
        await self.prompt(number, frame if to is None else to, Paint(shown.counts))

    async def mark_absent(self, number: int, first: int, last: int) -> None:
        """Say that an object is out of view on frames: its prompts there go, and its masks are empty.

        Args:
            number: The object.
            first: First frame.
            last: Last frame.

        Raises:
            ValueError: If there are no such frames, or the object is locked, or one of the frames was accepted.
        """
        self._check_frame(last)
        frames = range(first, last + 1)
        await self._alone(self._reshape(lambda: absent(self.document, self.store, self.size, number, frames)))

    async def clear_masks(self, number: int, first: int, last: int) -> None:
        """Remove an object's masks and prompts on frames. Arguments and errors as for ``mark_absent``.

        Raises:
            ValueError: Also if it has no mask there.
        """
        self._check_frame(last)
        frames = range(first, last + 1)
        await self._alone(self._reshape(lambda: cleared(self.document, self.store, number, frames)))

    async def take_back(self, number: int, frame: int) -> None:
        """Take back an object's prompts on a frame. Errors as for ``reshape.unprompted``."""
        await self._alone(self._reshape(lambda: unprompted(self.document, self.store, number, frame)))

    async def merge(self, number: int, into: int) -> None:
        """Merge an object into another one. Errors as for ``reshape.merged``."""
        await self._alone(self._reshape(lambda: merged(self.document, self.store, self.size, number, into)))

    async def split(self, number: int, frame: int) -> int:
        """Make another object of an object from a frame on; returns its number. Errors as for ``reshape.split``."""
        self._check_frame(frame)
        new = await self._alone(self._reshape(lambda: split(self.document, self.store, self.size, number, frame)))
        return new.numbers[-1]

    async def bring_in(self, imported: Masks, names: Mapping[int, str] | None = None) -> None:
        """Import masks as one edit, adding missing objects. They replace tracked masks on their frames.

        Args:
            imported: Masks by object and frame.
            names: Names of objects that may be added.

        Raises:
            ValueError: If the video has no such frame.
        """

        def change(document: Document) -> Document:
            for number, masks in imported.items():
                if number in document.numbers:
                    document.check_unlocked(number)
                for frame in masks:
                    self._check_frame(frame)
                    if frame in document.reviewed:
                        raise ValueError(f"frame {frame} was accepted as reviewed: take that back before importing")
            return document.with_objects(imported, names)

        await self.edit(change, imported)

    async def edit(self, change: Callable[[Document], Document], imported: Masks | None = None) -> Document:
        """Apply an edit that can be undone.

        Args:
            change: Returns the new document for the current one.
            imported: Masks to import, by object and frame.

        Returns:
            The new document.
        """
        return await self._alone(self._edit(change, imported or {}))

    async def undo(self) -> None:
        """Undo the last edit or tracking run. A running one is stopped first.

        Raises:
            ValueError: If there is nothing to undo.
        """
        await self._alone(self._undo())

    async def redo(self) -> None:
        """Redo the edit or tracking run undone last.

        Raises:
            ValueError: If there is nothing to redo.
        """
        await self._alone(self._redo())

    async def restore(self, document: Document, imported: Masks) -> None:
        """Restore a saved session. This cannot be undone.

        Args:
            document: The document.
            imported: Masks by object and frame.
        """
        await self._alone(self._restore(document, imported))

    async def _alone(self, change: Coroutine[Any, Any, Result]) -> Result:
        """Run a change exclusively. It runs to its end even if the caller is cancelled."""

        async def locked() -> Result:
            async with self._editing:
                return await change

        return await asyncio.shield(asyncio.ensure_future(locked()))

    async def _edit(
        self, change: Callable[[Document], Document], imported: Masks, cleared: Frames = NO_FRAMES
    ) -> Document:
        new = change(self.document)
        before = await self._become(new, imported, cleared)
        self.history = self.history.then(new, before)
        self._announce()
        return new

    async def _reshape(self, make: Callable[[], Reshaped]) -> Document:
        # Made only when it is this edit's turn, of what the document and the masks are then.
        reshaped = make()
        return await self._edit(lambda _: reshaped.document, reshaped.imported, reshaped.cleared)

    async def _undo(self) -> None:
        entry = self.history.last
        if entry is self._tracking:
            await self.work.cancel()
            if entry not in self.history.past:  # nothing was tracked yet
                return
        states = await self._exchange(entry)
        self.history = self.history.undone(states)
        self._announce()

    async def _redo(self) -> None:
        states = await self._exchange(self.history.next)
        self.history = self.history.redone(states)
        self._announce()

    async def _restore(self, document: Document, imported: Masks) -> None:
        await self._become(document, imported)
        self.history = History(document)
        self._announce()

    async def _become(self, new: Document, imported: Masks, cleared: Frames = NO_FRAMES) -> States:
        """Update model and masks for a document that is about to become the current one."""
        old, masks = self.document, self.store
        if not touched_objects(old, new, imported, cleared):
            return {}  # without waiting for the model
        places = changed_places(old, new)
        loop = asyncio.get_running_loop()

        def show(place: Place, counts: bytes) -> None:  # in the model's thread
            loop.call_soon_threadsafe(self._publish_preview, place, counts)

        # Only of a single prompt: a page shows one preview at a time.
        on_preview = show if len(places) == 1 else None
        try:
            return await self._turns.run(Urgency.ANSWER, self._engine.edit, old, new, imported, cleared, on_preview)
        finally:
            # Also after an error, in place of the preview.
            self._publish_masks(masks, {frame for _, frame in places})

    def _publish_preview(self, place: Place, counts: bytes) -> None:
        number, frame = place
        self.events.publish("preview", frame=frame, object=number, counts=counts.decode("ascii"))

    async def _exchange(self, entry: Entry) -> States:
        if not entry.states:
            return {}
        masks = self.store
        before = await self._turns.run(Urgency.ANSWER, self._engine.exchange, entry.states)
        self._publish_masks(masks)
        return before

    def _publish_masks(self, before: MaskStore, answered: Collection[int] = ()) -> None:
        """Announce the frames whose shown masks changed, and those with an answer."""
        frames = {*answered, *before.changed_frames(self.store)}
        if len(frames) > _MAX_MASK_EVENTS:
            self.events.publish("refetch")
        else:
            for frame in sorted(frames):
                self.events.publish("masks", frame=frame)

    def _base(self, place: Place, document: Document) -> Paint | None:
        """Return the mask that a first click corrects, unless the model knows it already."""
        number, frame = place
        masks = self.store.of(number)
        shown = masks.shown(frame)
        imported = frame in masks.imported and frame not in masks.tracked
        if shown is None or place in document.prompts or (self._engine.knows(place) and not imported):
            return None
        return Paint(shown.counts) if decode(shown.counts, self.size).any() else None

    def _shows_nothing(self, place: Place) -> bool:
        shown = self.store.shown(*place)
        return shown is None or not decode(shown.counts, self.size).any()

    def _check_frame(self, frame: int) -> None:
        if not 0 <= frame < self.footage.num_available:
            raise ValueError(f"frame {frame} is not in the video, which has {self.footage.num_available}")
        if self.footage.replaced is not None:
            raise ValueError(self.footage.replaced)

    # Tracking

    def track(self, ranges: list[TrackRange]) -> None:
        """Start tracking ranges one after another. Undo reverts them as one run.

        Raises:
            RuntimeError: If another job is running.
        """
        counts = [track_range.count for track_range in ranges]
        total = None if None in counts else sum(count or 0 for count in counts)
        self.work.start("track", lambda: self._track(ranges), total)

    def update(self) -> None:
        """Start tracking again what depends on changed prompts.

        Raises:
            ValueError: If there is nothing to update.
            RuntimeError: If another job is running.
        """
        objects = self.store.objects
        corrected = [(number, frame) for number, masks in objects.items() for frame in masks.corrected]
        outdated = {number: masks.outdated for number, masks in objects.items()}
        free = self.unlocked
        corrected = [place for place in corrected if free is None or place[0] in free]
        ranges = plan_update(corrected, self.prompted_frames, outdated, self.footage.num_available)
        if not ranges:
            raise ValueError("nothing to update: no tracked mask depends on a changed prompt")
        self.track(ranges)

    def prepare(self, frame: int) -> None:
        """Prepare a frame for a click when the model is idle. Replaces an earlier request."""
        self._check_frame(frame)
        if self._preparing is not None:
            self._preparing.cancel()
        self._preparing = asyncio.create_task(self._prepare(frame))

    async def close(self) -> None:
        """Cancel all work and close the video."""
        await self.work.cancel()
        self.uploads.clear()
        if self._preparing is not None:
            self._preparing.cancel()
        await self._turns.run(Urgency.ANSWER, self._engine.close)

    async def _prepare(self, frame: int) -> None:
        # A frame that cannot be read is reported when the user prompts on it.
        with contextlib.suppress(*USER_ERRORS):
            await self._turns.run(Urgency.PREPARE, self._engine.prepare, frame)

    async def _track(self, ranges: list[TrackRange]) -> None:
        async with self._editing:
            states = await self._turns.run(Urgency.ANSWER, self._engine.states, self._tracked_objects(ranges))
            before, masks = self.history, self.store
            begun = self.history = before.then(self.document, states, tracked=True)
        self._tracking = begun.last
        self._announce()
        done = 0
        try:
            for track_range in ranges:
                done = await self._track_range(track_range, done)
        finally:
            self._tracking = None
            if self.history is begun and self.store is masks:
                self.history = before  # nothing to be undone
            self._announce()

    def _is_kept(self, place: Place) -> bool:
        number, frame = place
        return frame in self.document.reviewed or number in self.document.locked

    def _tracked_objects(self, ranges: list[TrackRange]) -> set[int]:
        numbers = set(self.document.numbers)
        return set().union(*(numbers if r.objects is None else numbers & r.objects for r in ranges))

    async def _track_range(self, track_range: TrackRange, done: int) -> int:
        """Track a range; ``done`` frames were tracked before. Returns how many are done after it."""
        steps, frame = self._engine.track(track_range, self._is_kept), track_range.start
        try:
            while await self._arrival(frame):
                tracked: int | None = await self._turns.run(Urgency.TRACK, next, steps, None)
                if tracked is None:
                    break
                self._tell_of_tracked(tracked)
                done, frame = done + 1, tracked + (-1 if track_range.reverse else 1)
                self.work.advance(done)
        finally:
            await asyncio.shield(asyncio.ensure_future(self._end_range(steps, frame)))
        return done

    async def _end_range(self, steps: Generator[int, None, None], frame: int) -> None:
        # After a cancellation, the model's thread may still be tracking a last frame, which counts, too.
        masks = self.store
        await self._turns.run(Urgency.ANSWER, steps.close)
        if self.store is not masks:
            self._tell_of_tracked(frame)

    def _tell_of_tracked(self, frame: int) -> None:
        if self.saving.changed():
            self.saving.announce()
        self.events.publish("masks", frame=frame)

    async def _arrival(self, frame: int) -> bool:
        """Wait until a frame can be read. Returns whether it exists."""
        while self.footage.live and frame >= self.footage.num_available:
            await asyncio.sleep(_POLL_SECONDS)
        return 0 <= frame < self.footage.num_available

    def _announce(self) -> None:
        self.saving.changed()
        self.events.publish("state")
