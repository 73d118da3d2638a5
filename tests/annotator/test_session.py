"""A session against the predictor itself: whatever way leads to a document, the masks are those of its prompts."""

from __future__ import annotations

import asyncio
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
    WIDTH,
    add,
    assert_same,
    expect,
    finished,
    in_session,
    masks_of,
    tracked,
)

from i2v.annotator.document import Box, Click, Paint
from i2v.annotator.engine import Engine
from i2v.annotator.masks import StoredMask
from i2v.annotator.plan import TrackRange
from i2v.annotator.session import Session
from i2v.results.rle import encode_mask


def test_clicks_boxes_and_tracking_equal_the_predictor(clip: Path) -> None:
    async def scenario(session: Session) -> Any:
        assert await session.prompt(None, 3, FIRST) == 1
        assert await session.prompt(1, 3, OFF) == 1
        assert await session.prompt(None, 3, Box(70, 40, 120, 90)) == 2
        await tracked(session, shown=5)
        return masks_of(session, 1), masks_of(session, 2)

    def script(predictor: Any, state: Any) -> None:
        add(predictor, state, 3, 1, FIRST, OFF)
        predictor.add_new_points_or_box(state, 3, 2, box=[70, 40, 120, 90])

    wanted = expect(clip, script, (3, False), (3, True))
    for got, number in zip(in_session(clip, scenario), (1, 2), strict=True):
        assert_same(got, wanted[number])


def test_a_correction_tracks_only_what_it_changes(clip: Path) -> None:
    async def scenario(session: Session) -> Any:
        await session.prompt(None, 0, FIRST)
        await session.prompt(None, 0, SECOND)
        await tracked(session)
        before = masks_of(session, 2)
        await session.prompt(1, 4, OFF)
        assert session.store.of(1).outdated == {1, 2, 3, *range(5, NUM_FRAMES)}
        totals = []
        session.update()
        assert session.work.progress is not None
        totals.append(session.work.progress.total)
        await finished(session)
        with pytest.raises(ValueError, match="nothing to update"):
            session.update()
        return before, masks_of(session, 2), masks_of(session, 1), totals

    def script(predictor: Any, state: Any) -> None:
        add(predictor, state, 0, 1, FIRST)
        list(predictor.propagate_in_video(state, 0))
        add(predictor, state, 4, 1, OFF)
        list(predictor.propagate_in_video(state, 4))
        wanted[0] = {f: m[0, 0].numpy() > 0 for f, _, m in predictor.propagate_in_video(state, 4, 3, reverse=True)}

    wanted: dict[int, dict[int, np.ndarray]] = {}
    expect(clip, script)
    before, after, corrected, totals = in_session(clip, scenario)
    assert_same(after, before)
    # From frame 4 to the end, and back to the prompt on frame 0.
    assert totals == [NUM_FRAMES - 4 + 4]
    for frame, mask in wanted[0].items():
        np.testing.assert_array_equal(corrected[frame], mask)


def test_undo_and_redo_lead_to_the_masks_of_the_prompts_that_are_left(clip: Path) -> None:
    async def scenario(session: Session) -> Any:
        await session.prompt(None, 0, FIRST)
        once = masks_of(session, 1)
        await session.prompt(1, 0, OFF)
        twice = masks_of(session, 1)
        await session.prompt(1, 0, Box(20, 20, 60, 60))
        await session.undo()
        assert_same(masks_of(session, 1), twice)
        await session.undo()
        assert_same(masks_of(session, 1), once)
        await session.redo()
        assert_same(masks_of(session, 1), twice)
        await session.undo()
        await session.undo()
        assert session.document.objects == ()
        await session.redo()
        assert_same(masks_of(session, 1), once)
        await tracked(session)
        return masks_of(session, 1)

    wanted = expect(clip, lambda predictor, state: add(predictor, state, 0, 1, FIRST), (0, False))
    assert_same(in_session(clip, scenario), wanted[1])


