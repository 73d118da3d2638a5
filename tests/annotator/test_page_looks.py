"""How the page looks and is reached: themes, screens, focus, zoom, playing."""

from __future__ import annotations

import time
from typing import Any

import pytest
from annotator_support import FIRST, HEIGHT, NUM_FRAMES, WIDTH, Running
from page_support import Visitor, visiting


def test_every_control_can_be_reached_by_tab_and_shows_it(visitor: Visitor) -> None:
    page = visitor.page
    visitor.click(FIRST.x, FIRST.y)
    visitor.sees(0, 1)
    wanted = page.evaluate(
        """() => [...document.querySelectorAll("button:not(:disabled), input, #stage")]
            .filter((e) => e.checkVisibility() && !e.closest("dialog") && e.getAttribute("role") !== "radio")
            .map((e) => e.id || e.title || e.dataset.track)"""
    )
    reached = set()
    for _ in range(len(wanted) + 8):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            """() => { const e = document.activeElement;
                return [e.id || e.title || e.dataset.track, getComputedStyle(e).outlineStyle]; }"""
        )
        reached.add(name)
        assert outline != "none" or name in (None, ""), name
    assert set(wanted) - reached == set()


def test_dark_and_light_follow_the_system_until_chosen(browser: Any, server: Running) -> None:
    def background(guest: Visitor) -> int:
        text = guest.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(v) for v in text.strip("rgb()").split(","))

    def sees(guest: Visitor, dark: bool) -> None:
        # On a busy machine the page may learn of a change some frames later.
        deadline = time.monotonic() + 20
        while (background(guest) < 150) != dark or 150 <= background(guest) <= 600:
            assert time.monotonic() < deadline
            guest.page.wait_for_timeout(50)

    with visiting(browser, server.address, color_scheme="dark") as guest:
        sees(guest, dark=True)
        guest.page.emulate_media(color_scheme="light")
        sees(guest, dark=False)
        guest.page.click("#theme")
        sees(guest, dark=True)
        guest.reload()
        sees(guest, dark=True)


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1920, 1080), (3840, 2160)])
def test_nothing_is_cut_off_on_small_and_large_screens(browser: Any, server: Running, width: int, height: int) -> None:
    with visiting(browser, server.address, width, height) as guest:
        guest.click(FIRST.x, FIRST.y)
        guest.sees(0, 1)
        outside = guest.page.evaluate(
            """() => [...document.querySelectorAll("body *")].filter((e) => {
                if (!e.checkVisibility() || e.closest(".skip") || e.closest("dialog")) return false;
                const r = e.getBoundingClientRect();
                const off = r.left < -1 || r.top < -1 || r.right > innerWidth + 1 || r.bottom > innerHeight + 1;
                return off || (e.matches("button") && e.scrollWidth > e.clientWidth + 1);
            }).map((e) => e.outerHTML.slice(0, 80))"""
        )
        assert outside == []
        picture = guest.page.locator("#stage").bounding_box()
        assert picture["width"] * picture["height"] > 0.4 * width * height


def test_playing_shows_every_frame_in_order(visitor: Visitor) -> None:
    visitor.page.evaluate(
        """() => { window.seen = []; const stage = document.getElementById("stage");
            new MutationObserver(() => window.seen.push(Number(stage.dataset.frame)))
                .observe(stage, { attributeFilter: ["data-frame"] }); }"""
    )
    visitor.press(" ")
    visitor.page.wait_for_selector(f'#stage[data-frame="{NUM_FRAMES - 1}"]')
    visitor.page.wait_for_selector("#play:has-text('Play')")
    seen = visitor.page.evaluate("window.seen")
    assert seen == sorted(seen)
    assert seen[-1] == NUM_FRAMES - 1


def test_help_lists_the_shortcuts(visitor: Visitor) -> None:
    visitor.press("?")
    texts = visitor.page.locator("#shortcuts dd").all_inner_texts()
    assert "track both ways" in texts
    assert len(texts) > 20
    visitor.press("Escape")
    visitor.page.wait_for_selector("#help-dialog", state="hidden")


def test_a_zoomed_click_lands_where_it_points(visitor: Visitor, server: Running) -> None:
    visitor.press("+", "+", "+")
    before = visitor.page.locator("#picture").bounding_box()
    assert before["width"] > 1.9 * visitor.page.locator("#stage").bounding_box()["height"] * WIDTH / HEIGHT / 1.1
    visitor.click(60.5, 40.25)
    visitor.sees(0, 1)
    (click,) = server.book.get(1).document.prompts[1, 0]
    assert (click.x, click.y) == pytest.approx((60.5, 40.25), abs=0.2)
