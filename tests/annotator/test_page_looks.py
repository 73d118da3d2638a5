"""How the page looks and is reached: themes, screens, focus, zoom, playing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from annotator_support import FIRST, HEIGHT, NUM_FRAMES, WIDTH, Running, running_queue
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


@pytest.mark.parametrize("width", [800, 1280, 1920])
def test_the_picture_stays_where_it_is_whatever_the_page_has_to_say(browser: Any, server: Running, width: int) -> None:
    with visiting(browser, server.address, width, 720) as guest:
        page = guest.page
        stage = page.locator("#stage").bounding_box()
        guest.click(FIRST.x, FIRST.y)
        guest.sees(0, 1)
        page.wait_for_selector("#saved:has-text('all changes saved')")
        guest.press("f")
        page.wait_for_selector(f'#stage[data-frame="{NUM_FRAMES - 1}"]')
        guest.is_done()
        guest.press("a", "v", "m")
        page.wait_for_selector("#reviewed:has-text('reviewed')")
        # What a long video and a long path would say.
        for name, text in {
            "saved": "all changes saved in /a/rather/long/path/to/some/session.json",
            "connection": "annotator restarted",
            "position": "frame 1043 of 1799  \u00b7  34.77 s",
            "range": "frames 1000 to 1043",
            "progress-text": "exporting: 1043 of 1799, 24.1 frames/s",
        }.items():
            page.evaluate("([name, text]) => document.getElementById(name).textContent = text", [name, text])
            assert page.locator("#stage").bounding_box() == stage, name


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1920, 1080)])
def test_the_header_of_a_queue_is_one_row(browser: Any, clip: Path, width: int, height: int) -> None:
    folder = clip.parent / "videos"
    folder.mkdir()
    clip.rename(folder / "2026-11-27_a_rather_long_name_of_a_video")
    with running_queue(folder) as server, visiting(browser, server.address, width, height) as guest:
        page = guest.page
        guest.click(FIRST.x, FIRST.y)
        guest.sees(0, 1)
        page.wait_for_selector("#video-state:has-text('in work')")
        page.wait_for_selector("#saved:has-text('all changes saved')")
        for text in ("video 1 of 1, in work", "video 100 of 120, in work"):
            page.evaluate("text => document.getElementById('video-state').textContent = text", text)
            middles = page.evaluate(
                """() => [...document.querySelectorAll("header :is(h1, #state, button, #video-state)")]
                    .map((e) => e.getBoundingClientRect()).map((r) => r.top + r.height / 2)"""
            )
            assert len(middles) == 15
            assert max(middles) - min(middles) < 6
        name = page.locator("h1").bounding_box()
        assert name["width"] > 100


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
    assert "track backward, both ways, forward" in texts
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
