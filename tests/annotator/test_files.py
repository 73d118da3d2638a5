"""Session files, exports and imports."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotator_support import (
    FIRST,
    HEIGHT,
    NUM_FRAMES,
    OFF,
    SECOND,
    SIZE,
    WIDTH,
    add,
    assert_same,
    expect,
    in_session,
    masks_of,
    tracked,
)
from export_support import decode as decode_video
from PIL import Image, ImageFilter
from pycocotools import mask as coco_mask
from pydantic import TypeAdapter

from i2v.annotator.document import Paint
from i2v.annotator.exporter import NAMES, Export, ExportRequest
from i2v.annotator.footage import VideoFootage
from i2v.annotator.importer import Target, read_masks
from i2v.annotator.masks import StoredMask, decode
from i2v.annotator.session import Session
from i2v.annotator.session_file import MaskEntry, read_session, save_session, session_pieces
from i2v.results.export import label_map, read_label_png
from i2v.results.overlay import PALETTE
from i2v.results.rle import encode_mask


async def worked(session: Session) -> None:
    await session.prompt(None, 2, FIRST)
    await session.prompt(None, 2, SECOND)
    await tracked(session)
    await session.prompt(1, 6, OFF)
    await session.edit(lambda document: document.renamed(2, "blue disc"))
    await session.edit(lambda document: document.shown(2, False))


def test_a_session_comes_back_from_its_file(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "session.json"

    async def first(session: Session) -> Any:
        await worked(session)
        save_session(path, session_pieces(session))
        return masks_of(session, 1), masks_of(session, 2), session.document

    async def second(session: Session) -> Any:
        saved = read_session(path, session.footage)
        await session.restore(saved.document, saved.masks)
        assert session.document.hidden == {2}
        assert not session.history.past
        found = masks_of(session, 1), masks_of(session, 2), session.document
        scores = [session.store.shown(1, frame) for frame in range(NUM_FRAMES)]
        assert all(mask is not None and mask.confidence is not None for mask in scores)
        # What was tracked is known to the file alone: a click starts from it.
        await session.prompt(2, 8, OFF)
        assert [type(step).__name__ for step in session.document.prompts[2, 8]] == ["Paint", "Click"]
        await session.undo()
        await tracked(session)
        return found, masks_of(session, 2)

    *masks, document = in_session(clip, first)
    (ones, twos, restored), again = in_session(clip, second)
    assert_same(ones, masks[0])
    assert_same(twos, masks[1])
    assert restored.objects == document.objects
    assert restored.next_number == document.next_number
    assert restored.prompts[1, 2] == (FIRST,)
    # A correction of what had been tracked is kept as the mask that it led to.
    assert restored.prompts[1, 6] == (Paint(encode_mask(masks[0][6])),)
    assert_same(again, masks[1])
    assert [entry.name for entry in path.parent.iterdir()] == ["session.json"]


def test_the_masks_of_a_session_file_are_coco(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "session.json"

    async def scenario(session: Session) -> Any:
        await worked(session)
        save_session(path, session_pieces(session))
        return masks_of(session, 2)

    wanted = in_session(clip, scenario)
    saved = json.loads(path.read_text())
    assert saved["video"] == {"name": "clip", "width": WIDTH, "height": HEIGHT, "frames": NUM_FRAMES}
    assert [entry["frame"] for entry in saved["masks"]] == list(range(NUM_FRAMES))
    for entry in saved["masks"]:
        by_id = {mask["id"]: coco_mask.decode(mask["segmentation"]).astype(bool) for mask in entry["objects"]}
        np.testing.assert_array_equal(by_id[2], wanted[entry["frame"]])


def minimal(**changes: Any) -> dict[str, Any]:
    video = {"name": "clip", "width": WIDTH, "height": HEIGHT, "frames": NUM_FRAMES}
    empty: dict[str, Any] = {"objects": [{"number": 1, "name": "a"}], "prompts": [], "masks": []}
    return {"format": "i2v-session", "version": 1, "video": video, "next_number": 2, **empty, **changes}


FULL = {"size": list(SIZE), "counts": encode_mask(np.ones(SIZE, bool)).decode()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a session file"),
        ("[" * 100_000, "more than 32 levels of nesting"),
        (json.dumps({"format": "other"}), "not a session file: format"),
        (json.dumps(minimal(version=2)), "version"),
        (json.dumps(minimal(video={"name": "x", "width": 5, "height": 5, "frames": 3})), "made for x, 5x5"),
        (json.dumps(minimal(objects=[{"number": 1, "name": "a"}] * 2)), "two objects"),
        (json.dumps(minimal(objects=[{"number": 999, "name": "a"}])), "objects.0.number"),
        (json.dumps(minimal(prompts=[{"object": 5, "frame": 0, "steps": [{"box": [1, 2, 3, 4]}]}])), "object 5"),
        (json.dumps(minimal(prompts=[{"object": 1, "frame": 0, "steps": [{}]}])), "a click, a box or a mask"),
        (json.dumps(minimal(prompts=[{"object": 1, "frame": 0, "steps": []}])), "prompts.0.steps"),
        (json.dumps(minimal(masks=[{"frame": 99, "objects": [{"id": 1, "segmentation": FULL}]}])), "frame 99"),
        (
            json.dumps(minimal(masks=[{"frame": 0, "objects": [{"id": 1, "segmentation": {**FULL, "counts": "0"}}]}])),
            "cover 128x96 pixels",
        ),
        (
            json.dumps(minimal(masks=[{"frame": 0, "objects": [{"id": 1, "segmentation": {**FULL, "size": [9, 9]}}]}])),
            "9x9, expected 128x96",
        ),
    ],
)
def test_a_damaged_session_file_is_named(clip: Path, tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "session.json"
    path.write_text(content)
    footage = VideoFootage(clip)
    with pytest.raises(ValueError, match=r"session\.json: ") as caught:
        read_session(path, footage)
    assert message in str(caught.value)


PNG = ExportRequest(frozenset({"png"}))


def run_export(session: Session, folder: Path, *formats: Any, **options: Any) -> Export:
    export = Export(session, folder, ExportRequest(frozenset(formats), **options))
    assert list(export.steps()) == list(range(1, len(export.frames) + 1))
    return export


def test_exports_equal_what_the_predictor_gives(clip: Path, tmp_path: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 2, FIRST)
        await session.prompt(None, 2, SECOND)
        await session.edit(lambda document: document.renamed(2, "disc"))
        await tracked(session)
        export = run_export(session, tmp_path, *NAMES)
        assert export.names() == list(NAMES.values())

    def script(predictor: Any, state: Any) -> None:
        add(predictor, state, 2, 1, FIRST)
        add(predictor, state, 2, 2, SECOND)
        for reverse in (False, True):
            for frame, numbers, logits in predictor.propagate_in_video(state, 2, reverse=reverse):
                labels[frame] = label_map(logits, numbers)

    labels: dict[int, np.ndarray] = {}
    in_session(clip, scenario)
    wanted = expect(clip, script, (2, False), (2, True))
    # The two masks overlap somewhere, or this would not show who gets contested pixels.
    assert any((wanted[1][frame] & wanted[2][frame]).any() for frame in labels)
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [f"{t:05d}.png" for t in range(NUM_FRAMES)]
    records = json.loads((tmp_path / "masks.json").read_text())["frames"]
    for frame, record in zip(range(NUM_FRAMES), records, strict=True):
        png = read_label_png(tmp_path / "masks" / f"{frame:05d}.png")
        np.testing.assert_array_equal(png, labels[frame])
        for entry in record["objects"]:
            np.testing.assert_array_equal(coco_mask.decode(entry["segmentation"]), png == entry["id"])
            assert entry["object_score"] is not None
    check_youtube_vis(tmp_path / "youtube_vis.json", wanted)
    pictures = decode_video(tmp_path / "overlay.mp4")
    assert len(pictures) == NUM_FRAMES
    assert pictures[0].shape == (HEIGHT, WIDTH, 3)


def check_youtube_vis(path: Path, wanted: dict[int, dict[int, np.ndarray]]) -> None:
    vis = json.loads(path.read_text())
    assert [(video["id"], video["length"], video["width"]) for video in vis["videos"]] == [(1, NUM_FRAMES, WIDTH)]
    names = {category["id"]: category["name"] for category in vis["categories"]}
    assert [names[entry["category_id"]] for entry in vis["annotations"]] == ["object 1", "disc"]
    for entry in vis["annotations"]:
        assert len(entry["segmentations"]) == len(entry["bboxes"]) == len(entry["areas"]) == NUM_FRAMES
        for frame, (rle, area) in enumerate(zip(entry["segmentations"], entry["areas"], strict=True)):
            mask = wanted[entry["id"]][frame]
            assert (rle is None) == (area is None) == (not mask.any())
            if rle is not None:
                np.testing.assert_array_equal(coco_mask.decode(rle).astype(bool), mask)
                assert area == mask.sum()


def test_an_export_replaces_the_one_before_and_leaves_other_files(clip: Path, tmp_path: Path) -> None:
    mine = tmp_path / "masks" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    (mine.parent / "00099.png").write_bytes(b"old")

    async def scenario(session: Session) -> None:
        with pytest.raises(ValueError, match="no mask to export"):
            Export(session, tmp_path, PNG)
        await session.prompt(None, 2, FIRST)
        with pytest.raises(ValueError, match="at least one format"):
            Export(session, tmp_path, ExportRequest(frozenset()))
        export = Export(session, tmp_path, PNG)
        # What changes while files are written belongs to the next export.
        await session.prompt(None, 4, FIRST)
        list(export.steps())

    in_session(clip, scenario)
    assert sorted(path.name for path in mine.parent.iterdir()) == ["00002.png", "notes.txt"]


@pytest.mark.parametrize("place", ["", "masks", "masks/00002.png"])
def test_an_export_follows_no_link(clip: Path, tmp_path: Path, place: str) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    (elsewhere / "00002.png").write_bytes(b"mine")
    link = out / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere / "00002.png" if place.endswith(".png") else elsewhere)

    async def scenario(session: Session) -> None:
        await session.prompt(None, 2, FIRST)
        with pytest.raises(ValueError, match=r"is a symbolic link to|is in the way of results"):
            list(Export(session, out, PNG).steps())

    in_session(clip, scenario)
    assert [path.name for path in elsewhere.iterdir()] == ["00002.png"]
    assert (elsewhere / "00002.png").read_bytes() == b"mine"


def png(array: np.ndarray, palette: bool = False) -> bytes:
    image = Image.fromarray(array)
    if palette:
        image.putpalette(PALETTE.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_masks_come_in_as_label_maps_as_single_masks_and_as_json(clip: Path, tmp_path: Path) -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[10:20, 10:30], labels[40:60, 50:90] = 2, 7
    masks = read_masks("video_00004.png", png(labels, palette=True), Target(SIZE, NUM_FRAMES, 3))
    assert {number: list(frames) for number, frames in masks.items()} == {2: [4], 7: [4]}
    np.testing.assert_array_equal(decode(masks[7][4].counts, SIZE), labels == 7)

    soft = np.asarray(Image.fromarray((labels > 0).astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(2)))
    levels = read_masks("5.png", png(soft), Target(SIZE, NUM_FRAMES, 3))
    assert list(levels) == [3]
    np.testing.assert_array_equal(decode(levels[3][5].counts, SIZE), soft >= 128)
    single = read_masks("5.PNG", png((labels > 0).astype(np.uint8) * 255), Target(SIZE, NUM_FRAMES, 3))
    np.testing.assert_array_equal(decode(single[3][5].counts, SIZE), labels > 0)

    async def scenario(session: Session) -> None:
        await session.bring_in(masks)
        run_export(session, tmp_path, "masks")

    in_session(clip, scenario)
    again = read_masks("masks.json", (tmp_path / "masks.json").read_bytes(), Target(SIZE, NUM_FRAMES, 1))
    assert again == {number: {f: replace(m) for f, m in frames.items()} for number, frames in masks.items()}


def bomb() -> bytes:
    """A small file that unpacks to 400 million pixels."""
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    return buffer.getvalue()


def masks_json(*places: tuple[int, int], **changes: Any) -> bytes:
    """A mask on each of the places (frame, object)."""
    entries = [
        {"frame": frame, "objects": [{"id": number, "segmentation": FULL | changes}]} for frame, number in places
    ]
    return json.dumps({"frames": entries}).encode()


def coco(copies: int = 2, **changes: Any) -> bytes:
    """Annotations of one category on an image."""
    annotation = {"image_id": 4, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9]], **changes}
    content = {"images": [{"id": 4, "file_name": "3.jpg"}], "categories": [{"id": 1, "name": "cup"}]}
    return json.dumps({**content, "annotations": [annotation] * copies}).encode()


def labelme(**changes: Any) -> bytes:
    """A triangle."""
    shape = {"label": "cup", "points": [[0, 0], [9, 0], [9, 9]], "group_id": 3, "shape_type": "polygon", **changes}
    return json.dumps({"imagePath": "1.jpg", "shapes": [shape]}).encode()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.png", png(np.ones(SIZE, np.uint8)), "the number of its frame"),
        ("1.png", b"no picture", "cannot be read"),
        ("1.png", png(np.ones((5, 5), np.uint8)), "the image is 5x5, expected 128x96"),
        ("1.png", png(np.ones((*SIZE, 3), np.uint8)), "got mode RGB"),
        ("1.png", bomb(), "1.png"),
        ("1.gif", b"", "expected masks as PNG, JSON, YOLO's TXT or CVAT's XML"),
        ("1.txt", b"0 0.1 0.2", "line 1: expected a category from 0 and at least three corners"),
        ("1.txt", b"0 0 0 1 0 1 2", "line 1: expected a category from 0 and at least three corners in 0..1"),
        ("1.txt", b"cup 0 0 1 0 1 1", "line 1: expected a category and the corners"),
        ("1.txt", b"0 0 0 1 0 1 nan", "line 1"),
        ("1.txt", b"0 0 0 1 0 1 1\n0 0 0 1 0 1 1", "object 1 comes twice on frame 1"),
        ("99.txt", b"0 0 0 1 0 1 1", "not in the video"),
        ("1.json", coco(), "image 4 has several annotations of category 1, and no track_id"),
        ("1.json", coco(1, image_id=5), "there is no such image"),
        ("1.json", coco(1, segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "expected pairs of numbers"),
        ("1.json", coco(1, segmentation=[[1, 2, 3]]), "segmentation"),
        ("1.json", labelme(shape_type="circle"), "expected polygons, got a 'circle'"),
        ("1.json", labelme(group_id=None), "expected the number of its object as group_id"),
        ("1.json", labelme(points=[[0, 0], [1, 1]]), "expected at least three corners"),
        ("1.json", b"{}", "not a file of masks: frames"),
        ("1.json", b'{"frames":[]}', "no mask in it"),
        ("1.json", b"[" * 200_000, "more than 32 levels of nesting"),
        ("1.json", b'{"frames":[{"frame":-1,"objects":[]}]}', "frames.0.frame"),
        ("1.json", masks_json((0, 1), (0, 1)), "object 1 comes twice on frame 0"),
        ("1.json", masks_json((NUM_FRAMES, 1)), "object 1 on frame 10 is not in the session or not in the video"),
        ("1.json", masks_json((0, 256)), "frames.0.objects.0.id"),
        ("1.json", masks_json((0, 1), counts="01"), "the run lengths of a mask: expected them to cover 128x96 pixels"),
        ("1.json", masks_json((0, 1), size=[10**9, 10**9]), "a mask is 1000000000x1000000000, expected 128x96"),
        ("99.png", png(np.ones(SIZE, np.uint8)), "object 1 on frame 99 is not in the session or not in the video"),
    ],
)
def test_what_is_no_mask_is_refused_by_name(name: str, data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        read_masks(name, data, Target(SIZE, NUM_FRAMES, 1))
    assert message in str(caught.value)


def test_imported_masks_off_the_video_are_refused(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        mask = StoredMask(encode_mask(np.ones(SIZE, bool)))
        with pytest.raises(ValueError, match="frame 10 is not in the video"):
            await session.bring_in({1: {NUM_FRAMES: mask}})
        assert session.document.objects == ()

    in_session(clip, scenario)


def test_scores_of_older_files_are_read() -> None:
    entry = {"id": 1, "segmentation": {"size": [2, 2], "counts": "04"}, "presence": 2.5, "iou": 0.5}
    for given in (entry, {"object_score" if key == "presence" else key: value for key, value in entry.items()}):
        read = TypeAdapter(MaskEntry).validate_python(given)
        assert (read.object_score, read.iou) == (2.5, 0.5)
