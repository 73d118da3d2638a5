"""Many objects, low confidence, and the page for who does not see it or has a small screen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from annotator_support import FIRST, NUM_FRAMES, SECOND, Running, until
from page_support import Visitor, visiting

from i2v.annotator.document import Document
from i2v.annotator.history import History
from i2v.annotator.masks import MaskStore, StoredMask
from i2v.annotator.session import Session


def test_thirty_objects_have_room(browser: Any, server: Running) -> None:
    with visiting(browser, server.address) as guest:
        document = Document()
        for number in range(1, 31):
            document = document.with_object(f"a rather long name of the object {number}")
        server.book.get(1).history = History(document)
        guest.reload()
        guest.has_objects(30)
        assert guest.page.locator("#add-object").is_visible()
        box = guest.page.locator("#add-object").bounding_box()
        assert box["y"] + box["height"] < guest.page.locator("#stage").bounding_box()["y"] + 200
        # Each row of the timeline has a height, and the rest is reached by scrolling.
        sizes = guest.page.evaluate(
            """() => { const box = document.getElementById("timeline-box");
                return [box.scrollHeight, box.clientHeight, document.getElementById("timeline").clientHeight]; }"""
        )
        assert sizes[2] >= 30 * 12
        assert sizes[0] > sizes[1]
        # All are reached by keys: the next object, round the end.
        guest.press("1", *["w"] * 12)
        guest.page.wait_for_selector("#objects li.selected[data-object='13']")
        guest.press(*["q"] * 13)
        guest.page.wait_for_selector("#objects li.selected[data-object='30']")
        guest.press("w")
        guest.page.wait_for_selector("#objects li.selected[data-object='1']")


def test_low_confidence_is_named_both_ways_and_not_that_of_hidden_objects(
    visitor: Visitor, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor.click(FIRST.x, FIRST.y)
    visitor.press("n")
    visitor.click(SECOND.x, SECOND.y)
    visitor.sees(0, 1, 2)
    own = server.book.get(1).store.of(1)
    low = StoredMask(own.prompted[0].counts, object_score=-2.0, iou=0.9)
    sure = StoredMask(low.counts, object_score=9.0, iou=0.9)
    base = replace(own, prompted={0: sure})
    tracked = dict.fromkeys(range(1, NUM_FRAMES), sure)
    stores = {
        1: replace(base, tracked={**tracked, 3: low, 4: low}),
        2: replace(base, tracked={**tracked, 7: low}),
    }
    monkeypatch.setattr(Session, "store", MaskStore(stores))
    visitor.reload()
    visitor.press("l")
    visitor.is_told("low confidence in object 1 from frame 3 on")
    visitor.press("l")
    visitor.is_told("low confidence in object 2 from frame 7 on")
    visitor.press("l")
    visitor.is_told("low confidence in object 1 from frame 3 on, round the end of the video")
    visitor.press("Shift+L")
    visitor.is_told("low confidence in object 2 from frame 7 on, round the beginning of the video")
    visitor.page.click("#timeline-details summary")
    text = visitor.page.locator("#timeline-text").inner_text()
    assert "object 1: prompts on 0; masks on 0 to 9; low confidence on 3 to 4" in text
    visitor.press("2", "h")
    until(lambda: server.book.get(1).document.hidden == {2})
    visitor.press("l")
    visitor.is_told("low confidence in object 1 from frame 3 on, round the end of the video")


def test_arrows_choose_a_tool_and_its_ring_is_seen(visitor: Visitor) -> None:
    page = visitor.page
    page.focus('[data-tool="click"]')
    visitor.press("ArrowDown", "ArrowDown")
    page.wait_for_selector('[data-tool="paint"][aria-checked=true]:focus')
    visitor.press("ArrowUp", "ArrowUp", "ArrowUp")
    page.wait_for_selector('[data-tool="polygon"][aria-checked=true]:focus')  # the last one
    assert page.get_attribute("#stage", "data-frame") == "0"  # the arrows were for the tools
    page.focus("#stage")
    visitor.press("Shift")
    width = page.evaluate("getComputedStyle(document.getElementById('stage'), '::after').borderTopWidth")
    assert width == "3px"


@pytest.mark.parametrize(("width", "height"), [(800, 600), (1280, 720), (480, 400)])
def test_everything_can_be_reached_on_small_screens(browser: Any, server: Running, width: int, height: int) -> None:
    with visiting(browser, server.address, width, height) as guest:
        guest.click(FIRST.x, FIRST.y)
        guest.sees(0, 1)
        hidden = guest.page.evaluate(
            """() => [...document.querySelectorAll("button, input, summary, #stage")].filter((e) => {
                if (!e.checkVisibility() || e.closest("dialog")) return false;
                e.scrollIntoView({ block: "nearest", inline: "nearest" });
                const r = e.getBoundingClientRect();
                return r.left < -1 || r.top < -1 || r.left + Math.min(r.width, 30) > innerWidth + 1
                    || r.top + Math.min(r.height, 24) > innerHeight + 1;
            }).map((e) => e.outerHTML.slice(0, 80))"""
        )
        assert hidden == []
        small = guest.page.evaluate(
            """() => [...document.querySelectorAll("button, input, summary")].filter((e) => {
                const r = e.getBoundingClientRect();
                return e.checkVisibility() && !e.closest("dialog") && (r.height < 24 || r.width < 24);
            }).map((e) => `${e.outerHTML.slice(0, 60)} ${e.getBoundingClientRect().height}`)"""
        )
        assert small == []


def test_panning_ends_where_the_button_is_released(visitor: Visitor) -> None:
    page = visitor.page
    visitor.press("+", "+", "+")
    page.mouse.move(*visitor.at(64, 48))
    page.mouse.down(button="middle")
    page.mouse.move(*visitor.at(70, 48))
    page.mouse.move(5, 5)
    page.mouse.up(button="middle")
    before = page.locator("#picture").bounding_box()
    stage = page.locator("#stage").bounding_box()
    page.mouse.move(stage["x"] + 50, stage["y"] + 50)
    page.mouse.move(stage["x"] + 150, stage["y"] + 90)
    assert page.locator("#picture").bounding_box() == before
