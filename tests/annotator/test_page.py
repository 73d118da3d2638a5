"""The page in a real browser: what a person does, sees and gets."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotator_support import FIRST, HEIGHT, NUM_FRAMES, OFF, SECOND, SIZE, WIDTH, Running, add
from page_support import Visitor, visiting
from pycocotools import mask as coco_mask
from support import make_predictor

from i2v.annotator.document import Place
from i2v.annotator.engine import Engine
from i2v.annotator.masks import MaskStore, StoredMask, decode
from i2v.annotator.plan import TrackRange
from i2v.annotator.session import Session
from i2v.results.export import label_map, read_label_png, write_label_png
from i2v.results.overlay import PALETTE
from i2v.results.rle import encode_mask


@pytest.fixture
def road(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is not set, tracking stands still with two frames done, so that the middle is not a matter of speed."""
    is_free = threading.Event()
    is_free.set()
    track = Engine.track

    def stop_and_go(engine: Engine, track_range: TrackRange, is_kept: Callable[[Place], bool]) -> Iterator[int]:
        for done, frame in enumerate(track(engine, track_range, is_kept), start=1):
            yield frame
            if done == 2:
                assert is_free.wait(60)

    monkeypatch.setattr(Engine, "track", stop_and_go)
    yield is_free
    is_free.set()


def exported(server: Running, session: int = 1) -> dict[int, np.ndarray]:
    folder = server.out / ("export" if session == 1 else f"export-{session}") / "masks"
    return {int(path.stem): read_label_png(path) for path in sorted(folder.iterdir())}


def export(visitor: Visitor) -> None:
    visitor.press("x")
    visitor.page.click("#export-now")
    visitor.is_told("exported to")


def test_two_objects_are_clicked_corrected_tracked_and_exported(
    visitor: Visitor, server: Running, clip: Path, road: threading.Event
) -> None:
    visitor.goes_to(4)
    visitor.click(FIRST.x, FIRST.y)
    visitor.sees(4, 1)
    visitor.page.wait_for_selector("#score:has-text('object 1: confidence')")
    visitor.page.click("#add-object")
    visitor.page.wait_for_selector("#objects li.selected:nth-child(2)")
    visitor.click(SECOND.x, SECOND.y)
    visitor.sees(4, 1, 2)
    # One click that was wrong, taken back; one that corrects.
    visitor.click(5, 5)
    visitor.page.wait_for_selector("#undo:not(:disabled)")
    visitor.page.click("#undo")
    visitor.press("1")
    visitor.click(OFF.x, OFF.y, button="right")
    # Forward, stopped in the middle, then both ways, with the page loaded anew while it runs.
    road.clear()
    visitor.press("f")
    visitor.page.wait_for_selector("#progress-text:has-text('tracking: 2 of 6')")
    visitor.press("Escape")
    wait_for(lambda: server.book.get(1).work.stopping)
    road.set()
    visitor.is_done()
    # The frame that was being tracked is kept, and none after it.
    assert set(server.book.get(1).store.of(1).tracked) == {5, 6}
    road.clear()
    visitor.press("g")
    visitor.works()
    visitor.reload()
    visitor.works()
    road.set()
    visitor.is_done()
    visitor.sees(0, 1, 2)
    export(visitor)

    # The mouse is at whole pixels of the window.
    prompts = server.book.get(1).document.prompts
    meant = {1: (FIRST, OFF), 2: (SECOND,)}
    assert set(prompts) == {(number, 4) for number in meant}
    for number, clicks in meant.items():
        for got_click, click in zip(prompts[number, 4], clicks, strict=True):
            assert vars(got_click) == pytest.approx(vars(click), abs=0.2)
    predictor = make_predictor()
    wanted: dict[int, np.ndarray] = {}
    with predictor.init_state(clip) as state:
        for number in meant:
            add(predictor, state, 4, number, *prompts[number, 4])
        for reverse in (False, True):
            for frame, numbers, logits in predictor.propagate_in_video(state, 4, reverse=reverse):
                wanted[frame] = label_map(logits, numbers)
    got = exported(server)
    assert list(got) == list(range(NUM_FRAMES))
    for frame, labels in got.items():
        np.testing.assert_array_equal(labels, wanted[frame], err_msg=f"frame {frame}")
    assert {path.name for path in (server.out / "export").iterdir()} == {
        "masks",
        "masks.json",
        "coco.json",
        "youtube_vis.json",
        "overlay.mp4",
    }


