"""Moving the picture, zooming the timeline, changing keys."""

from __future__ import annotations

from typing import Any

import pytest
from annotator_support import FIRST, Running, running, until
from page_support import Visitor, visiting
from PIL import Image
from support import render_video

from i2v.annotator.footage import Footage, to_jpeg
from i2v.video.frame_source import FrameArray, FrameSource

LONG = 200


def picture(visitor: Visitor) -> tuple[float, float]:
    box = visitor.page.locator("#picture").bounding_box()
    return round(box["x"]), round(box["y"])


def test_space_and_drag_move_the_picture_and_space_alone_plays(visitor: Visitor, server: Running) -> None:
    page = visitor.page
    visitor.press("+", "+", "+", "+")
    stage = page.locator("#stage").bounding_box()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    before = picture(visitor)
    page.keyboard.down(" ")
    page.keyboard.down(" ")  # the key repeats itself while it is held
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 40, y - 20, steps=4)
    page.mouse.up()
    page.keyboard.up(" ")
    # Mice tell how far they moved in whole pixels.
    assert picture(visitor) == pytest.approx((before[0] - 40, before[1] - 20), abs=3)
    # It was neither a click nor the key to play.
    page.wait_for_timeout(300)
    assert page.locator("#stage").get_attribute("data-frame") == "0"
    assert page.locator("#play").inner_text() == "Play"
    assert server.book.get(1).document.numbers == ()
    # Released outside the picture, the drag is over all the same.
    page.keyboard.down(" ")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(5, 5)
    page.keyboard.up(" ")
    page.mouse.up()
    now = picture(visitor)
    page.mouse.move(x, y, steps=3)
    assert picture(visitor) == now
    visitor.press(" ")
    page.wait_for_selector("#play:has-text('Pause')")
    visitor.press(" ")
    page.wait_for_selector("#play:has-text('Play')")
    visitor.press("0", "Home")
    page.wait_for_selector('#stage[data-frame="0"]:not(.waiting)')
    visitor.click(FIRST.x, FIRST.y)  # without Space a press is a click again
    until(lambda: server.book.get(1).document.numbers == (1,))


class LongFootage(Footage):
    """A video of many small frames in memory."""

    name, height, width, frame_rate = "long", 48, 64, 10.0

    def __init__(self) -> None:
        self._frames = render_video(LONG)
        self._source = FrameArray(self._frames)

    @property
    def num_available(self) -> int:
        return LONG

    def open(self) -> FrameSource:
        return FrameArray(self._frames)

    def jpeg(self, frame: int) -> bytes:
        return to_jpeg(Image.fromarray(self._source.read(frame)))

    def close(self) -> None:
        self._source.close()


@pytest.fixture
def long(browser: Any, tmp_path: Any) -> Any:
    with (
        running(LongFootage(), tmp_path / "out") as server,
        visiting(browser, server.address, color_scheme="dark") as guest,
    ):
        yield guest


