"""A labeller's whole job, by keyboard alone and by mouse alone, with a crash in the middle."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from annotate_command import Command
from annotator_support import FIRST, HEIGHT, NUM_FRAMES, OFF, SECOND, SIZE, WIDTH
from labellers import Labeller, WithKeyboard, WithMouse, output_of
from page_support import visiting
from PIL import Image
from pycocotools.coco import COCO
from support import render_video

from i2v.annotator.masks import decode
from i2v.results.polygons import fill_polygons

CLASSES = ("disc", "ring")
LAST = 5  # of the range


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two videos for each of the two labellers."""
    for name in ("1 keyboard", "2 keyboard", "3 mouse", "4 mouse"):
        folder = tmp_path / "videos" / name
        folder.mkdir(parents=True)
        for frame, picture in enumerate(render_video(NUM_FRAMES, HEIGHT, WIDTH)):
            Image.fromarray(picture).save(folder / f"{frame:03d}.png")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    return tmp_path / "videos"


@pytest.mark.timeout(600)
def test_two_videos_from_the_first_click_to_the_datasets(
    browser: Any, videos: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    line = [videos, "--checkpoint", weights, "--out", out, "--classes", tmp_path / "classes.txt"]
    starts: dict[type[Labeller], str] = {WithKeyboard: "videos/1/", WithMouse: "videos/3/"}
    with Command(*line) as command:
        address = command.address()
        for kind, start in starts.items():
            with visiting(browser, address + start) as guest:
                label(kind(guest, NUM_FRAMES))
        command.process.kill()  # -9
    with Command(*line) as command:
        address = command.address()
        for kind, start in starts.items():
            with visiting(browser, address + start) as guest:
                go_on(kind(guest, NUM_FRAMES))
    for name in ("1 keyboard", "2 keyboard", "3 mouse", "4 mouse"):
        check(*output_of(out, name))
    assert json.loads((out / "queue.json").read_text())["done"] == ["1 keyboard", "3 mouse"]


def label(person: Labeller) -> None:
    """Two objects, tracked over a range, corrected where the model is unsure, accepted; tracking undone and redone."""
    guest, page = person.visitor, person.page
    person.new_object("disc")
    person.clicks(FIRST.x, FIRST.y)
    person.new_object("ring")
    person.boxes(SECOND.x - 10, SECOND.y - 10, SECOND.x + 10, SECOND.y + 10)
    guest.sees(0, 1, 2)
    person.sets_range(0, LAST)
    person.works("track")
    person.goes_to(LAST)
    guest.sees(LAST, 1, 2)
    person.does("low")
    guest.is_told("low confidence in")
    unsure = person.frame
    # What is corrected there changes what comes after it only, and only that of the selected object.
    person.clicks(OFF.x, OFF.y, on_object=False)
    page.wait_for_selector("#undo:not(:disabled)")
    person.works("update")
    person.does("accept")
    page.wait_for_selector("#reviewed:has-text('reviewed')")
    assert 0 <= unsure < NUM_FRAMES
    # Accepted, then tracked again; undo goes back over all of it, and redo forward.
    for _ in range(3):
        person.does("undo")
    page.wait_for_function("() => document.getElementById('reviewed').textContent === ''")
    person.does("undo")
    guest.page.wait_for_selector(f'#stage:not([data-masks="{unsure}:1,2"])')
    for _ in range(4):
        person.does("redo")
    page.wait_for_selector("#reviewed:has-text('reviewed')")
    page.wait_for_selector("#redo:disabled")
    page.wait_for_selector("#saved:has-text('all changes saved in')")


def go_on(person: Labeller) -> None:
    """Everything is there again. Export it, mark the video as done, and do the next one, which is not finished."""
    guest, page = person.visitor, person.page
    guest.is_done()
    page.wait_for_selector("#video-state:has-text('in work')")
    assert page.locator("#objects small").all_inner_texts() == list(CLASSES)
    person.goes_to(LAST)
    guest.sees(LAST, 1, 2)
    page.wait_for_selector("#reviewed:has-text('reviewed')")
    person.exports_with_yolo()
    guest.is_told("exported to")
    person.does("done")
    page.wait_for_selector("#video-state:has-text('done')")
    person.does("next")
    page.wait_for_selector("#video-state:has-text('new')")
    page.wait_for_selector("body[data-connected=true]")
    page.wait_for_selector("#stage[data-frame]")
    person.new_object("ring")
    person.clicks(FIRST.x, FIRST.y)
    person.new_object("disc")
    person.clicks(SECOND.x, SECOND.y)
    guest.sees(0, 1, 2)
    person.works("track")
    person.exports_with_yolo()
    guest.is_told("exported to")
    page.wait_for_selector("#saved:has-text('all changes saved in')")
    page.wait_for_selector("#video-state:has-text('in work')")


def check(session: Path, export: Path) -> None:
    """COCO, read by pycocotools, and YOLO have the session's masks, pixel by pixel, under the right classes."""
    saved = json.loads(session.read_text())
    category = {entry["number"]: entry["category"] for entry in saved["objects"]}
    assert sorted(category.values()) == sorted(CLASSES)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(export / "coco.json"))
    names = yaml.safe_load((export / "yolo" / "data.yaml").read_text())["names"]
    assert len(saved["masks"]) > LAST
    num_compared = 0
    for entry in saved["masks"]:
        wanted = {e["id"]: decode(e["segmentation"]["counts"].encode(), SIZE) for e in entry["objects"]}
        wanted = {category[number]: mask for number, mask in wanted.items() if mask.any()}
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[entry["frame"] + 1]))
        found = {coco.cats[a["category_id"]]["name"]: coco.annToMask(a).astype(bool) for a in annotations}
        assert found.keys() == wanted.keys()
        lines = (export / "yolo" / f"{entry['frame']:05d}.txt").read_text().splitlines()
        polygons = {names[int(line.split()[0])]: np.array(line.split()[1:], float).reshape(-1, 2) for line in lines}
        assert polygons.keys() == wanted.keys()
        for name, mask in wanted.items():
            np.testing.assert_array_equal(found[name], mask)
            np.testing.assert_array_equal(fill_polygons([polygons[name] * SIZE[::-1]], SIZE), mask)
            num_compared += 1
    assert num_compared > LAST