def test_masks_are_drawn_where_they_are_in_the_colour_of_their_object(visitor: Visitor, server: Running) -> None:
    visitor.click(FIRST.x, FIRST.y)
    visitor.sees(0, 1)
    mask = shown_mask(server, 1, 0)
    inner = mask & np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1)
    inner &= np.roll(mask, 2, 0) & np.roll(mask, -2, 0) & np.roll(mask, 2, 1) & np.roll(mask, -2, 1)
    y, x = (int(v[len(v) // 2]) for v in np.nonzero(inner))
    colour = PALETTE[1].tolist()
    assert np.abs(np.subtract(visitor.pixel("overlay", x, y), [*colour, 128])).max() <= 2
    off_y, off_x = (int(v[0]) for v in np.nonzero(~mask))
    assert visitor.pixel("overlay", off_x, off_y) == [0, 0, 0, 0]
    visitor.press("o")
    assert visitor.page.locator("#opacity-value").inner_text() == "100 %"
    assert visitor.pixel("overlay", x, y) == [*colour, 255]
    visitor.press("h")
    visitor.sees(0)
    assert visitor.pixel("overlay", x, y)[3] == 0


def shown_mask(server: Running, number: int, frame: int) -> np.ndarray:
    stored = server.book.get(1).store.shown(number, frame)
    assert stored is not None
    return decode(stored.counts, SIZE)


def test_the_pages_run_lengths_equal_cocos(visitor: Visitor) -> None:
    rng = np.random.default_rng(1)
    script = """async ([text, width, height]) => {
        const { decodeCounts, fillRuns, encodePlane } = await import("./static/js/rle.js");
        const plane = new Uint8Array(width * height);
        const box = fillRuns(plane, decodeCounts(text), width, height, 1);
        return [[...plane], encodePlane(plane, width, height), box];
    }"""
    for density, shape in ((0, (4, 6)), (0.02, (300, 211)), (0.5, (37, 53)), (1, (9, 4))):
        mask = rng.random(shape) < density
        text = encode_mask(mask).decode()
        plane, runs, box = visitor.page.evaluate(script, [text, shape[1], shape[0]])
        np.testing.assert_array_equal(np.reshape(plane, shape), mask)
        again = coco_mask.frPyObjects({"size": list(shape), "counts": runs}, *shape)
        assert again["counts"].decode() == text
        if mask.any():
            rows, columns = np.nonzero(mask)
            wanted = {"left": columns.min(), "right": columns.max(), "top": rows.min(), "bottom": rows.max()}
            # Where a run goes over the end of a column, all rows count.
            assert box["left"] == wanted["left"] and box["right"] == wanted["right"]
            assert box["top"] <= wanted["top"] and box["bottom"] >= wanted["bottom"]


def test_a_box_and_a_brush_do_what_they_show(visitor: Visitor, server: Running) -> None:
    visitor.press("b")
    visitor.drag((20, 20), (60, 70))
    visitor.sees(0, 1)
    session = server.book.get(1)
    (box,) = session.document.prompts[1, 0]
    assert np.abs(np.subtract([*vars(box).values()], [20, 20, 60, 70])).max() < 1
    # Erase all that is there, with the widest brush, then paint a stroke.
    visitor.page.locator("#brush-size").fill("200")
    visitor.press("e")
    visitor.drag((10, 10), (118, 48), (64, 90))
    visitor.page.wait_for_selector('#stage[data-masks="0:1"]')
    wait_for(lambda: not shown_mask(server, 1, 0).any())
    visitor.page.locator("#brush-size").fill("20")
    visitor.press("p")
    visitor.drag((30, 48), (90, 48))
    wait_for(lambda: shown_mask(server, 1, 0).any())
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    stroke = np.hypot(np.clip(columns, 30, 90) - columns, 48 - rows) <= 10
    painted = shown_mask(server, 1, 0)
    # The mouse is at whole pixels of the window, which are a fraction of the video's.
    assert np.count_nonzero(painted ^ stroke) < 0.03 * np.count_nonzero(stroke)
    visitor.press("z", "z")
    wait_for(lambda: session.document.prompts[1, 0] == (box,))


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_everything_can_be_done_with_keys_alone(visitor: Visitor, server: Running) -> None:
    page = visitor.page
    # The picture has the focus from the start; the cross begins in its middle.
    assert page.evaluate("document.activeElement.id") == "stage"
    outline = page.evaluate("getComputedStyle(document.getElementById('stage')).outlineStyle")
    assert outline == "solid"
    # Before the first object: its row and the time of saving can make the header taller, and the picture smaller.
    scale = page.locator("#picture").bounding_box()["width"] / WIDTH
    visitor.press(*["Shift+ArrowLeft"] * 3, *["Control+Shift+ArrowUp"] * 2, "Enter")
    visitor.sees(0, 1)
    (click,) = server.book.get(1).document.prompts[1, 0]
    assert (click.x, click.y) == pytest.approx((WIDTH / 2 - 12 / scale, HEIGHT / 2 - 80 / scale), abs=0.01)
    visitor.press(*["Shift+ArrowDown"] * 5, "Alt+Enter")
    wait_for(lambda: len(server.book.get(1).document.prompts[1, 0]) == 2)
    assert server.book.get(1).document.prompts[1, 0][1].positive is False
    # A second object, in a box from one place of the cross to another.
    visitor.makes_object(2)
    visitor.press("b", "Enter", *["Control+Shift+ArrowRight"] * 3, *["Control+Shift+ArrowDown"] * 3, "Enter")
    visitor.sees(0, 1, 2)
    visitor.press("r")
    page.keyboard.type("blue disc")
    visitor.press("Enter")
    page.wait_for_selector("#objects li.selected:has-text('blue disc')")
    visitor.does("f")
    visitor.press("End")
    visitor.sees(NUM_FRAMES - 1, 1, 2)
    visitor.press("Home", "ArrowRight", "ArrowRight", "PageDown", "ArrowLeft")
    visitor.sees(NUM_FRAMES - 2, 1, 2)
    visitor.press(",")
    visitor.sees(0, 1, 2)
    visitor.press("1", "Delete")
    visitor.has_objects(1)
    visitor.press("z")
    visitor.has_objects(2)
    visitor.press("x", "Enter")
    visitor.is_told("exported to")
    assert len(exported(server)) == NUM_FRAMES


def test_a_lost_connection_comes_back_with_what_happened(browser: Any, server: Running) -> None:
    context = browser.new_context()
    page = context.new_page()
    lines: list[Any] = []

    def connect(line: Any) -> None:
        line.connect_to_server()
        lines.append(line)

    page.route_web_socket(lambda url: url.endswith("/events"), connect)
    visitor = Visitor(page, server.address)
    visitor.click(FIRST.x, FIRST.y)
    visitor.sees(0, 1)
    lines[-1].close()
    page.wait_for_selector("#connection.lost")
    # Said while nobody listened: the page must fetch it.
    visitor.click(SECOND.x, SECOND.y, button="right")
    page.wait_for_selector("body[data-connected=true]")
    assert len(lines) == 2
    wait_for(lambda: len(server.book.get(1).document.prompts[1, 0]) == 2)
    visitor.makes_object(2)
    visitor.click(SECOND.x, SECOND.y)
    visitor.sees(0, 1, 2)
    context.close()


def test_an_old_answer_does_not_undo_what_came_after_it(browser: Any, server: Running) -> None:
    context = browser.new_context()
    page = context.new_page()
    lines: list[Any] = []
    answers: list[tuple[Any, Any]] = []

    def connect(line: Any) -> None:
        lines.append(line)
        if len(lines) == 1:
            line.connect_to_server()

    def hold_second(route: Any) -> None:
        answers.append((route, route.fetch()))
        if len(answers) != 2:
            route.fulfill(response=answers[-1][1])

    def until(condition: Callable[[], bool]) -> None:
        while not condition():
            page.wait_for_timeout(20)

    page.route_web_socket(lambda url: url.endswith("/events"), connect)
    page.route(re.compile(r"/sessions/\d+$"), hold_second)
    visitor = Visitor(page, server.address)
    lines[-1].close()
    until(lambda: len(lines) == 2)
    # What was missed makes the page ask for all there is again once the server is there.
    visitor.click(FIRST.x, FIRST.y)
    until(lambda: bool(server.book.get(1).document.prompts))
    lines[1].connect_to_server()
    until(lambda: len(answers) == 2)
    visitor.click(SECOND.x, SECOND.y)
    page.wait_for_selector("#stage[data-news='1']")
    answers[1][0].fulfill(response=answers[1][1])
    until(lambda: len(answers) == 3)
    visitor.sees(0, 1)
    stored = server.book.get(1).store.shown(1, 0)
    assert stored is not None
    counts = page.evaluate(
        "async () => (await (await fetch('sessions/1/masks?first=0&last=0')).json())[0].masks[0].counts"
    )
    assert counts == stored.counts.decode()
    assert visitor.problems == []
    context.close()


def test_commands_take_effect_in_their_order(visitor: Visitor, server: Running) -> None:
    held: list[Any] = []
    released: list[bool] = []

    def hold(route: Any) -> None:
        if released or route.request.post_data_json["do"] == "prepare":
            route.continue_()
        else:
            held.append(route)

    visitor.page.route("**/commands", hold)
    visitor.click(FIRST.x, FIRST.y)
    visitor.press("f")
    visitor.page.wait_for_timeout(300)
    # Nothing overtakes the click.
    assert [route.request.post_data_json["do"] for route in held] == ["click"]
    released.append(True)
    held[0].continue_()
    visitor.sees(0, 1)
    wait_for(lambda: bool(server.book.get(1).store.of(1).tracked))


def test_tabs_are_sessions_of_their_own_and_a_reload_keeps_its(browser: Any, server: Running) -> None:
    with visiting(browser, server.address) as one, visiting(browser, server.address) as two:
        one.click(FIRST.x, FIRST.y)
        one.sees(0, 1)
        two.makes_object(1)
        two.sees(0)
        assert one.page.url.endswith("?session=1")
        one.reload()
        one.sees(0, 1)
        wait_for(lambda: server.book.get(1).events.num_listeners == 1)  # the page before the reload is gone
        two.page.click("#sessions")
        two.page.wait_for_selector("#sessions-dialog[open]")
        listed = two.page.locator("#session-list li").all_inner_texts()
        assert listed[0].startswith("session 1: 1 objects, 1 tabs")
        assert listed[1].endswith("this one")


def test_masks_are_imported_corrected_and_taken_back(visitor: Visitor, server: Running, tmp_path: Path) -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[20:60, 20:60] = 5
    files = [tmp_path / f"{frame:05d}.png" for frame in (0, 1)]
    for path in files:
        write_label_png(path, labels)
    visitor.page.set_input_files("#import-files", files)
    visitor.is_told("imported masks of 2 frames")
    visitor.sees(0, 5)
    visitor.goes_to(1)
    visitor.sees(1, 5)
    visitor.press("k")
    wait_for(lambda: (5, 1) in server.book.get(1).document.prompts)
    visitor.does("f")
    export(visitor)
    got = exported(server)
    assert list(got) == list(range(NUM_FRAMES))
    np.testing.assert_array_equal(got[0], labels)
    np.testing.assert_array_equal(got[1], labels)


def test_tracking_is_undone_and_redone_as_one_step(visitor: Visitor, server: Running) -> None:
    visitor.click(FIRST.x, FIRST.y)
    visitor.sees(0, 1)
    visitor.makes_object(2)
    visitor.click(SECOND.x, SECOND.y)
    visitor.sees(0, 1, 2)
    visitor.does("f")
    tracked = dict(server.book.get(1).store.objects)
    last = NUM_FRAMES - 1  # where watching has led
    visitor.sees(last, 1, 2)
    visitor.press("z")
    visitor.sees(last)
    assert server.book.get(1).store.frames_of([1, 2]) == [0]
    visitor.goes_to(5)
    visitor.sees(5)
    visitor.press("y")
    visitor.sees(5, 1, 2)
    assert server.book.get(1).store.objects == tracked


def test_doubt_shows_on_the_timeline_and_can_be_jumped_to(
    visitor: Visitor, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor.click(FIRST.x, FIRST.y)
    visitor.sees(0, 1)
    visitor.does("f")
    own = server.book.get(1).store.of(1)
    # What the model is sure of is up to its random weights: the doubt is put there.
    doubted = StoredMask(own.prompted[0].counts, object_score=-2.0, iou=0.9)
    sure = StoredMask(doubted.counts, object_score=9.0, iou=0.9)
    own = replace(own, prompted={0: sure}, tracked=dict.fromkeys(range(1, NUM_FRAMES), sure))
    monkeypatch.setattr(Session, "store", MaskStore({1: own}))
    visitor.reload()
    visitor.press("Home", "l")
    visitor.is_told("no frame with low confidence")
    own = replace(own, tracked={**own.tracked, **dict.fromkeys((3, 4, 7), doubted)})
    monkeypatch.setattr(Session, "store", MaskStore({1: own}))
    visitor.reload()
    # In a row of such frames, the first one is the place to look at; after the last one it begins again.
    for place in ("3", "7", "3"):
        visitor.press("l")
        visitor.page.wait_for_function("place => document.getElementById('scrub').value === place", arg=place)
    assert "confidence 10 %" in visitor.page.locator("#score").inner_text()


def test_an_update_after_a_correction_leaves_the_other_object_alone(visitor: Visitor, server: Running) -> None:
    visitor.click(FIRST.x, FIRST.y)
    visitor.sees(0, 1)
    visitor.makes_object(2)
    visitor.click(SECOND.x, SECOND.y)
    visitor.sees(0, 1, 2)
    visitor.does("f")
    before = server.book.get(1).store.of(2)
    visitor.press("1")
    visitor.goes_to(6)
    visitor.page.keyboard.down("Alt")
    visitor.click(OFF.x, OFF.y)
    visitor.page.keyboard.up("Alt")
    wait_for(lambda: (1, 6) in server.book.get(1).document.prompts)
    assert server.book.get(1).document.prompts[1, 6][-1].positive is False
    visitor.does("u")
    assert server.book.get(1).store.of(2) == before
    assert not server.book.get(1).store.of(1).outdated
    visitor.press("u")
    visitor.is_told("nothing to update")
