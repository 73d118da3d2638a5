"""Ranges of frames, classes and locks: the parts of a labeller's work between prompts and files."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from annotator_support import FIRST, NUM_FRAMES, SECOND, SIZE, Running, until
from page_support import Visitor
from pycocotools.coco import COCO

from i2v.annotator.document import Document
from i2v.annotator.masks import StoredMask, decode
from i2v.annotator.plan import TrackRange, clipped
from i2v.results.export import write_label_png


def two_objects(visitor: Visitor) -> None:
    visitor.click(FIRST.x, FIRST.y)
    visitor.press("n")
    visitor.click(SECOND.x, SECOND.y)
    visitor.sees(0, 1, 2)


def shown(server: Running, number: int, frame: int) -> StoredMask:
    stored = server.book.get(1).store.shown(number, frame)
    assert stored is not None
    return stored


def test_a_range_is_tracked_reviewed_and_left_alone_afterwards(visitor: Visitor, server: Running) -> None:
    two_objects(visitor)
    session = server.book.get(1)
    visitor.press("a")
    visitor.goes_to(4)
    visitor.press("v")
    assert visitor.page.locator("#range").inner_text() == "frames 0 to 4"
    visitor.does("f")
    assert session.store.frames_of([1, 2]) == [0, 1, 2, 3, 4]
    # Accepted frames keep their masks when all is tracked again after a correction.
    visitor.goes_to(2)
    visitor.page.click("#range-clear")
    visitor.press("m")
    visitor.page.wait_for_selector("#reviewed:has-text('reviewed')")
    accepted = {number: shown(server, number, 2) for number in (1, 2)}
    visitor.goes_to(0)
    visitor.press("1")
    visitor.click(FIRST.x + 8, FIRST.y + 4)
    until(lambda: len(session.document.prompts[1, 0]) == 2)
    before = shown(server, 1, 3)
    visitor.does("f")
    assert {number: shown(server, number, 2) for number in (1, 2)} == accepted
    assert shown(server, 1, 3) != before
    assert session.store.frames_of([1]) == list(range(NUM_FRAMES))
    # A prompt there is a change that has to be looked at.
    visitor.goes_to(2)
    visitor.click(FIRST.x, FIRST.y)
    visitor.page.wait_for_selector("#reviewed:empty", state="attached")
    assert session.document.reviewed == frozenset()


def test_an_object_is_out_of_view_and_a_mask_is_copied_on(visitor: Visitor, server: Running) -> None:
    two_objects(visitor)
    visitor.does("f")
    visitor.goes_to(6)
    visitor.press("a", "End", "v", "Shift+Delete")
    until(lambda: not decode(shown(server, 2, 9).counts, SIZE).any())
    assert not any(decode(shown(server, 2, frame).counts, SIZE).any() for frame in range(6, NUM_FRAMES))
    assert all(decode(shown(server, 2, frame).counts, SIZE).any() for frame in range(6))
    visitor.press("z")
    until(lambda: decode(shown(server, 2, 6).counts, SIZE).any())
    visitor.goes_to(0)
    visitor.press("Shift+K")
    visitor.page.wait_for_selector('#stage[data-frame="1"]')
    until(lambda: (2, 1) in server.book.get(1).document.prompts)
    assert shown(server, 2, 1).counts == shown(server, 2, 0).counts


def test_classes_are_categories_and_locked_objects_stay(visitor: Visitor, server: Running) -> None:
    two_objects(visitor)
    for key, name in (("1", "cup"), ("2", "cup")):
        visitor.press(key, "r")
        visitor.page.fill("#rename-class", name)
        visitor.press("Enter")
        visitor.page.wait_for_selector(f"#objects li:nth-child({key}) small:has-text('{name}')")
    visitor.press("i")
    colours = visitor.page.evaluate("[...document.querySelectorAll('.swatch')].map((e) => e.style.background)")
    assert colours[0] == colours[1]
    visitor.press("1", "j")
    until(lambda: server.book.get(1).document.objects[0].locked)
    visitor.click(FIRST.x, FIRST.y)
    visitor.is_told("object 1 is locked")
    visitor.press("Delete")
    visitor.is_told("object 1 is locked")
    visitor.does("f")
    store = server.book.get(1).store
    assert store.frames_of([1]) == [0]
    assert store.frames_of([2]) == list(range(NUM_FRAMES))
    visitor.press("x")
    visitor.page.click("#export-now")
    visitor.is_told("exported to")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(server.out / "export" / "coco.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["cup"]
    assert {annotation["track_id"] for annotation in coco.loadAnns(coco.getAnnIds())} == {1, 2}


def test_ranges_of_tracking_are_clipped() -> None:
    forward, backward = TrackRange(5, 10, False), TrackRange(5, 6, True)
    assert clipped([forward, backward], 2, 8) == [TrackRange(5, 4, False), TrackRange(5, 4, True)]
    assert clipped([TrackRange(5, None, False)], 0, None) == [TrackRange(5, None, False)]
    assert clipped([TrackRange(5, None, False)], 0, 7) == [TrackRange(5, 3, False)]
    assert clipped([forward, backward], 5, 8) == [TrackRange(5, 4, False)]
    with pytest.raises(ValueError, match="outside the chosen range"):
        clipped([forward], 6, 8)
    with pytest.raises(ValueError, match="no frame to track"):
        clipped([forward], 5, 5)


def test_reviewed_frames_and_locks_guard_the_document() -> None:
    document = Document().with_object().with_reviewed(range(3, 6), True)
    assert document.reviewed == {3, 4, 5}
    assert document.with_reviewed([4], False).reviewed == {3, 5}
    with pytest.raises(ValueError, match="frame 3 was accepted"):
        document.cleared_in(1, range(2, 5))
    locked = document.with_lock(1, True)
    with pytest.raises(ValueError, match="object 1 is locked"):
        locked.cleared_in(1, range(2))
    with pytest.raises(ValueError, match="object 1 is locked"):
        locked.without_object(1)
    assert locked.with_lock(1, False).without_object(1).numbers == ()


def test_results_of_an_import_keep_off_reviewed_frames(visitor: Visitor, server: Running, tmp_path: Path) -> None:
    visitor.press("m")
    until(lambda: server.book.get(1).document.reviewed == {0})
    labels = np.zeros(SIZE, np.uint8)
    labels[:9, :9] = 3
    write_label_png(tmp_path / "00000.png", labels)
    visitor.page.set_input_files("#import-files", tmp_path / "00000.png")
    visitor.is_told("frame 0 was accepted as reviewed")
    assert server.book.get(1).document.numbers == ()
