"""A person at the annotator's page: what the tests do in the browser, and what they see there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

# Counts the times that work begins: one that is over within a few milliseconds is missed by looking now and then.
COUNT_WORKS = """
window.worksSeen = 0;
document.addEventListener("DOMContentLoaded", () => {
  const cancel = document.getElementById("cancel");
  const count = records => {
    const values = [...records.map(record => record.oldValue), cancel.getAttribute("disabled")];
    window.worksSeen += values.filter((value, i) => i > 0 && value === null && values[i - 1] !== null).length;
  };
  new MutationObserver(count).observe(cancel, { attributeFilter: ["disabled"], attributeOldValue: true });
});
"""


class Visitor:
    """One tab."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.problems: list[str] = []
        page.add_init_script(COUNT_WORKS)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._hear)
        self.open(address)

    def _hear(self, line: Any) -> None:
        # That the server refused something, or could not be reached, is the browser's to say and the page's to show.
        told = ("the server responded with a status of 4", "Failed to load resource: net::ERR", "WebSocket connection")
        if line.type == "error" and not any(text in line.text for text in told):
            self.problems.append(line.text)

    def open(self, address: str) -> None:
        self.page.goto(address)
        self.page.wait_for_selector("#stage[data-frame]")
        self.page.wait_for_selector("body[data-connected=true]")

    def reload(self) -> None:
        self.page.reload()
        self.page.wait_for_selector("body[data-connected=true]")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the video is in the window."""
        box = self.page.locator("#picture").bounding_box()
        size = self.page.evaluate(
            "[document.getElementById('picture').width, document.getElementById('picture').height]"
        )
        return box["x"] + x * box["width"] / size[0], box["y"] + y * box["height"] / size[1]

    def click(self, x: float, y: float, **options: Any) -> None:
        self.page.mouse.click(*self.at(x, y), **options)

    def drag(self, *points: tuple[float, float]) -> None:
        self.page.mouse.move(*self.at(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point), steps=4)
        self.page.mouse.up()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def sees(self, frame: int, *objects: int) -> None:
        """Wait until the masks of these objects, and no others, are drawn on this frame."""
        self.page.wait_for_selector(f'#stage[data-masks="{frame}:{",".join(map(str, objects))}"]')

    def goes_to(self, frame: int) -> None:
        """Scrub to a frame, and wait until its picture is there."""
        self.page.locator("#scrub").fill(str(frame))
        self.page.wait_for_selector(f'#stage[data-frame="{frame}"]')

    def has_objects(self, count: int) -> None:
        self.page.wait_for_selector(f"#objects li:nth-child({count}):last-child")

    def makes_object(self, count: int) -> None:
        """Add an object, the so-manieth, and wait until it is the one that prompts are for."""
        self.press("n")
        self.page.wait_for_selector(f"#objects li.selected:nth-child({count}):last-child")

    def is_told(self, text: str) -> None:
        self.page.wait_for_selector(f"#message:has-text({text!r})")

    def does(self, key: str) -> None:
        """Press the key of work in the background; wait for its beginning, however short it is, and its end."""
        before = self.page.evaluate("window.worksSeen")
        self.press(key)
        self.page.wait_for_function("before => window.worksSeen > before", arg=before)
        self.is_done()

    def is_done(self) -> None:
        """Wait for the end of work in the background."""
        self.page.wait_for_selector("#cancel:disabled")

    def works(self) -> None:
        self.page.wait_for_selector("#cancel:not(:disabled)")

    def pixel(self, canvas: str, x: int, y: int) -> list[int]:
        """What a canvas of the stage has at a pixel of the video: red, green, blue, opacity."""
        script = "([id, x, y]) => [...document.getElementById(id).getContext('2d').getImageData(x, y, 1, 1).data]"
        return self.page.evaluate(script, [canvas, x, y])


@contextlib.contextmanager
def visiting(browser: Any, address: str, width: int = 1280, height: int = 720, **options: Any) -> Iterator[Visitor]:
    """Open a tab of its own; at the end, nothing may have gone wrong in the page."""
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    context.set_default_timeout(30_000)
    try:
        visitor = Visitor(context.new_page(), address)
        yield visitor
        assert visitor.problems == []
    finally:
        context.close()
