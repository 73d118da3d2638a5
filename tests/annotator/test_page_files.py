"""Files out of the page and into it."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotator_support import FIRST, NUM_FRAMES, SECOND, SIZE, Running, until
from export_support import decode as decode_video
from page_support import Visitor
from PIL import Image
from pycocotools.coco import COCO

from i2v.annotator import importer
from i2v.annotator.masks import decode
from i2v.annotator.session_file import save_session, session_pieces
from i2v.results.export import read_label_png, write_label_png
from i2v.results.rle import encode_mask


def square(value: int, left: int = 20) -> np.ndarray:
    labels = np.zeros(SIZE, np.uint8)
    labels[20:60, left : left + 20] = value
    return labels


def import_files(visitor: Visitor, *files: Path) -> None:
    visitor.page.set_input_files("#import-files", [str(file) for file in files])


def test_one_import_is_one_edit_with_empty_frames_and_void(visitor: Visitor, server: Running, tmp_path: Path) -> None:
    files = [tmp_path / f"{frame:05d}.png" for frame in range(4)]
    for frame, path in enumerate(files):
        labels = np.zeros(SIZE, np.uint8) if frame in (0, 2) else square(5, 20 + frame)
        labels[80:90, 80:90] = 255 if frame else 0  # void says nothing of an object
        write_label_png(path, labels)
    import_files(visitor, *files)
    visitor.is_told("imported masks of 2 frames and 1 object from 4 files")
    session = server.book.get(1)
    assert session.document.numbers == (5,)
    assert session.store.frames_of([5]) == [1, 3]
    visitor.makes_object(2)
    assert session.document.numbers == (5, 6)
    visitor.press("z", "z")
    until(lambda: session.document.numbers == ())
    assert session.store.frames_of([5]) == []
    visitor.press("y")
    until(lambda: session.store.frames_of([5]) == [1, 3])


def test_an_import_that_fails_or_is_stopped_changes_nothing(
    visitor: Visitor, server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = tmp_path / "00001.png", tmp_path / "00002.png"
    write_label_png(good, square(5))
    bad.write_bytes(b"no picture")
    import_files(visitor, good, bad)
    visitor.is_told("00002.png: this image cannot be read")  # not "sending 00002.png", which is said before
    visitor.is_done()
    assert server.book.get(1).document.numbers == ()
    empty = tmp_path / "00003.png"
    write_label_png(empty, square(0))
    import_files(visitor, empty)
    visitor.is_told("none of the 1 files marks an object")

    # Stopped in the middle.
    is_free = threading.Event()
    read = importer.read_files

    def slowly(*args: Any) -> Any:
        for reading in read(*args):
            yield reading
            assert is_free.wait(30)

    monkeypatch.setattr(importer, "read_files", slowly)
    import_files(visitor, good)
    visitor.page.wait_for_selector("#progress-text:has-text('importing: 0 of 1, 00001.png')")
    visitor.press("Escape")
    until(lambda: server.book.get(1).work.stopping)
    is_free.set()
    visitor.is_done()
    assert server.book.get(1).document.numbers == ()
    assert server.book.get(1).history.past == ()


def export(visitor: Visitor, first: int | None = None, last: int | None = None) -> None:
    visitor.press("x")
    visitor.page.wait_for_selector("#export-dialog[open]")
    for name, value in (("first", first), ("last", last)):
        if value is not None:
            visitor.page.fill(f"#export-{name}", str(value))
    visitor.page.click("#export-now")


def two_objects(visitor: Visitor) -> None:
    visitor.click(FIRST.x, FIRST.y)
    visitor.press("n")
    visitor.click(SECOND.x, SECOND.y)
    visitor.sees(0, 1, 2)


def test_coco_is_valid_and_the_overlay_covers_the_range(visitor: Visitor, server: Running) -> None:
    two_objects(visitor)
    visitor.press("r")
    visitor.page.keyboard.type("disc")
    visitor.press("Enter")
    visitor.page.wait_for_selector("#objects li:has-text('disc')")
    visitor.goes_to(4)
    visitor.click(FIRST.x, FIRST.y)
    visitor.sees(4, 2)
    export(visitor)
    visitor.is_told("exported to")
    folder = server.out / "export"
    # Two prompted frames out of ten: the overlay shows all ten.
    assert len(decode_video(folder / "overlay.mp4")) == NUM_FRAMES
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "coco.json"))
    assert [(c["id"], c["name"]) for c in coco.loadCats(coco.getCatIds())] == [(1, "object 1"), (2, "disc")]
    assert [image["frame"] for image in coco.loadImgs(sorted(coco.getImgIds()))] == list(range(NUM_FRAMES))
    annotations = coco.loadAnns(coco.getAnnIds())
    assert [(a["image_id"] - 1, a["track_id"]) for a in annotations] == [(0, 1), (0, 2), (4, 2)]
    store = server.book.get(1).store
    for annotation in annotations:
        stored = store.shown(annotation["track_id"], annotation["image_id"] - 1)
        assert stored is not None
        mask = decode(stored.counts, SIZE)
        np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), mask)
        assert annotation["area"] == mask.sum()
    export(visitor, 2, 5)
    until(lambda: len(decode_video(folder / "overlay.mp4")) == 4)
    visitor.is_done()
    assert [path.name for path in (folder / "masks").iterdir()] == ["00004.png"]
    assert len(json.loads((folder / "coco.json").read_text())["images"]) == 4
    export(visitor, 5, 4)
    visitor.is_told("expected a range in 0 to 9, got 5 to 4")


def test_hidden_objects_are_named_and_left_out_on_request(visitor: Visitor, server: Running) -> None:
    two_objects(visitor)
    visitor.press("x")
    assert not visitor.page.locator("#export-hidden").is_visible()
    visitor.press("Escape", "h")
    visitor.sees(0, 1)
    visitor.press("x")
    assert visitor.page.locator("#hidden-names").inner_text() == "object 2"
    visitor.page.click("#export-now")
    visitor.is_told("of 2 objects")
    assert set(np.unique(read_label_png(server.out / "export" / "masks" / "00000.png"))) == {0, 1, 2}
    visitor.press("x")
    visitor.page.uncheck("#with-hidden")
    visitor.page.click("#export-now")
    visitor.is_told("of 1 object")
    assert set(np.unique(read_label_png(server.out / "export" / "masks" / "00000.png"))) == {0, 1}
    masks = json.loads((server.out / "export" / "masks.json").read_text())
    assert [entry["id"] for entry in masks["frames"][0]["objects"]] == [1]


def test_a_key_that_has_to_wait_for_a_job_says_so(
    visitor: Visitor, server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_objects(visitor)
    is_free = threading.Event()
    read = importer.read_files

    def slowly(*args: Any) -> Any:
        assert is_free.wait(30)
        yield from read(*args)

    monkeypatch.setattr(importer, "read_files", slowly)
    write_label_png(tmp_path / "00001.png", square(5))
    import_files(visitor, tmp_path / "00001.png")
    visitor.works()
    for key in ("x", "u"):
        visitor.press(key)
        visitor.is_told("another job is running: wait for it, or stop it with Esc")
        assert not visitor.page.locator("#export-dialog").is_visible()
    is_free.set()
    visitor.is_told("imported masks of 1 frame")
    visitor.press("x")  # what is told is over
    visitor.page.wait_for_selector("#export-dialog[open]")


@pytest.mark.parametrize(
    "kind", ["masks", "masks.json", "coco.json", "yolo", "labelme", "youtube_vis.json", "cvat.xml", "session.json"]
)
def test_what_is_exported_and_saved_can_be_imported(visitor: Visitor, server: Running, kind: str) -> None:
    two_objects(visitor)
    visitor.does("f")
    visitor.press("x")
    visitor.page.check("[data-format=yolo]")
    visitor.page.check("[data-format=labelme]")
    visitor.page.check("[data-format=cvat]")
    visitor.page.click("#export-now")
    visitor.is_told("exported to")
    session = server.book.get(1)
    before = session.store
    source = server.out / "export" / kind
    if kind == "session.json":
        source = server.out / "copy.json"
        save_session(source, session_pieces(session))
    visitor.press("1", "Delete")
    visitor.has_objects(1)
    visitor.press("Delete")
    visitor.page.wait_for_selector("#objects:empty", state="attached")
    files = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.name != "data.yaml")
    import_files(visitor, *files)
    visitor.is_told("imported masks of")
    assert session.document.numbers == (1, 2)
    # Label maps give each pixel to one object; the other files have complete masks.
    labels = {number: number for number in (1, 2)}
    for frame in range(NUM_FRAMES):
        for number in (1, 2):
            wanted = before.shown(number, frame)
            assert wanted is not None
            mask = decode(wanted.counts, SIZE)
            if kind in ("masks", "masks.json"):
                mask = before.label_map(frame, labels, SIZE) == number
            got = session.store.shown(number, frame)
            np.testing.assert_array_equal(got is not None and decode(got.counts, SIZE), mask if got else False)
            assert got is not None or not mask.any()


def test_two_files_with_the_same_mask_are_named(visitor: Visitor, server: Running, tmp_path: Path) -> None:
    one, two = tmp_path / "a_00001.png", tmp_path / "b_00001.png"
    for path in (one, two):
        write_label_png(path, square(5))
    import_files(visitor, one, two)
    visitor.is_told("b_00001.png: object 5 comes twice on frame 1, in a_00001.png, too")
    visitor.is_done()
    assert server.book.get(1).document.numbers == ()


def test_white_is_the_mask_of_the_selected_object(visitor: Visitor, server: Running, tmp_path: Path) -> None:
    Image.fromarray(square(255)).save(tmp_path / "7.png")
    visitor.makes_object(1)
    import_files(visitor, tmp_path / "7.png")
    visitor.is_told("imported masks of 1 frame and 1 object")
    stored = server.book.get(1).store.shown(1, 7)
    assert stored is not None
    assert stored.counts == encode_mask(square(1))
