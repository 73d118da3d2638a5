"""The polygon tool on the page: vertices that are dragged, added, removed, and moved by keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from annotator_support import HEIGHT, NUM_FRAMES, SIZE, WIDTH, Running, until
from client_support import Client
from page_support import Visitor

from i2v.annotator import protocol
from i2v.annotator.document import Paint
from i2v.annotator.masks import decode
from i2v.annotator.polygon_edits import redraw
from i2v.results.polygons import fill_polygons
from i2v.results.rle import RunLengths, encode_mask

OUTLINE = [[30, 20], [80, 20], [80, 60], [30, 60]]
HOLE = (slice(30, 40), slice(45, 60))  # rows, columns


def painted() -> np.ndarray:
    """A plate with a hole, and beside it a part whose polygon has fewer vertices than its edge."""
    mask = np.zeros(SIZE, bool)
    mask[20:60, 30:80] = True
    mask[HOLE] = False
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return mask | (np.hypot(rows - 78, columns - 105) + np.sin(columns) < 14)


def with_outline(outline: list[list[float]]) -> np.ndarray:
    """The same with another outline of the plate."""
    rest, plate = painted(), fill_polygons([np.array(outline, float)], SIZE)
    rest[20:60, 30:80] = False
    plate[HOLE] = False
    return plate | rest


class Editor:
    """A person with the polygon tool."""

    def __init__(self, visitor: Visitor, server: Running, sent: list[Mapping[int, np.ndarray]]) -> None:
        self.visitor, self.server, self.sent = visitor, server, sent
        self.seen = painted()

    def mask(self) -> np.ndarray:
        stored = self.server.book.get(1).store.shown(1, 0)
        assert stored is not None
        return decode(stored.counts, SIZE)

    def takes_the_tool(self) -> None:
        self.visitor.press("Shift+p")
        self.sees_polygons()

    def sees_polygons(self) -> None:
        self.visitor.page.wait_for_selector('#stage[data-polygons="0:1:3"]')

    def hints(self, text: str) -> None:
        self.visitor.page.wait_for_selector(f"#hint:has-text({text!r})")

    def makes(self, mask: np.ndarray) -> None:
        """Wait until another mask than before is there, and on the page, and its polygons."""
        until(lambda: np.array_equal(self.mask(), mask))
        y, x = np.argwhere(mask ^ self.seen)[0].tolist()
        self.seen = mask
        self.visitor.page.wait_for_function(
            """([x, y, on]) => {
                const context = document.getElementById("overlay").getContext("2d");
                return context.getImageData(x, y, 1, 1).data[3] > 0 === on;
            }""",
            arg=[x, y, bool(mask[y, x])],
        )
        if self.visitor.page.locator("[data-tool=polygon][aria-checked=true]").count():
            self.sees_polygons()

    def redoes(self) -> None:
        self.visitor.page.wait_for_selector("#redo:not(:disabled)")
        self.visitor.press("y")

    def sends(self, count: int = 1) -> list[list[float]]:
        """Wait for the so-manieth change; returns its polygon."""
        until(lambda: len(self.sent) == count)
        (polygon,) = self.sent[-1].values()
        return polygon.tolist()


@pytest.fixture
def editor(visitor: Visitor, server: Running, monkeypatch: pytest.MonkeyPatch) -> Editor:
    """At a mask with a hole, of which a part has a ragged edge."""
    sent: list[Mapping[int, np.ndarray]] = []

    async def note(*args: Any) -> None:
        sent.append(args[-1])
        await redraw(*args)

    monkeypatch.setattr(protocol, "redraw", note)
    runs = RunLengths.of_counts(encode_mask(painted()), SIZE).runs.tolist()
    assert Client(server).command(1, do="paint", object=None, frame=0, runs=runs).status_code == 200
    visitor.sees(0, 1)
    return Editor(visitor, server, sent)


def near(outline: list[list[float]], *wanted: tuple[float, float]) -> None:
    """The same vertices, but for where the mouse is: at whole pixels of the window."""
    assert np.abs(np.subtract(sorted(map(tuple, outline)), sorted(wanted))).max() < 0.5


def test_a_vertex_is_dragged_and_the_change_undone(editor: Editor) -> None:
    visitor = editor.visitor
    editor.takes_the_tool()
    visitor.drag((80, 60), (90, 70))
    editor.hints("Enter applies")
    assert editor.sent == []
    visitor.press("Enter")
    outline = editor.sends()
    near(outline, (30, 20), (80, 20), (90, 70), (30, 60))
    wanted = with_outline(outline)
    assert (wanted ^ painted()).sum() > 300
    editor.makes(wanted)
    assert editor.server.book.get(1).document.prompts[1, 0] == (Paint(encode_mask(wanted)),)
    visitor.press("z")
    editor.makes(painted())
    editor.redoes()
    editor.makes(wanted)
    # The polygons are those of the new mask; here, where the picture is zoomed.
    visitor.press("+", "+")
    visitor.drag((80, 20), (76, 26))
    visitor.press("Enter")
    near(editor.sends(2), (30, 20), (76, 26), *[tuple(v) for v in outline if min(v) > 60], (30, 60))


def test_vertices_are_chosen_and_moved_by_keys(editor: Editor) -> None:
    visitor = editor.visitor
    editor.takes_the_tool()
    visitor.press("Tab")
    editor.hints("Vertex 1 of 4, polygon 1 of 3, at 80.0, 20.0.")
    visitor.press("Tab", "Shift+Tab", "ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowRight")
    editor.hints("at 92.0, 19.0. Enter applies")
    # Halfway to the next vertex, which is (80, 60); then the vertex before goes.
    visitor.press("Insert")
    editor.hints("Vertex 2 of 5, polygon 1 of 3, at 86.0, 39.5.")
    visitor.press("Shift+ArrowRight", "Shift+Tab", "Delete", "Enter")
    editor.makes(with_outline([[96, 39.5], [80, 60], [30, 60], [30, 20]]))
    assert editor.server.book.get(1).document.numbers == (1,)


def test_vertices_are_added_and_removed_with_the_mouse(editor: Editor) -> None:
    visitor = editor.visitor
    editor.takes_the_tool()
    visitor.drag((50, 60), (50, 75))
    visitor.press("Enter")
    outline = editor.sends()
    near(outline, (30, 20), (80, 20), (80, 60), (50, 75), (30, 60))
    editor.makes(with_outline(outline))
    visitor.press("z")
    editor.makes(painted())
    visitor.page.keyboard.down("Alt")
    visitor.click(30, 20)
    visitor.click(80, 60)  # three are left
    visitor.page.keyboard.up("Alt")
    visitor.is_told("three vertices at least")
    visitor.press("c")  # applies it; its hole is no hole any more
    editor.makes(with_outline([[80, 20], [80, 60], [30, 60]]))


def test_what_is_not_changed_or_given_up_is_not_sent(editor: Editor) -> None:
    visitor = editor.visitor
    editor.takes_the_tool()
    visitor.click(80, 60)
    editor.hints("Vertex 2 of 4")
    visitor.click(50, 61)  # one more vertex, on the edge
    editor.hints("of 5, polygon 1 of 3, at 50")
    editor.hints(", 60.0.")
    visitor.press("Enter", "c")
    editor.takes_the_tool()
    visitor.drag((80, 60), (90, 70))
    editor.hints("Enter applies")
    visitor.press("Escape")
    editor.hints("Drag a vertex")
    visitor.drag((80, 20), (90, 10))
    visitor.press("Enter")
    near(editor.sends(), (30, 20), (90, 10), (80, 60), (30, 60))


def test_changes_are_applied_when_they_are_left(editor: Editor) -> None:
    visitor, history = editor.visitor, lambda: editor.server.book.get(1).history

    def changes(key: str, count: int) -> np.ndarray:
        """Change the polygons, press a key, and return the mask that comes of it."""
        editor.takes_the_tool()
        visitor.drag((80, 60), (90, 70))
        editor.hints("Enter applies")
        visitor.press(key)
        return with_outline(editor.sends(count))

    # Undo takes back what was just applied.
    changed = changes("z", 1)
    until(lambda: history().future)
    np.testing.assert_array_equal(editor.mask(), painted())
    editor.redoes()
    editor.makes(changed)
    visitor.press("z")
    editor.makes(painted())
    # Another tool, another frame, another object.
    visitor.press("c")
    editor.makes(changes("c", 2))
    visitor.press("z")
    editor.makes(painted())
    changed = changes("PageDown", 3)
    visitor.page.wait_for_selector(f'#stage[data-frame="{NUM_FRAMES - 1}"]')
    editor.hints("The object has no mask on this frame.")
    visitor.press("Home")
    editor.makes(changed)
    visitor.press("z")
    editor.makes(painted())
    changed = changes("n", 4)
    visitor.has_objects(2)
    editor.hints("The object has no mask on this frame.")
    visitor.press("1")
    editor.makes(changed)


def test_locked_objects_and_masks_of_another_tab_are_left_alone(editor: Editor) -> None:
    visitor = editor.visitor
    visitor.press("j")
    visitor.page.wait_for_selector("#objects .lock[aria-pressed=true]")
    editor.takes_the_tool()
    visitor.drag((80, 60), (90, 70))
    visitor.is_told("object 1 is locked: unlock it first")
    visitor.press("j")
    visitor.page.wait_for_selector("#objects .lock[aria-pressed=false]")
    visitor.drag((80, 60), (90, 70))
    editor.hints("Enter applies")
    other = RunLengths.of_counts(encode_mask(~painted()), SIZE).runs.tolist()
    assert Client(editor.server).command(1, do="paint", object=1, frame=0, runs=other).status_code == 200
    visitor.is_told("the mask has changed meanwhile: the changes of its polygons are dropped")
    visitor.press("Enter", "c")
    visitor.page.wait_for_selector("[data-tool=click][aria-checked=true]")
    assert editor.sent == []
    np.testing.assert_array_equal(editor.mask(), ~painted())
