"""Two people at the annotator's page: one has no mouse, the other no keyboard. What each does to get its work done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from page_support import Visitor


class Labeller(ABC):
    """What a job at the page consists of."""

    def __init__(self, visitor: Visitor, num_frames: int) -> None:
        self.visitor, self.page, self.num_frames = visitor, visitor.page, num_frames
        self._cross: dict[str, list[float]] = {}  # where it is on each page, in pixels of the video

    @property
    def frame(self) -> int:
        return int(self.page.locator("#stage").get_attribute("data-frame"))

    def is_answered(self, action: Any) -> None:
        """Do something, and wait for the mask that it brings."""
        before = self.page.locator("#stage").get_attribute("data-news")
        action()
        self.page.wait_for_function(
            "before => document.getElementById('stage').dataset.news !== before", arg=before or "0"
        )

    @abstractmethod
    def goes_to(self, frame: int) -> None: ...

    @abstractmethod
    def new_object(self, category: str) -> None: ...

    @abstractmethod
    def clicks(self, x: float, y: float, on_object: bool = True) -> None: ...

    @abstractmethod
    def boxes(self, x0: float, y0: float, x1: float, y1: float) -> None: ...

    @abstractmethod
    def begins_range(self) -> None: ...

    @abstractmethod
    def ends_range(self) -> None: ...

    @abstractmethod
    def does(self, what: str) -> None:
        """One of track, update, low, accept, undo, redo, done, next: what has a button and a key."""

    @abstractmethod
    def exports_with_yolo(self) -> None: ...

    def works(self, what: str) -> None:
        """Do something in the background, and wait for its end."""
        before = self.page.evaluate("window.worksSeen")
        self.does(what)
        self.page.wait_for_function("before => window.worksSeen > before", arg=before)
        self.visitor.is_done()

    def sets_range(self, first: int, last: int) -> None:
        self.goes_to(first)
        self.begins_range()
        self.goes_to(last)
        self.ends_range()
        self.page.wait_for_selector(f"#range:has-text('frames {first} to {last}')")


class WithKeyboard(Labeller):
    """Never moves the mouse. The cross stands for the pointer."""

    KEYS: ClassVar = {
        "track": "f",
        "update": "u",
        "low": "l",
        "accept": "m",
        "undo": "z",
        "redo": "y",
        "done": "Shift+m",
        "next": "Shift+w",
    }

    def does(self, what: str) -> None:
        self.visitor.press(self.KEYS[what])

    def goes_to(self, frame: int) -> None:
        self.visitor.press("Home", *["ArrowRight"] * frame)
        self.page.wait_for_selector(f'#stage[data-frame="{frame}"]')

    def new_object(self, category: str) -> None:
        count = self.page.locator("#objects li").count()
        self.visitor.press("n")
        self.visitor.has_objects(count + 1)
        self.visitor.press("r", "Tab")
        self.page.keyboard.type(category)
        self.visitor.press("Enter")
        self.page.wait_for_selector(f"#objects li.selected small:has-text('{category}')")

    def _points_at(self, x: float, y: float) -> None:
        """Move the cross, by 40 and by 4 pixels of the screen, as near as these go."""
        width, height, scale = self.page.evaluate(
            "() => { const { width, height, clientWidth } = document.getElementById('picture');"
            " return [width, height, clientWidth / width]; }"
        )
        here = self._cross.setdefault(self.page.url, [width / 2, height / 2])  # where a page has it first
        for axis, (wanted, keys) in enumerate(((x, ("ArrowLeft", "ArrowRight")), (y, ("ArrowUp", "ArrowDown")))):
            steps = round((wanted - here[axis]) * scale / 4)
            far, near = divmod(abs(steps), 10)
            key = keys[steps > 0]
            self.visitor.press(*[f"Control+Shift+{key}"] * far, *[f"Shift+{key}"] * near)
            here[axis] += 4 * steps / scale

    def clicks(self, x: float, y: float, on_object: bool = True) -> None:
        self.visitor.press("c")
        self._points_at(x, y)
        self.is_answered(lambda: self.visitor.press("Enter" if on_object else "Alt+Enter"))

    def boxes(self, x0: float, y0: float, x1: float, y1: float) -> None:
        self.visitor.press("b")
        self._points_at(x0, y0)
        self.visitor.press("Enter")
        self._points_at(x1, y1)
        self.is_answered(lambda: self.visitor.press("Enter"))

    def begins_range(self) -> None:
        self.visitor.press("a")

    def ends_range(self) -> None:
        self.visitor.press("v")

    def exports_with_yolo(self) -> None:
        self.visitor.press("x")
        self.page.wait_for_selector("#export-dialog[open]")
        for _ in range(20):
            if self.page.evaluate("document.activeElement.dataset.format") == "yolo":
                break
            self.visitor.press("Tab")
        self.visitor.press(" ", "Enter")


class WithMouse(Labeller):
    """Never touches a key. Classes come from the list."""

    BUTTONS: ClassVar = {
        "track": "[data-track=forward]",
        "update": "#update",
        "low": "#next-doubt",
        "accept": "#review",
        "undo": "#undo",
        "redo": "#redo",
        "done": "#video-done",
        "next": "#next-video",
    }

    def does(self, what: str) -> None:
        self.page.click(self.BUTTONS[what])

    def goes_to(self, frame: int) -> None:
        box = self.page.locator("#timeline").bounding_box()
        self.page.mouse.click(box["x"] + box["width"] * (frame + 0.5) / self.num_frames, box["y"] + box["height"] / 2)
        self.page.wait_for_selector(f'#stage[data-frame="{frame}"]')

    def new_object(self, category: str) -> None:
        count = self.page.locator("#objects li").count()
        self.page.click("#add-object")
        self.visitor.has_objects(count + 1)
        self.page.click("#objects li.selected .rename")
        self.page.click(f"#class-choices button:has-text('{category}')")
        self.page.click("#rename-dialog button[value=rename]")
        self.page.wait_for_selector(f"#objects li.selected small:has-text('{category}')")

    def clicks(self, x: float, y: float, on_object: bool = True) -> None:
        self.page.click("[data-tool=click]")
        self.is_answered(lambda: self.visitor.click(x, y, button="left" if on_object else "right"))

    def boxes(self, x0: float, y0: float, x1: float, y1: float) -> None:
        self.page.click("[data-tool=box]")
        self.is_answered(lambda: self.visitor.drag((x0, y0), (x1, y1)))

    def begins_range(self) -> None:
        self.page.click("#range-first")

    def ends_range(self) -> None:
        self.page.click("#range-last")

    def exports_with_yolo(self) -> None:
        self.page.click("#export")
        self.page.click("[data-format=yolo]")
        self.page.click("#export-now")


def output_of(out: Path, video: str) -> tuple[Path, Path]:
    """Session file and export folder of a queue's video."""
    return out / video / "session.json", out / video / "export"
