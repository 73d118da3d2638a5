"""Session: one tab's work on the video, from a click to the masks that answer it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from i2v.annotator.document import Box, Click, Document, Given, History, Paint, Place, Step
from i2v.annotator.engine import Engine
from i2v.annotator.events import EventHub
from i2v.annotator.footage import Footage
from i2v.annotator.masks import FrameAnswer, MaskStore, Size, decode
from i2v.annotator.plan import TrackRange, plan_update
from i2v.annotator.turns import ModelTurns, Urgency
from i2v.annotator.work import Work
from i2v.errors import USER_ERRORS
from i2v.prompts.parsing import check_points, clip_box

_POLL_SECONDS = 0.05  # between looks for new frames of a camera


class Session:
    """Everything here runs in the event loop, which owns it; only the engine works in the model's thread.

    Edits are made one after the other. Tracking goes on beside them. Events: `state` (ask for it anew), `masks` of a
    frame, `refetch` (all masks may differ), and those of `Work`.
    """

    def __init__(self, number: int, footage: Footage, engine: Engine, turns: ModelTurns) -> None:
        self.number = number
        self.footage = footage
        self.events = EventHub()
        self.work = Work(self.events)
        self.history = History()
        self.store = MaskStore()
        self.hidden: frozenset[int] = frozenset()
        self.num_changes = 0  # of all that a session file holds
        self.last_used = time.monotonic()
        self._engine, self._turns = engine, turns
        self._editing = asyncio.Lock()
        self._preparing: asyncio.Task[None] | None = None
        self._corrected: set[Place] = set()  # places whose prompts have changed
        self._shelf: dict[int, Any] = {}  # masks of deleted objects, which undo may bring back

    @property
    def document(self) -> Document:
        return self.history.present

    @property
    def size(self) -> Size:
        return self.footage.height, self.footage.width

    @property
    def prompted_frames(self) -> dict[int, list[int]]:
        """Of every object."""
        return {number: self.document.prompted_frames(number) for number in self.document.numbers}

    # Edits

    async def prompt(self, number: int | None, frame: int, step: Step) -> int:
        """Add a step on a frame of an object, or of a new one (None); returns the object's number.

        A click on a mask that the model has not made, one of a file, starts from that mask.
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
        """Make the mask that is shown a prompt, so that tracking starts from it."""
        shown = self.store.shown(number, frame)
        if shown is None:
            raise ValueError(f"object {number} has no mask on frame {frame} that could become a prompt")
        await self.prompt(number, frame, Paint(shown.counts))

    async def bring_in(self, given: Given) -> None:
        """Add imported masks. They take the place of what was tracked on their frames, for good."""
        for masks in given.values():
            for frame in masks:
                self._check_frame(frame)
        await self.edit(lambda document: document.with_given(given))
        for number, masks in given.items():
            for frame in masks:
                self.store.tracked.get(number, {}).pop(frame, None)
        self.events.publish("refetch")

    async def edit(self, change: Callable[[Document], Document]) -> Document:
        """Make a change that undo takes back; returns the new document."""
        async with self._editing:
            new = change(self.document)
            # What could have been redone is gone, and the numbers of its objects are free again.
            past = History(self.document, self.history.past)
            self._forget_all_but(past.mentions())
            await self._become(new)
            self.history = past.then(new)
            self._announce()
            return new

    async def undo(self) -> None:
        """Take the last edit back. ValueError if there is none."""
        await self._move_in_history(History.undone)

    async def redo(self) -> None:
        """Make the edit again that was taken back last. ValueError if there is none."""
        await self._move_in_history(History.redone)

    def show(self, number: int, visible: bool) -> None:
        """Show or hide an object."""
        self.document.check(number)
        self.hidden = self.hidden - {number} if visible else self.hidden | {number}
        self._announce()

    async def restore(self, document: Document, hidden: frozenset[int]) -> None:
        """Begin with a document of a file; undo does not go behind it."""
        async with self._editing:
            await self._become(document)
            self.history, self.hidden = History(document), hidden
            self._announce()

    async def _move_in_history(self, move: Callable[[History], History]) -> None:
        async with self._editing:
            history = move(self.history)
            await self._become(history.present)
            self.history = history
            self._announce()

    def _base(self, place: Place, document: Document) -> Paint | None:
        """The mask that a first click on a place is about, unless the model knows it anyway."""
        number, frame = place
        shown = self.store.shown(number, frame)
        imported = frame in self.store.given.get(number, ()) and frame not in self.store.tracked.get(number, ())
        if shown is None or place in document.prompts or (self._engine.knows(place) and not imported):
            return None
        return Paint(shown.counts) if decode(shown.counts, self.size).any() else None

    def _checked(self, step: Step) -> Step:
        """A step as it is on the frame, with boxes clipped to it; ValueError if it is off the frame."""
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

    async def _become(self, new: Document) -> None:
        """Bring model and masks in line with a document that is about to be the present one."""
        old = self.document
        returned = set(new.numbers) - set(old.numbers)
        back = returned & self._shelf.keys()
        # An object that comes back brings the answers to its prompts along.
        places = [
            p
            for p in {**old.prompts, **new.prompts}
            if p[0] in new.numbers and p[0] not in back and old.prompts.get(p) != new.prompts.get(p)
        ]
        answers: dict[Place, FrameAnswer] = {}
        if places or old.numbers != new.numbers:
            answers = await self._turns.run(Urgency.ANSWER, self._engine.become, old, new, places)
        self._exchange_objects(old, new)
        for place in places:
            self._keep_answer(place, answers[place], new)
        for frame in sorted({frame for _, frame in places}):
            self.events.publish("masks", frame=frame)

    def _exchange_objects(self, old: Document, new: Document) -> None:
        gone, returned = set(old.numbers) - set(new.numbers), set(new.numbers) - set(old.numbers)
        for number in gone:
            self._shelf[number] = self.store.take(number)
        known = returned & self._shelf.keys()
        for number in known:
            self.store.put_back(number, self._shelf.pop(number))
        self.store.given = {number: dict(masks) for number, masks in new.given.items()}
        # An object that is new has nothing yet that a page would have to fetch.
        if gone or known or old.given is not new.given:
            self.events.publish("refetch")

    def _keep_answer(self, place: Place, answer: FrameAnswer, new: Document) -> None:
        number, frame = place
        self.store.put_prompted(number, frame, answer.masks.get(number))
        self.store.cede(frame, answer.ceded)
        prompted = new.prompted_frames(number)
        if not prompted and self.store.tracked.pop(number, {}):
            # Without a prompt, nothing that was tracked can stand.
            self.events.publish("refetch")
        first = max((f for f in prompted if f < frame), default=0)
        last = min((f for f in prompted if f > frame), default=self.footage.num_available - 1)
        self.store.mark_outdated(number, first, last)
        self._corrected.add(place)

    def _forget_all_but(self, numbers: set[int]) -> None:
        stale = self._shelf.keys() - numbers
        for number in stale:
            del self._shelf[number]
        self._engine.forget(stale)

    # Tracking

    def track(self, ranges: list[TrackRange]) -> None:
        """Start to follow ranges, one after the other. RuntimeError while other work is going on."""
        total = (
            None
            if any(track_range.count is None for track_range in ranges)
            else sum(track_range.count or 0 for track_range in ranges)
        )
        self.work.start("track", lambda: self._track(ranges), total)

    def update(self) -> None:
        """Start to track anew what changed prompts have changed, and nothing else. ValueError if there is nothing."""
        num_frames = self.footage.num_available
        ranges = plan_update(self._corrected, self.prompted_frames, self.store.outdated, num_frames)
        if not ranges:
            raise ValueError("nothing to update: no tracked mask rests on prompts that have changed")
        self.track(ranges)

    def prepare(self, frame: int) -> None:
        """Get a frame ready for a click when nothing else is to be done; a later wish takes the place of this one."""
        self._check_frame(frame)
        if self._preparing is not None:
            self._preparing.cancel()
        self._preparing = asyncio.create_task(self._prepare(frame))

    async def close(self) -> None:
        """End all work and let go of the video."""
        await self.work.cancel()
        if self._preparing is not None:
            self._preparing.cancel()
        await self._turns.run(Urgency.ANSWER, self._engine.close)

    async def _prepare(self, frame: int) -> None:
        # A frame that cannot be read is reported when it is asked for.
        with contextlib.suppress(*USER_ERRORS):
            await self._turns.run(Urgency.PREPARE, self._engine.prepare, frame)

    async def _track(self, ranges: list[TrackRange]) -> None:
        done = 0
        try:
            for track_range in ranges:
                steps, frame = self._engine.track(track_range), track_range.start
                while await self._arrival(frame):
                    answer: FrameAnswer | None = await self._turns.run(Urgency.TRACK, next, steps, None)
                    if answer is None:
                        break
                    self._keep_tracked(answer)
                    done, frame = done + 1, answer.frame + (-1 if track_range.reverse else 1)
                    self.work.advance(done)
        finally:
            # Also where it was stopped: fewer frames rest on prompts that have changed.
            self._corrected = {place for place in self._corrected if self.store.outdated.get(place[0])}
            self._announce()

    def _keep_tracked(self, answer: FrameAnswer) -> None:
        # An object may have been deleted, and a prompt given, while the frame was tracked.
        prompted = {number for number, frame in self.document.prompts if frame == answer.frame}
        gone = answer.masks.keys() - set(self.document.numbers)
        self.store.put_tracked(answer, prompted | gone)
        self.num_changes += 1
        self.events.publish("masks", frame=answer.frame)

    async def _arrival(self, frame: int) -> bool:
        """Wait until a frame can be read; whether it ever can be."""
        while self.footage.live and frame >= self.footage.num_available:
            await asyncio.sleep(_POLL_SECONDS)
        return 0 <= frame < self.footage.num_available

    def _announce(self) -> None:
        self.num_changes += 1
        self.events.publish("state")
