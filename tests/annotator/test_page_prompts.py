"""Prompts go where the user sees them go: to the object that was just made, and to the frame that is on the screen."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from annotator_support import FIRST, OFF, SECOND, Running, until
from page_support import Visitor, visiting

from i2v.annotator.document import Document
from i2v.annotator.engine import Engine


@pytest.fixture
def slow_model(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is not set, the model answers no edit."""
    is_free = threading.Event()
    is_free.set()
    edit = Engine.edit

    def wait(engine: Engine, *args: Any) -> Any:
        assert is_free.wait(60)
        return edit(engine, *args)

    monkeypatch.setattr(Engine, "edit", wait)
    return is_free


def prompts_of(server: Running, session: int = 1) -> Document:
    return server.book.get(session).document


def test_clicks_right_after_new_object_are_for_the_new_one(
    visitor: Visitor, server: Running, slow_model: threading.Event
) -> None:
    slow_model.clear()
    visitor.click(FIRST.x, FIRST.y)  # is not answered yet
    visitor.press("n")
    visitor.click(SECOND.x, SECOND.y)
    visitor.press("n")
    visitor.click(OFF.x, OFF.y)
    # The page shows already what these are for.
    assert visitor.page.locator("#objects li").count() == 3
    slow_model.set()
    visitor.sees(0, 1, 2, 3)
    prompts = prompts_of(server).prompts
    assert {place: len(steps) for place, steps in prompts.items()} == {(1, 0): 1, (2, 0): 1, (3, 0): 1}
    for number, click in ((1, FIRST), (2, SECOND), (3, OFF)):
        (step,) = prompts[number, 0]
        assert (step.x, step.y) == pytest.approx((click.x, click.y), abs=0.2)


def test_a_double_click_on_a_fresh_page_makes_one_object(visitor: Visitor, server: Running) -> None:
    visitor.page.mouse.dblclick(*visitor.at(FIRST.x, FIRST.y))
    until(lambda: len(prompts_of(server).prompts.get((1, 0), ())) == 2)
    assert prompts_of(server).numbers == (1,)
    visitor.page.wait_for_selector("#objects li.selected:only-child")
    # The first click made the object; undo takes the clicks back one by one.
    visitor.press("z")
    until(lambda: len(prompts_of(server).prompts[1, 0]) == 1)
    visitor.press("z")
    until(lambda: prompts_of(server).numbers == ())
    visitor.page.wait_for_selector("#objects:empty", state="attached")


def test_what_is_meant_for_an_object_that_cannot_be_made_goes_to_no_other(browser: Any, server: Running) -> None:
    with visiting(browser, server.address) as one, visiting(browser, f"{server.address}?session=1") as two:
        held: list[Any] = []
        two.page.route("**/commands", lambda route: held.append(route) if is_making(route) else route.continue_())
        two.press("n")
        two.click(FIRST.x, FIRST.y)
        two.page.wait_for_selector("#objects li.selected:only-child")
        while not held:
            two.page.wait_for_timeout(20)
        # Meanwhile, another tab takes the number.
        one.makes_object(1)
        until(lambda: prompts_of(server).numbers == (1,))
        held[0].continue_()
        two.is_told("object 1 could not be made")
        assert prompts_of(server).prompts == {}
        # It can still be chosen.
        two.page.click("#objects li .name")
        two.click(FIRST.x, FIRST.y)
        two.sees(0, 1)


def is_making(route: Any) -> bool:
    return route.request.post_data_json["do"] == "add"


def test_a_click_while_another_frame_is_on_the_screen_is_refused(visitor: Visitor, server: Running) -> None:
    broken: list[bool] = [True]
    visitor.page.route("**/frames/9.jpg", lambda route: route.abort() if broken[0] else route.continue_(), times=1000)
    visitor.page.locator("#scrub").fill("9")
    visitor.page.wait_for_selector("#loading:has-text('frame 9 is not shown')")
    assert visitor.page.get_attribute("#stage", "data-frame") == "0"
    visitor.click(FIRST.x, FIRST.y)
    visitor.is_told("frame 9 is still loading")
    visitor.press("Enter", "Backspace", "k")
    visitor.page.wait_for_timeout(200)
    assert prompts_of(server).prompts == {}
    # It comes by itself as soon as it can.
    broken[0] = False
    visitor.page.wait_for_selector('#stage[data-frame="9"]')
    assert visitor.page.locator("#loading").inner_text() == ""
    visitor.click(FIRST.x, FIRST.y)
    visitor.sees(9, 1)
    assert set(prompts_of(server).prompts) == {(1, 9)}


def test_erasing_on_a_new_object_stores_nothing(visitor: Visitor, server: Running) -> None:
    visitor.makes_object(1)
    visitor.press("e")
    visitor.drag((30, 30), (60, 60))
    visitor.is_told("nothing to erase")
    assert prompts_of(server).prompts == {}


def test_hiding_is_an_edit_of_its_own(visitor: Visitor, server: Running) -> None:
    visitor.click(FIRST.x, FIRST.y)
    visitor.sees(0, 1)
    visitor.press("h")
    visitor.sees(0)
    visitor.press("z")
    visitor.sees(0, 1)
    assert len(prompts_of(server).prompts[1, 0]) == 1
    visitor.press("y")
    visitor.sees(0)


def test_another_tabs_deletion_names_the_object_that_is_selected_now(browser: Any, server: Running) -> None:
    with visiting(browser, server.address) as one:
        one.click(FIRST.x, FIRST.y)
        one.sees(0, 1)
        one.makes_object(2)
        one.click(SECOND.x, SECOND.y)
        one.sees(0, 1, 2)
        with visiting(browser, one.page.url) as two:
            two.sees(0, 1, 2)
            two.page.click("#objects li:nth-child(2) .name")
            one.press("Delete")
            two.is_told("object 2 is gone; object 1 is selected now")


def test_space_after_a_mouse_click_plays_and_arrows_after_a_slider_step(visitor: Visitor, server: Running) -> None:
    visitor.page.click("#add-object")
    visitor.has_objects(1)
    visitor.press(" ")
    visitor.page.wait_for_selector("#play[aria-pressed=true]")
    visitor.press(" ")
    visitor.page.wait_for_selector("#play[aria-pressed=false]")
    assert prompts_of(server).numbers == (1,)
    frame = int(visitor.page.locator("#scrub").input_value())
    box = visitor.page.locator("#brush-size").bounding_box()
    visitor.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    visitor.page.wait_for_function("() => document.activeElement.id === 'stage'")
    brush = visitor.page.locator("#brush-size").input_value()
    visitor.press("Home" if frame else "ArrowRight")
    visitor.page.wait_for_selector(f'#stage[data-frame="{0 if frame else 1}"]')
    assert visitor.page.locator("#brush-size").input_value() == brush