def test_taking_a_correction_back_shows_what_was_tracked(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        await tracked(session)
        before = masks_of(session, 1)
        await session.prompt(1, 5, OFF)
        assert not np.array_equal(masks_of(session, 1)[5], before[5])
        await session.undo()
        assert_same(masks_of(session, 1), before)
        # The last prompt gone, nothing tracked from it stands.
        await session.edit(lambda document: document.cleared((1, 0)))
        assert masks_of(session, 1) == {}

    in_session(clip, scenario)


def test_a_deleted_object_comes_back_as_it_went(clip: Path) -> None:
    async def scenario(session: Session) -> Any:
        await session.prompt(None, 0, FIRST)
        await session.prompt(None, 0, SECOND)
        await tracked(session)
        before = masks_of(session, 1)
        await session.edit(lambda document: document.without_object(1))
        assert masks_of(session, 1) == {}
        await session.undo()
        assert_same(masks_of(session, 1), before)
        await session.redo()
        await session.undo()
        await tracked(session)
        return before, masks_of(session, 1)

    before, after = in_session(clip, scenario)
    assert_same(after, before)


def test_a_number_that_is_free_again_starts_afresh(clip: Path) -> None:
    async def scenario(session: Session) -> Any:
        await session.prompt(None, 0, FIRST)
        await tracked(session)
        await session.undo()
        await session.undo()
        assert await session.prompt(None, 2, SECOND) == 1
        assert sorted(masks_of(session, 1)) == [2]
        await tracked(session, "forward", 2)
        return masks_of(session, 1)

    wanted = expect(clip, lambda predictor, state: add(predictor, state, 2, 1, SECOND), (2, False))
    assert_same(in_session(clip, scenario), wanted[1])


def test_a_painted_mask_is_kept_as_painted_and_tracked_as_a_mask_prompt(clip: Path) -> None:
    painted = np.zeros(SIZE, bool)
    painted[20:50, 20:50] = True
    painted[3, 3] = True  # too fine for the model

    async def scenario(session: Session) -> Any:
        await session.prompt(None, 0, FIRST)
        await session.prompt(1, 0, Paint(encode_mask(painted)))
        await tracked(session)
        return masks_of(session, 1)

    got = in_session(clip, scenario)
    wanted = expect(clip, lambda predictor, state: predictor.add_new_mask(state, 0, 1, painted), (0, False))[1]
    np.testing.assert_array_equal(got.pop(0), painted)
    del wanted[0]
    assert_same(got, wanted)


def test_a_click_on_an_imported_mask_starts_from_it(clip: Path) -> None:
    given = np.zeros(SIZE, bool)
    given[10:60, 10:60] = True
    mask = StoredMask(encode_mask(given))

    async def scenario(session: Session) -> Any:
        await session.bring_in({3: {4: mask, 5: mask}})
        assert [info.name for info in session.document.objects] == ["object 3"]
        np.testing.assert_array_equal(masks_of(session, 3)[5], given)
        await session.prompt(3, 4, OFF)
        assert session.document.prompts[3, 4] == (Paint(mask.counts), OFF)
        corrected = masks_of(session, 3)[4]
        await session.undo()
        np.testing.assert_array_equal(masks_of(session, 3)[4], given)
        await session.undo()
        assert masks_of(session, 3) == {}
        return corrected

    def script(predictor: Any, state: Any) -> None:
        predictor.add_new_mask(state, 4, 3, given)
        add(predictor, state, 4, 3, OFF)

    wanted = expect(clip, script, (4, False))
    np.testing.assert_array_equal(in_session(clip, scenario), wanted[3][4])


def test_cancelling_keeps_what_is_done_and_clicks_go_first(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        session.track([TrackRange(0, NUM_FRAMES, False)])
        while not session.store.of(1).tracked:
            await asyncio.sleep(0.005)
        # A click is answered while the video is being tracked.
        await session.prompt(None, 0, SECOND)
        assert session.work.busy
        with pytest.raises(RuntimeError, match="another job is running"):
            session.track([TrackRange(0, NUM_FRAMES, False)])
        await session.work.cancel()
        assert not session.work.busy
        done = len(masks_of(session, 1))
        assert 1 < done < NUM_FRAMES
        await tracked(session)
        assert len(masks_of(session, 1)) == len(masks_of(session, 2)) == NUM_FRAMES

    in_session(clip, scenario)


def test_what_a_tracked_frame_says_of_a_deleted_object_is_dropped(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        await session.prompt(None, 0, SECOND)
        session.track([TrackRange(0, NUM_FRAMES, False)])
        while not session.store.of(1).tracked:
            await asyncio.sleep(0.005)
        await session.edit(lambda document: document.without_object(1))
        await finished(session)
        assert session.store.frames_of([1]) == []
        assert len(session.store.frames_of([2])) == NUM_FRAMES

    in_session(clip, scenario)


@pytest.mark.parametrize(
    ("frame", "step", "message"),
    [
        (NUM_FRAMES, FIRST, "frame 10 is not in the video, which has 10"),
        (0, Click(WIDTH + 1, 0, True), r"a click: point \(129, 0\) is off the frame, which is 128 x 96"),
        (0, Box(50, 50, 40, 60), "upper left corner first"),
        (0, Box(150, 50, 400, 60), "a box: box .* is off the frame"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(clip: Path, frame: int, step: Any, message: str) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        history = session.history
        with pytest.raises(ValueError, match=message):
            await session.prompt(1, frame, step)
        with pytest.raises(ValueError, match="no object 9"):
            await session.prompt(9, 0, FIRST)
        assert session.history == history

    in_session(clip, scenario)


def test_an_unreadable_frame_stops_tracking_with_a_word(clip: Path) -> None:
    (clip / "004.png").write_bytes(b"no picture")

    async def scenario(session: Session) -> list[dict]:
        await session.prompt(None, 0, FIRST)
        with session.events.listening() as queue:
            await tracked(session)
            return [queue.get_nowait() for _ in range(queue.qsize())]

    events = in_session(clip, scenario)
    messages = [event["message"] for event in events if event["event"] == "error"]
    assert len(messages) == 1
    assert "004.png" in messages[0]


def test_a_prompt_asks_for_objects_near_it_only_and_gets_the_same(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counting(engine: Engine, frame: int, numbers: Any) -> Any:
        found = logits(engine, frame, numbers)
        asked.append(len(found[0]))
        return found

    async def scenario(session: Session) -> Any:
        await session.prompt(None, 0, FIRST)
        await session.prompt(None, 0, SECOND)
        # One that is painted in a corner, away from what is painted in another.
        for number, (rows, columns) in ((3, (slice(0, 8), slice(0, 8))), (4, (slice(88, 96), slice(120, 128)))):
            mask = np.zeros(SIZE, bool)
            mask[rows, columns] = True
            await session.prompt(None, 0, Paint(encode_mask(mask)))
            assert session.document.numbers[-1] == number
        asked.clear()
        mask[80:84, 120:128] = True
        await session.prompt(4, 0, Paint(encode_mask(mask)))
        labels = {number: number for number in session.document.numbers}
        return session.store.overlaps, session.store.label_map(0, labels, SIZE), sum(asked)

    logits = Engine._logits
    monkeypatch.setattr(Engine, "_logits", counting)
    overlaps, merged, few = in_session(clip, scenario)
    monkeypatch.setattr(Engine, "_may_touch", lambda *_: True)
    all_overlaps, all_merged, many = in_session(clip, scenario)
    assert {pair: frames for pair, frames in overlaps.items() if frames} == {
        pair: frames for pair, frames in all_overlaps.items() if frames
    }
    np.testing.assert_array_equal(merged, all_merged)
    assert many == 4
    assert few < many
