"""Undo and redo: every edit, deletion, import and run of tracking is taken back and made again as it was."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotator_support import (
    FIRST,
    NUM_FRAMES,
    OFF,
    SECOND,
    SIZE,
    assert_same,
    finished,
    in_session,
    masks_of,
    tracked,
)

from i2v.annotator.document import Box, Click, Document
from i2v.annotator.history import MAX_EDITS, MAX_TRACKED, History, ObjectState
from i2v.annotator.masks import NO_MASKS, StoredMask
from i2v.annotator.plan import TrackRange
from i2v.annotator.session import Session
from i2v.annotator.turns import Urgency
from i2v.results.rle import encode_mask

CLICK = Click(1, 2, True)


def state_of(number: int) -> ObjectState:
    return ObjectState(NO_MASKS.with_tracked(number, StoredMask(b"x")))


def test_undo_and_redo_walk_the_same_path() -> None:
    first = Document().with_object()
    second = first.with_steps((1, 0), CLICK)
    history = History().then(first, {}).then(second, {1: state_of(1)})
    now = {1: state_of(2)}
    back = history.undone(now)
    assert (back.present, back.next.states, back.next.document) == (first, now, second)
    start = back.undone({})
    assert start.present == Document()
    again = start.redone({}).redone(history.last.states)
    assert (again.present, again.last.states, again.last.document) == (second, history.last.states, first)
    assert back.then(first.renamed(1, "x"), {}).future == ()
    with pytest.raises(ValueError, match="nothing to undo"):
        start.undone({})
    with pytest.raises(ValueError, match="nothing to redo"):
        again.redone({})


def test_the_history_is_bounded_by_edits_and_by_tracked_objects() -> None:
    history = History()
    for number in range(MAX_EDITS + 20):
        history = history.then(Document(next_number=number + 2), {})
    assert len(history.past) == MAX_EDITS
    assert history.past[0].document.next_number == 21
    quarter = dict.fromkeys(range(MAX_TRACKED // 4), ObjectState())
    for _ in range(7):
        history = history.then(history.present, quarter, tracked=True).then(history.present, {})
    assert sum(entry.tracked for entry in history.past) == 4
    many = dict.fromkeys(range(MAX_TRACKED + 1), ObjectState())
    history = history.then(history.present, many, tracked=True)
    assert [len(entry.states) for entry in history.past] == [MAX_TRACKED + 1]


def consistent(session: Session) -> None:
    """Every mask that the model remembers is in the store, and what was answered or tracked is of a known object."""
    known = {number for number in range(1, 9) for frame in range(NUM_FRAMES) if session._engine.knows((number, frame))}
    assert known <= set(session.document.numbers)
    assert set(session.store.objects) <= set(session.document.numbers)
    for number in known:
        frames = {frame for frame in range(NUM_FRAMES) if session._engine.knows((number, frame))}
        assert frames <= session.store.of(number).frames
    for number in session.document.numbers:
        assert sorted(session.store.of(number).prompted) == session.document.prompted_frames(number)


def everything(session: Session) -> tuple[Document, dict[int, Any]]:
    consistent(session)
    return session.document, dict(session.store.objects)


def label_maps(session: Session) -> dict[int, np.ndarray]:
    labels = {number: number for number in session.document.numbers}
    return {frame: session.store.label_map(frame, labels, SIZE) for frame in session.store.frames_of(labels)}


def test_tracking_is_one_step(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        await session.prompt(None, 0, SECOND)
        await tracked(session, "forward", objects=[2])
        before = everything(session)
        await session.prompt(2, 4, OFF)
        corrected = everything(session)
        await tracked(session, "both")
        after, merged = everything(session), label_maps(session)
        assert len(masks_of(session, 1)) == len(masks_of(session, 2)) == NUM_FRAMES
        await session.undo()
        assert everything(session) == corrected
        assert session.store.of(2).outdated == {1, 2, 3, *range(5, NUM_FRAMES)}
        await session.undo()
        assert everything(session) == before
        assert (sorted(masks_of(session, 1)), len(masks_of(session, 2))) == ([0], NUM_FRAMES)
        await session.redo()
        assert everything(session) == corrected
        await session.redo()
        assert everything(session) == after
        assert all(np.array_equal(label_maps(session)[frame], merged[frame]) for frame in merged)
        with pytest.raises(ValueError, match="nothing to redo"):
            await session.redo()
        # The model remembers what it did then: the same again gives the same again.
        await session.undo()
        await tracked(session, "both")
        assert everything(session) == after

    in_session(clip, scenario)


def test_a_cleared_prompt_brings_its_masks_back(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        await tracked(session)
        await session.prompt(1, 5, OFF)
        before = everything(session)
        for place in ((1, 0), (1, 5)):
            await session.edit(lambda document, place=place: document.cleared(place))
            consistent(session)
        assert masks_of(session, 1) == {}
        gone = everything(session)
        await session.undo()
        await session.undo()
        assert everything(session) == before
        await session.redo()
        await session.redo()
        assert everything(session) == gone
        await session.undo()
        await session.undo()
        session.update()
        await finished(session)
        consistent(session)
        assert len(masks_of(session, 1)) == NUM_FRAMES

    in_session(clip, scenario)


def test_corrections_in_a_row_come_back_to_the_bit(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        await tracked(session)
        stages = []
        for step in (OFF, Click(30, 30, True), Box(20, 20, 60, 60), Click(40, 50, False)):
            stages.append(everything(session))
            await session.prompt(1, 6, step)
        last = everything(session)
        for stage in reversed(stages):
            await session.undo()
            assert everything(session) == stage
        # Said again, it is answered as it was, with the memories that were drawn the first time.
        for step, stage in zip((OFF, Click(30, 30, True)), stages[1:], strict=False):
            await session.prompt(1, 6, step)
            assert everything(session) == stage
        await session.prompt(1, 6, Box(20, 20, 60, 60))
        await session.prompt(1, 6, Click(40, 50, False))
        assert everything(session) == last

    in_session(clip, scenario)


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.002)


def test_an_object_deleted_while_tracking_comes_back(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        await session.prompt(None, 0, SECOND)
        before = everything(session)
        session.track([TrackRange(0, NUM_FRAMES, False)])
        await until(lambda: len(session.store.of(1).tracked) >= 2)
        await session.edit(lambda document: document.without_object(1))
        await until(lambda: len(session.store.of(2).tracked) >= 5)
        assert session.store.frames_of([1]) == []
        await session.undo()
        back = session.store.of(1).frames
        assert {0, 1, 2} <= back
        await finished(session)
        consistent(session)
        assert len(masks_of(session, 2)) == NUM_FRAMES
        assert back <= session.store.of(1).frames
        after = everything(session)
        await session.undo()
        assert everything(session) == before
        await session.redo()
        assert everything(session) == after
        await session.redo()
        assert session.document.numbers == (2,)
        await session.undo()
        assert everything(session) == after

    in_session(clip, scenario)


def test_undo_stops_the_tracking_that_it_takes_back(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        before = everything(session)
        session.track([TrackRange(0, NUM_FRAMES, False)])
        await until(lambda: len(session.store.of(1).tracked) >= 3)
        await session.undo()
        assert not session.work.busy
        assert everything(session) == before
        await session.redo()
        assert 4 <= len(masks_of(session, 1)) <= NUM_FRAMES
        # Nothing is left of the run that was stopped.
        await tracked(session)
        consistent(session)
        assert len(masks_of(session, 1)) == NUM_FRAMES

    in_session(clip, scenario)


def test_tracking_that_is_stopped_leaves_model_and_masks_alike(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        for frames in (0, 1, 3):
            session.track([TrackRange(0, NUM_FRAMES, False)])
            await until(lambda n=frames: session.work.progress is not None and session.work.progress.done >= n)
            await asyncio.sleep(0.003)
            # Twice, as by an impatient user.
            await asyncio.gather(session.work.cancel(), session.work.cancel())
            consistent(session)

    in_session(clip, scenario)


def test_tracking_that_did_nothing_is_no_step(clip: Path) -> None:
    (clip / "009.png").write_bytes(b"no picture")

    async def scenario(session: Session) -> None:
        await session.prompt(None, 2, FIRST)
        await session.prompt(1, 2, OFF)
        await session.undo()
        history = session.history
        session.track([TrackRange(9, 1, False)])
        await finished(session)
        assert session.history is history
        await session.redo()
        assert len(session.document.prompts[1, 2]) == 2

    in_session(clip, scenario)


def test_an_import_is_one_step_that_brings_back_what_it_replaced(clip: Path) -> None:
    mask = StoredMask(encode_mask(np.ones(SIZE, bool)))

    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        await tracked(session)
        before = everything(session)
        await session.bring_in({1: {4: mask, 5: mask}, 2: {4: mask}})
        assert session.store.shown(1, 4) == mask
        after = everything(session)
        await session.undo()
        assert everything(session) == before
        await session.redo()
        assert everything(session) == after
        await session.edit(lambda document: document.without_object(2))
        assert session.store.frames_of([2]) == []
        await session.undo()
        assert everything(session) == after

    in_session(clip, scenario)


def test_pixels_lost_to_a_deleted_object_return(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 2, FIRST)
        await session.prompt(None, 2, SECOND)
        await tracked(session)
        merged = label_maps(session)
        overlap = [f for f in range(NUM_FRAMES) if (masks_of(session, 1)[f] & masks_of(session, 2)[f]).any()]
        assert overlap
        await session.edit(lambda document: document.without_object(2))
        for frame, mask in masks_of(session, 1).items():
            np.testing.assert_array_equal(label_maps(session)[frame] == 1, mask)
        await session.undo()
        assert all(np.array_equal(label_maps(session)[frame], merged[frame]) for frame in merged)
        await session.edit(lambda document: document.without_object(1))
        for frame, mask in masks_of(session, 2).items():
            np.testing.assert_array_equal(label_maps(session)[frame] == 2, mask)

    in_session(clip, scenario)


def test_a_refused_edit_leaves_the_model_as_it_was(clip: Path) -> None:
    (clip / "005.png").write_bytes(b"no picture")

    async def scenario(session: Session) -> None:
        await session.prompt(None, 2, FIRST)
        before = everything(session)

        def both(document: Document) -> Document:
            # The first part could be answered, the second cannot.
            return document.with_steps((1, 2), OFF).with_steps((1, 5), OFF)

        with pytest.raises(ValueError, match=r"005\.png"):
            await session.edit(both)
        assert everything(session) == before
        # And the next answer does not build on what was refused.
        await session.prompt(1, 2, OFF)
        answered = masks_of(session, 1)
        await session.undo()
        await session.prompt(1, 2, OFF)
        assert_same(masks_of(session, 1), answered)

    in_session(clip, scenario)


def test_an_edit_is_made_whole_though_its_caller_is_gone(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        caller = asyncio.create_task(session.prompt(1, 3, SECOND))
        await asyncio.sleep(0.001)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await session.edit(lambda document: document.renamed(1, "disc"))
        assert session.document.prompted_frames(1) == [0, 3]
        consistent(session)

    in_session(clip, scenario)


def test_a_new_object_has_its_number_while_the_model_is_busy(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        hold = threading.Event()
        busy = asyncio.create_task(session._turns.run(Urgency.TRACK, hold.wait, 30))
        try:
            await asyncio.sleep(0.01)
            new = await asyncio.wait_for(session.edit(lambda document: document.with_object()), 5)
            assert new.numbers == (1, 2)
            await asyncio.wait_for(session.edit(lambda document: document.renamed(2, "cup")), 5)
            await asyncio.wait_for(session.undo(), 5)
            await asyncio.wait_for(session.undo(), 5)
            assert session.document.numbers == (1,)
        finally:
            hold.set()
            await busy

    in_session(clip, scenario)
