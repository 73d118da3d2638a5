"""One object of two, and two of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotator_support import FIRST, NUM_FRAMES, SECOND, SIZE, assert_same, in_session, masks_of, tracked
from page_support import Visitor

from i2v.annotator.document import Paint
from i2v.annotator.masks import decode
from i2v.annotator.session import Session


async def two_tracked(session: Session) -> None:
    await session.prompt(None, 0, FIRST)
    await session.prompt(None, 2, SECOND)
    await tracked(session)


def test_a_merged_object_has_the_pixels_of_both(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await two_tracked(session)
        ones, twos, store = masks_of(session, 1), masks_of(session, 2), session.store
        await session.merge(2, 1)
        assert session.document.numbers == (1,)
        empty = np.zeros(SIZE, bool)
        wanted = {f: ones.get(f, empty) | twos.get(f, empty) for f in range(NUM_FRAMES)}
        assert_same(masks_of(session, 1), wanted)
        # Where there was a prompt, the union is one, and tracking can start from it.
        assert [type(step) for step in session.document.prompts[1, 0]] == [Paint]
        await session.undo()
        assert session.store.objects == store.objects
        assert session.document.numbers == (1, 2)
        await session.redo()
        assert_same(masks_of(session, 1), wanted)
        with pytest.raises(ValueError, match="merged into itself"):
            await session.merge(1, 1)
        with pytest.raises(ValueError, match="no object 2"):
            await session.merge(2, 1)

    in_session(clip, scenario)


def test_a_split_object_is_another_one_from_there_on(clip: Path) -> None:
    async def scenario(session: Session) -> Any:
        await two_tracked(session)
        await session.edit(lambda document: document.classified(1, "disc"))
        before, store = masks_of(session, 1), session.store
        assert await session.split(1, 6) == 3
        assert session.document.objects[-1].category == "disc"
        assert_same(masks_of(session, 3), {f: before[f] for f in range(6, NUM_FRAMES)})
        own = masks_of(session, 1)
        assert_same({f: own[f] for f in range(6)}, {f: before[f] for f in range(6)})
        assert not any(own[f].any() for f in range(6, NUM_FRAMES))
        await session.undo()
        assert session.store.objects == store.objects
        with pytest.raises(ValueError, match="nothing to split"):
            await session.split(1, 0)
        await session.edit(lambda document: document.with_lock(1, True))
        with pytest.raises(ValueError, match="locked"):
            await session.split(1, 6)

    in_session(clip, scenario)


def test_merging_and_splitting_on_the_page(visitor: Visitor, server: Any) -> None:
    visitor.click(FIRST.x, FIRST.y)
    visitor.press("n")
    visitor.click(SECOND.x, SECOND.y)
    visitor.sees(0, 1, 2)
    visitor.does("f")
    visitor.goes_to(5)
    visitor.page.click("#split")
    visitor.page.wait_for_selector("#objects li.selected[data-object='3']")
    visitor.sees(5, 1, 2, 3)
    visitor.page.click("#merge")
    visitor.page.select_option("#merge-into", "1")
    visitor.page.click("#merge-now")
    visitor.page.wait_for_selector("#objects li:nth-child(2):last-child")
    visitor.sees(5, 1, 2)
    shown = server.book.get(1).store.shown(1, 5)
    assert decode(shown.counts, SIZE).any()


def test_masks_of_a_range_are_cleared_in_one_step(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await two_tracked(session)
        await session.prompt(1, 4, FIRST)
        await tracked(session)
        ones, twos, store, document = masks_of(session, 1), masks_of(session, 2), session.store, session.document
        await session.clear_masks(1, 3, 5)
        assert_same(masks_of(session, 1), {f: mask for f, mask in ones.items() if f not in (3, 4, 5)})
        assert_same(masks_of(session, 2), twos)
        assert list(session.document.prompts) == [(1, 0), (2, 2)]
        assert not any(session.store.lost(1, f) or session.store.lost(2, f) for f in (3, 4, 5))
        with pytest.raises(ValueError, match="object 1 has no mask on frames 3 to 5: there is nothing to clear"):
            await session.clear_masks(1, 3, 5)
        await session.undo()
        assert session.store == store
        assert session.document == document
        await session.redo()
        assert sorted(masks_of(session, 1)) == [0, 1, 2, 6, 7, 8, 9]
        # Tracking brings masks again, the same as without those that are gone.
        await tracked(session, "forward")
        assert sorted(masks_of(session, 1)) == list(range(NUM_FRAMES))

    in_session(clip, scenario)


def test_a_click_on_a_cleared_frame_does_not_correct_what_was_there(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        await tracked(session)
        await session.clear_masks(1, 5, 5)
        await session.prompt(1, 5, SECOND)
        fresh = masks_of(session, 1)[5]
        await session.undo()
        # As on a frame that was never tracked.
        await session.undo()
        await session.undo()
        assert masks_of(session, 1).keys() == {0}
        await session.prompt(1, 5, SECOND)
        np.testing.assert_array_equal(masks_of(session, 1)[5], fresh)

    in_session(clip, scenario)


@pytest.mark.parametrize("action", ["clear_masks", "mark_absent"])
def test_masks_elsewhere_stay_when_the_only_prompt_goes(clip: Path, action: str) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 2, FIRST)
        await tracked(session)
        before = masks_of(session, 1)
        await getattr(session, action)(1, 1, 3)
        after = masks_of(session, 1)
        rest = [f for f in range(NUM_FRAMES) if not 1 <= f <= 3]
        assert_same({f: after[f] for f in rest}, {f: before[f] for f in rest})
        assert not any(after[f].any() for f in after if 1 <= f <= 3)
        await session.undo()
        assert_same(masks_of(session, 1), before)

    in_session(clip, scenario)


def test_accepted_and_locked_masks_are_not_cleared(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await two_tracked(session)
        await session.edit(lambda document: document.with_reviewed([4], True))
        with pytest.raises(ValueError, match="frame 4 was accepted"):
            await session.clear_masks(1, 3, 5)
        await session.edit(lambda document: document.with_lock(1, True))
        with pytest.raises(ValueError, match="is locked"):
            await session.clear_masks(1, 0, 1)
        with pytest.raises(ValueError, match="frame 10 is not in the video"):
            await session.clear_masks(2, 3, NUM_FRAMES)

    in_session(clip, scenario)


def test_the_page_clears_the_range(visitor: Visitor) -> None:
    visitor.click(FIRST.x, FIRST.y)
    visitor.sees(0, 1)
    visitor.does("f")
    visitor.goes_to(3)
    visitor.press("a")
    visitor.goes_to(5)
    visitor.press("v", "Shift+Backspace")
    visitor.sees(5)
    visitor.goes_to(6)
    visitor.sees(6, 1)
    visitor.press("z")
    visitor.goes_to(4)
    visitor.sees(4, 1)
    visitor.page.click("#clear-masks")
    visitor.sees(4)
