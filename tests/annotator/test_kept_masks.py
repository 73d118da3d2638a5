"""Masks that must stay: strokes that come one upon another, locked objects and accepted frames."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotator_support import FIRST, NUM_FRAMES, OFF, SIZE, Running, finished, in_session, masks_of, tracked, until
from page_support import Visitor

from i2v.annotator.commands import read_command
from i2v.annotator.document import Paint, Stroke
from i2v.annotator.engine import Engine
from i2v.annotator.masks import StoredMask, decode
from i2v.annotator.plan import plan_tracking, within
from i2v.annotator.protocol import perform
from i2v.annotator.session import Session
from i2v.results.rle import encode_mask


def block(top: int, left: int, size: int = 30) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + size, left : left + size] = True
    return mask


async def does(session: Session, command: str) -> None:
    await perform(read_command(command.encode()), session, None)  # type: ignore[arg-type]


def test_strokes_in_a_row_add_up(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, Stroke(block(0, 0), erases=False))
        await asyncio.gather(
            session.prompt(1, 0, Stroke(block(0, 60), erases=False)),
            session.prompt(1, 0, Stroke(block(10, 10), erases=True)),
        )
        wanted = (block(0, 0) | block(0, 60)) & ~block(10, 10)
        np.testing.assert_array_equal(masks_of(session, 1)[0], wanted)

    in_session(clip, scenario)


def test_strokes_before_the_answer_of_the_first_are_not_lost(
    visitor: Visitor, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = Engine.edit

    def slow(*args: Any) -> Any:
        time.sleep(0.2)
        return edit(*args)

    monkeypatch.setattr(Engine, "edit", slow)
    visitor.press("p")
    visitor.drag((20, 20), (60, 20))
    visitor.drag((20, 70), (60, 70))
    visitor.press("e")
    visitor.drag((40, 20), (44, 20))
    until(lambda: len(server.book.get(1).history.past) == 3)
    mask = masks_of(server.book.get(1), 1)[0]
    assert (mask[20, 22], mask[70, 40], mask[20, 42]) == (True, True, False)


def test_a_click_on_an_accepted_frame_corrects_the_mask_that_is_shown(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        await tracked(session, "forward")
        await session.edit(lambda document: document.with_reviewed([5], True))
        kept = masks_of(session, 1)[5]
        await session.prompt(1, 0, Paint(encode_mask(block(60, 5))))
        await tracked(session, "forward")
        np.testing.assert_array_equal(masks_of(session, 1)[5], kept)
        await session.prompt(1, 5, OFF)
        assert session.document.prompts[1, 5] == (Paint(encode_mask(kept)), OFF)

    in_session(clip, scenario)


def test_an_object_that_is_locked_while_it_is_tracked_stays(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        await tracked(session, "forward")
        before = masks_of(session, 1)
        await session.prompt(1, 0, Paint(encode_mask(block(60, 5))))
        session.track(plan_tracking(0, "forward", "end", {1: [0]}, NUM_FRAMES))
        await session.edit(lambda document: document.with_lock(1, True))
        at_once = session.store
        await finished(session)
        assert at_once.changed_frames(session.store) == []
        np.testing.assert_array_equal(masks_of(session, 1)[NUM_FRAMES - 1], before[NUM_FRAMES - 1])

    in_session(clip, scenario)


def test_taking_the_last_prompt_back_leaves_accepted_masks(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        await tracked(session, "forward")
        await session.edit(lambda document: document.with_reviewed([0, 5], True))
        kept = masks_of(session, 1)[5]
        await does(session, '{"do": "clear", "object": 1, "frame": 0}')
        assert session.document.reviewed == {5}
        assert list(masks_of(session, 1)) == [5]
        np.testing.assert_array_equal(masks_of(session, 1)[5], kept)
        await session.undo()
        assert session.document.reviewed == {0, 5}
        assert list(masks_of(session, 1)) == list(range(NUM_FRAMES))

    in_session(clip, scenario)


def test_accepted_masks_are_not_merged(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        await session.prompt(None, 3, FIRST)
        await session.edit(lambda document: document.with_reviewed([0], True))
        with pytest.raises(ValueError, match="frame 0 was accepted as reviewed"):
            await session.merge(1, 2)
        await session.merge(2, 1)
        assert decode(session.store.shown(1, 3).counts, SIZE).any()  # type: ignore[union-attr]

    in_session(clip, scenario)


def test_an_import_keeps_off_what_is_accepted_just_before_its_turn(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        accepts = session.edit(lambda document: document.with_reviewed([3], True))
        brings = session.bring_in({1: {3: StoredMask(encode_mask(block(0, 0)))}})
        _, refused = await asyncio.gather(accepts, brings, return_exceptions=True)
        assert "frame 3 was accepted as reviewed" in str(refused)
        assert list(masks_of(session, 1)) == [0]

    in_session(clip, scenario)


def test_tracking_of_a_range_starts_from_a_prompt_in_it(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        await session.prompt(1, 6, FIRST)
        command = '"do": "track", "frame": 4, "direction": "forward", "until": "end", "first": 3, "last": 8'
        await does(session, f"{{{command}}}")
        await finished(session)
        assert list(masks_of(session, 1)) == [0, 6, 7, 8]

    in_session(clip, scenario)
    assert within({1: [0, 6], 2: [9]}, 3, 8) == {1: [6], 2: []}
    assert within({1: [0]}, 3, None) == {1: [0]}
