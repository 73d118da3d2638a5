"""CVAT's XML for videos: what is read of it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from i2v.annotator.importer import Target, read_masks
from i2v.annotator.masks import decode
from i2v.results.cvat import write_cvat
from i2v.results.instances import Dataset
from i2v.results.rle import encode_mask
from i2v.results.youtube_vis import Track

SIZE = (30, 40)
TARGET = Target(SIZE, 10, 1)


def read(text: str | bytes, name: str = "annotations.xml") -> dict[int, dict[int, np.ndarray]]:
    data = text.encode() if isinstance(text, str) else text
    found = read_masks(name, data, TARGET)
    return {number: {frame: decode(m.counts, SIZE) for frame, m in masks.items()} for number, masks in found.items()}


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


def document(*tracks: str, size: str = "<width>40</width><height>30</height>") -> str:
    meta = f"<meta><task><size>10</size><original_size>{size}</original_size></task></meta>"
    return f'<?xml version="1.0"?><annotations><version>1.1</version>{meta}{"".join(tracks)}</annotations>'


def track(shapes: str, label: str = "cup", more: str = "") -> str:
    return f'<track id="0" label="{label}" {more}>{shapes}</track>'


def polygon(frame: int, points: str = "2,3;12,3;12,9;2,9", more: str = 'outside="0"') -> str:
    return f'<polygon frame="{frame}" {more} keyframe="1" points="{points}"/>'


def test_masks_come_back_pixel_by_pixel(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    ring = box(2, 20, 3, 25) & ~box(6, 10, 8, 15)
    masks = {
        3: {0: box(2, 9, 3, 20), 1: ring, 2: ring | box(25, 28, 30, 38), 6: rng.random(SIZE) < 0.5},
        7: {4: box(0, 30, 0, 40), 5: np.zeros(SIZE, bool), 9: box(29, 30, 39, 40)},
    }
    tracks = [
        Track(number, f'<{number}> & "co"', {frame: encode_mask(mask) for frame, mask in of.items()})
        for number, of in masks.items()
    ]
    dataset = Dataset(SIZE, tuple(range(10)), tuple(t.category for t in tracks))
    path = tmp_path / "cvat.xml"
    write_cvat(path, dataset, "a & b.mp4", 10, tracks)
    found = read(path.read_bytes())
    del masks[7][5]  # an empty mask is none
    assert {number: sorted(of) for number, of in found.items()} == {number: sorted(of) for number, of in masks.items()}
    for number, of in masks.items():
        for frame, mask in of.items():
            np.testing.assert_array_equal(found[number][frame], mask)
    text = path.read_text()
    # Where masks end, CVAT is told so, or it would draw polygons in between.
    assert [f'frame="{f}" keyframe="1" outside="1"' in text for f in (3, 7, 5)] == [True] * 3
    assert text.count('outside="1"') == 3


def test_names_that_xml_cannot_have_are_refused(tmp_path: Path) -> None:
    dataset = Dataset(SIZE, (0,), ("a\x01b",))
    with pytest.raises(ValueError, match="expected no control characters"):
        write_cvat(tmp_path / "cvat.xml", dataset, "video", 1, [])
    assert list(tmp_path.iterdir()) == []


def test_tracks_of_polygons_are_objects_in_their_order() -> None:
    outside = polygon(4, more='outside="1"')
    second = track(polygon(3, "20,20;30,20;30,28;20,28"), "plate")
    found = read(document(track(polygon(3) + outside), second, track(polygon(2, more=""))))
    assert {number: list(of) for number, of in found.items()} == {1: [3], 2: [3], 3: [2]}
    np.testing.assert_array_equal(found[1][3], box(3, 9, 2, 12))
    np.testing.assert_array_equal(found[2][3], box(20, 28, 20, 30))


def test_groups_are_objects_where_all_tracks_have_one() -> None:
    found = read(document(track(polygon(1), more='group_id="9"'), track(polygon(2), more='group_id="9"')))
    assert {number: sorted(of) for number, of in found.items()} == {9: [1, 2]}


def test_masks_are_rows_of_runs_in_a_box() -> None:
    # As CVAT writes them: a track for each mask, whose next frame is outside.
    rle = 'rle="0, 3, 1, 2" left="5" top="7" width="3" height="2"'
    one = track(f'<mask frame="2" outside="0" {rle}/><mask frame="3" outside="1" {rle}/>')
    two = track(f'<mask frame="4" outside="0" {rle}/>')
    plate = track(f'<mask frame="2" outside="0" {rle}/>', "plate")
    found = read(document(one, two, plate))
    assert {number: sorted(of) for number, of in found.items()} == {1: [2, 4], 2: [2]}
    np.testing.assert_array_equal(found[1][2], box(7, 8, 5, 8) | box(8, 9, 6, 8))


BAD = [
    ("<annotations>", "not XML: no element found"),
    ("<html></html>", "expected the annotations of CVAT 1.1 for videos"),
    ('<annotations><image id="0"/></annotations>', "made by CVAT for images, expected CVAT 1.1 for videos"),
    ("<annotations></annotations>", "there is no mask in it"),
    (
        document(track(polygon(3)), size="<width>41</width><height>30</height>"),
        "made for a video of 41x30, expected 40x30",
    ),
    (document(track(polygon(10))), "object 1 on frame 10 is not in the session or not in the video"),
    (document(track(polygon(3) + polygon(3))), "object 1 comes twice on frame 3"),
    (document(track('<box frame="1" xtl="1" ytl="1" xbr="5" ybr="5"/>')), "expected a polygon or a mask, got a box"),
    (document(track(polygon(3, "1,2;3,4"))), "expected a polygon of at least three corners"),
    (document(track(polygon(3, "1,2;3,4;nan,5"))), "expected a polygon of finite numbers"),
    (document(track(polygon(3, "1,2;3,4;x,5"))), "expected a polygon of finite numbers"),
    (document(track('<polygon points="1,2;3,4;5,6"/>')), "the frame of a shape: expected a whole number"),
    (document(track(polygon(1), more='group_id="999"')), "group_id: expected a whole number from 1 to"),
    (document(track('<mask frame="1" rle="5" left="0" top="0" width="2" height="2"/>')), "that fill a box of 2x2"),
    (document(track('<mask frame="1" rle="4" left="39" top="0" width="2" height="2"/>')), "within the frame"),
    (document(track('<mask frame="1" rle="-4" left="0" top="0" width="2" height="2"/>')), "rle: expected a whole"),
    (
        document(track('<mask frame="1" rle="4" left="0" top="0" width="2" height="2"/>'), track(polygon(3))),
        "belong together",
    ),
    (document(track(polygon(3), label="")), "expected a label of 1 to 80 characters"),
    ('<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>', "it declares a document type"),
    ("<annotations>" + "<a>" * 50, "expected the annotations of CVAT"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_what_does_not_fit_is_refused_with_a_sentence(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as failure:
        read(text)
    assert str(failure.value).startswith("annotations.xml")
