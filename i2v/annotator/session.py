"""An annotation session: one tab's work on the video."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Coroutine, Generator
from typing import Any, TypeVar

import numpy as np

from i2v.annotator.document import Box, Click, Document, Paint, Place, Step
from i2v.annotator.engine import Engine, changed_places, touched_objects
from i2v.annotator.events import EventHub
from i2v.annotator.footage import Footage
from i2v.annotator.history import Entry, History, States
from i2v.annotator.masks import Masks, MaskStore, Size, decode
from i2v.annotator.plan import TrackRange, plan_update
from i2v.annotator.turns import ModelTurns, Urgency
from i2v.annotator.work import Work
from i2v.errors import USER_ERRORS
from i2v.prompts.frame_bounds import check_points, clip_box

Result = TypeVar("Result")

_POLL_SECONDS = 0.05  # between checks for new frames of a camera
_MAX_MASK_EVENTS = 8  # per edit: if more frames change, pages fetch all masks again


class Session:
    """One tab's objects, prompts, masks and history. Runs in the event loop; only the engine uses the model's thread.

    Edits are made one at a time, also while tracking. Events: ``state`` (fetch it again), ``masks`` of a frame,
    ``refetch`` (any mask may have changed), and those of ``Work``.

    Attributes:
        number: The session's number.
        footage: The video.
        events: Events for the pages.
        work: The background job.
        history: The document and its edits.
        hidden: Hidden objects.
        num_changes: Number of changes to what a session file contains.
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
        self.history = History()
        self.hidden: frozenset[int] = frozenset()
        self.num_changes = 0
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
    def prompted_frames(self) -> dict[int, list[int]]:
        """Prompted frames of each object."""
        return {number: self.document.prompted_frames(number) for number in self.document.numbers}

    # Edits

    async def prompt(self, number: int | None, frame: int, step: Step) -> int:
        """Add a step on a frame. A first click on an imported mask corrects that mask.

        Args:
            number: The object, or ``None`` for a new one.
            frame: Index of the frame.
            step: The step.

        Returns:
            The object's number.

        Raises:
            ValueError: If the frame or object does not exist, or the step is invalid or off the frame.
        """
        self._check_frame(frame)
        step = self._checked(step)

        def change(document: Document) -> Document:
            owner = document.next_number if number is None else number
            document = document.with_object() if number is None else document
            base = self._base((owner, frame), document) if isinstance(step, Click) else None
            return document.with_steps((owner, frame), *([base, step] if base else [step]))

        new = await self.edit(change)
        return new.numbers[-1] if number is None else number

    async def adopt(self, number: int, frame: int) -> None:
        """Turn the shown mask into a prompt, so that tracking can start from it.

        Args:
            number: The object.
            frame: Index of the frame.

        Raises:
            ValueError: If there is no mask.
        """
        shown = self.store.shown(number, frame)
        if shown is None:
            raise ValueError(f"object {number} has no mask on frame {frame} that could become a prompt")
        await self.prompt(number, frame, Paint(shown.counts))

    async def bring_in(self, imported: Masks) -> None:
        """Import masks, adding missing objects. They replace tracked masks on their frames.

        Args:
            imported: Masks by object and frame.

        Raises:
            ValueError: If the video has no such frame.
        """
        for masks in imported.values():
            for frame in masks:
                self._check_frame(frame)
        await self.edit(lambda document: document.with_objects(imported), imported)

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

    def show(self, number: int, visible: bool) -> None:
        """Show or hide an object."""
        self.document.check(number)
        self.hidden = self.hidden - {number} if visible else self.hidden | {number}
        self._announce()

    async def restore(self, document: Document, imported: Masks, hidden: frozenset[int]) -> None:
        """Restore a saved session. This cannot be undone.

        Args:
            document: The document.
            imported: Masks by object and frame.
            hidden: Hidden objects.
        """
        await self._alone(self._restore(document, imported, hidden))

    async def _alone(self, change: Coroutine[Any, Any, Result]) -> Result:
        """Run a change exclusively. It runs to its end even if the caller is cancelled."""

        async def locked() -> Result:
            async with self._editing:
                return await change

        return await asyncio.shield(asyncio.ensure_future(locked()))

    async def _edit(self, change: Callable[[Document], Document], imported: Masks) -> Document:
        new = change(self.document)
        before = await self._become(new, imported)
        self.history = self.history.then(new, before)
        self._announce()
        return new

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

    async def _restore(self, document: Document, imported: Masks, hidden: frozenset[int]) -> None:
        await self._become(document, imported)
        self.history, self.hidden = History(document), hidden
        self._announce()

    async def _become(self, new: Document, imported: Masks) -> States:
        """Update model and masks for a document that is about to become the current one."""
        old, masks = self.document, self.store
        if not touched_objects(old, new, imported):
            return {}  # without waiting for the model
        before = await self._turns.run(Urgency.ANSWER, self._engine.edit, old, new, imported)
        self._publish_masks(masks, {frame for _, frame in changed_places(old, new)})
        return before

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

    def _checked(self, step: Step) -> Step:
        """Return a step with boxes clipped to the frame; ValueError if it is off the frame."""
        size = self.size[::-1]
        if isinstance(step, Click):
            check_points(np.array([[step.x, step.y]]), size, "a click")
        elif isinstance(step, Box):
            if not (step.x0 < step.x1 and step.y0 < step.y1):
                raise ValueError("a box: expected its upper left corner first, and some width and height")
            corners = np.array([[step.x0, step.y0], [step.x1, step.y1]], dtype=np.float64)
            return Box(*clip_box(corners, size, "a box").flatten().tolist())
        return step

    def _check_frame(self, frame: int) -> None:
        if not 0 <= frame < self.footage.num_available:
            raise ValueError(f"frame {frame} is not in the video, which has {self.footage.num_available}")

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

    def _tracked_objects(self, ranges: list[TrackRange]) -> set[int]:
        numbers = set(self.document.numbers)
        return set().union(*(numbers if r.objects is None else numbers & r.objects for r in ranges))

    async def _track_range(self, track_range: TrackRange, done: int) -> int:
        """Track a range; ``done`` frames were tracked before. Returns how many are done after it."""
        steps, frame = self._engine.track(track_range), track_range.start
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
        self.num_changes += 1
        self.events.publish("masks", frame=frame)

    async def _arrival(self, frame: int) -> bool:
        """Wait until a frame can be read. Returns whether it exists."""
        while self.footage.live and frame >= self.footage.num_available:
            await asyncio.sleep(_POLL_SECONDS)
        return 0 <= frame < self.footage.num_available

    def _announce(self) -> None:
        self.num_changes += 1
        self.events.publish("state")