def test_the_timeline_zooms_and_follows(long: Visitor) -> None:
    page = long.page
    span, box = page.locator("#timeline-span"), page.locator("#timeline").bounding_box()
    assert span.inner_text() == ""
    assert page.locator("#timeline-out").is_disabled()
    long.goes_to(100)
    page.click("#timeline-in")
    page.wait_for_selector("#timeline-span:has-text('frames 50 to 149')")
    # A click is on a frame that is in view.
    page.mouse.click(box["x"] + 0.1 * box["width"] + 1, box["y"] + 5)
    page.wait_for_selector('#stage[data-frame="60"]')
    # Ctrl and the wheel zoom where the pointer is, to ten frames at most.
    page.mouse.move(box["x"] + 1, box["y"] + 5)
    page.keyboard.down("Control")
    for _ in range(8):
        page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    page.wait_for_selector("#timeline-span:has-text('frames 50 to 59')")
    # The wheel alone moves along.
    page.mouse.wheel(0, 500)
    page.wait_for_selector("#timeline-span:has-text('frames 55 to 64')")
    # It follows the frame that is shown.
    long.press("End")
    page.wait_for_selector(f"#timeline-span:has-text('frames {LONG - 10} to {LONG - 1}')")
    long.press("Home")
    page.wait_for_selector("#timeline-span:has-text('frames 0 to 9')")
    long.press("Shift+o")
    page.wait_for_selector("#timeline-span:has-text('frames 0 to 19')")
    long.press("Shift+i", "Shift+a")
    page.wait_for_function("() => document.getElementById('timeline-span').textContent === ''")
    # What is drawn is where it belongs: a prompt on frame 150 of 200, then in the middle of a part.
    long.goes_to(150)
    long.click(16, 19)
    long.sees(150, 1)
    long.goes_to(160)

    def diamond() -> float:
        """Place of the prompt's mark, which has the colour of text, in parts of the width."""
        return page.evaluate(
            """() => { const canvas = document.getElementById("timeline"), { width, height } = canvas;
                const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
                const row = Math.floor(height / 6);
                for (let x = 0; x < width; x++) {
                  const at = 4 * (row * width + x);
                  if (data[at] > 200 && data[at + 1] > 200 && data[at + 2] > 200) return x / width;
                }
                return -1; }"""
        )

    until(lambda: abs(diamond() - 150.5 / LONG) < 0.02)
    long.press("Shift+i", "Shift+i")  # around frame 160, at 0.8: frames 120 to 169
    until(lambda: abs(diamond() - (150.5 - 120) / 50) < 0.02)


def change(visitor: Visitor, own: str, key: str) -> str:
    """Change a key in the help; returns what is said of it."""
    visitor.page.click(f"#shortcuts [data-own='{own}']")
    visitor.page.wait_for_selector("#shortcuts button:has-text('press a key')")
    visitor.press(key)
    visitor.page.wait_for_function("() => !document.getElementById('key-state').textContent.startsWith('Press')")
    return visitor.page.locator("#key-state").inner_text()


def test_keys_are_changed_kept_and_reset(browser: Any, server: Running) -> None:
    with visiting(browser, server.address) as guest:
        page = guest.page
        guest.press("?")
        assert page.locator("#reset-keys").is_disabled()
        assert change(guest, "n", "Shift+n") == "Shift N: new object"
        # What is taken, or the browser's, is refused, and Esc leaves the key as it is.
        assert change(guest, "z", "r") == "R is taken: name and class of the object"
        assert change(guest, "z", "4") == "4 is taken: select an object"
        assert change(guest, "z", "c") == "C is taken: C of “click, box, paint, erase”"
        assert change(guest, "z", "Control+k") == "Ctrl K: keys with Ctrl or Alt are the browser's"
        assert change(guest, "z", "Tab") == "Tab has its own use"
        assert change(guest, "z", "Escape") == ""
        assert page.locator("#help-dialog[open]").count() == 1
        enter = "mark at the cross; begin or end a box or a stroke; apply changed polygons"
        assert change(guest, " ", "Enter") == f"Enter is taken: {enter}"
        assert change(guest, "Shift+l", "8").startswith("8 is taken")
        guest.press("Escape")
        guest.press("n")  # does nothing any more
        guest.press("Shift+n")
        guest.has_objects(1)
        assert page.locator("#add-object").get_attribute("title") == "One more object (Shift N)"
        assert page.locator("#add-object").get_attribute("aria-keyshortcuts") == "Shift+N"
        guest.reload()
        guest.has_objects(1)
        guest.press("Shift+n")
        guest.has_objects(2)
        # The key that is free now can be given to another one.
        guest.press("?")
        assert change(guest, "r", "n") == "N: name and class of the object"
        page.click("#reset-keys")
        guest.press("Escape", "n")
        guest.has_objects(3)
        assert page.locator("#add-object").get_attribute("title") == "One more object (N)"
        # What is kept may be of another version, or no such thing.
        for kept in ('{"n":"z"}', '{"n":5,"nothing":"q"}', '["n"]', "no JSON", '{"z":"Control"}', "null"):
            page.evaluate("kept => localStorage.setItem('i2v-keys', kept)", kept)
            guest.reload()
            before = page.locator("#objects li").count()
            guest.press("n")
            guest.has_objects(before + 1)
