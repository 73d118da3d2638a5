"""Masks as polygons, and the formats that have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from i2v.results.instances import Dataset, Instance
from i2v.results.label_folders import LabelmeFiles, YoloLabels
from i2v.results.polygons import fill_polygons, joined_polygon, polygons_of
from i2v.results.rle import encode_mask


def masks() -> list[np.ndarray]:
    """Noise of several densities and sizes, with parts that touch at corners, holes, and parts in holes."""
    rng = np.random.default_rng(5)
    found = [
        rng.random((h, w)) < p for p in (0.02, 0.3, 0.5, 0.7, 0.98) for h, w in ((1, 1), (1, 9), (13, 17), (40, 31))
    ]
    nested = np.zeros((20, 24), bool)
    for i, value in enumerate((True, False, True, False)):
        nested[2 * i : 20 - 2 * i, 2 * i : 24 - 2 * i] = value
    return [*found, nested, np.zeros((3, 4), bool), np.ones((3, 4), bool)]


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: f"{mask.shape}-{mask.sum()}")
def test_polygons_fill_to_the_mask(mask: np.ndarray) -> None:
    polygons = polygons_of(mask)
    np.testing.assert_array_equal(fill_polygons(polygons, mask.shape), mask)
    if polygons:
        np.testing.assert_array_equal(fill_polygons([joined_polygon(polygons)], mask.shape), mask)
        # Other tools fill by other rules: COCO's is that of pycocotools.
        rles = coco_mask.frPyObjects([polygon.ravel().tolist() for polygon in polygons], *mask.shape)
        np.testing.assert_array_equal(coco_mask.decode(coco_mask.merge(rles)), mask)
    else:
        assert not mask.any()


def test_parts_that_touch_at_a_corner_are_apart_and_a_hole_is_in_its_part() -> None:
    corner = np.array([[1, 0], [0, 1]], bool)
    assert [polygon.tolist() for polygon in polygons_of(corner)] == [
        [[1, 0], [1, 1], [0, 1], [0, 0]],
        [[2, 1], [2, 2], [1, 2], [1, 1]],
    ]
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    (polygon,) = polygons_of(ring)
    assert len(polygon) == 4 + 1 + 4 + 1 + 1


def test_a_polygon_of_many_edges_is_filled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    corners = np.random.default_rng(3).uniform(-10, 40, (60, 2))
    at_once = fill_polygons([corners], (30, 20))
    monkeypatch.setattr("i2v.results.polygons._CROSSINGS_AT_ONCE", 45)
    np.testing.assert_array_equal(fill_polygons([corners], (30, 20)), at_once)
    # Pixel by pixel: the centre is inside where a ray from it crosses an odd number of edges.
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    for y, x in np.ndindex(30, 20):
        crosses = (y0 > y + 0.5) != (y1 > y + 0.5)
        left = (x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0))[crosses] < x + 0.5
        assert at_once[y, x] == (left.sum() % 2 == 1)


@pytest.mark.parametrize(
    "polygon", [[[0, 0], [1, 1]], [[0, 0], [1, 1], [np.nan, 2]], [[0, 0], [1, 1], [1e300, 2]], [1, 2, 3]]
)
def test_what_is_no_polygon_is_refused(polygon: list) -> None:
    with pytest.raises(ValueError, match="at least three corners"):
        fill_polygons([np.array(polygon, dtype=float)], (4, 4))


def test_a_polygon_off_the_frame_is_clipped() -> None:
    square = np.array([[-5, -5], [2, -5], [2, 100], [-5, 100]], float)
    wanted = np.zeros((4, 6), bool)
    wanted[:, :2] = True
    np.testing.assert_array_equal(fill_polygons([square], (4, 6)), wanted)


def test_yolo_and_labelme_read_back(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:20, 10:30] = True
    mask[8:12, 15:20] = False
    mask[30:35, 50:60] = True
    dataset = Dataset((40, 60), (0, 3), ("plate", "cup"))
    instances = [Instance(7, "cup", encode_mask(mask)), Instance(8, "plate", encode_mask(np.zeros_like(mask)))]
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "00009.txt").write_text("old")
    (tmp_path / "yolo" / "notes.txt").write_text("mine")
    for writer in (YoloLabels(tmp_path / "yolo", dataset), LabelmeFiles(tmp_path / "labelme", dataset)):
        writer.write(3, instances)
        assert writer.num_frames == 1
    assert sorted(path.name for path in (tmp_path / "yolo").iterdir()) == ["00003.txt", "data.yaml", "notes.txt"]
    (line,) = (tmp_path / "yolo" / "00003.txt").read_text().splitlines()
    category, *numbers = line.split()
    assert category == "1"
    corners = np.array(numbers, float).reshape(-1, 2)
    assert corners.min() >= 0 and corners.max() <= 1
    np.testing.assert_array_equal(fill_polygons([corners * (60, 40)], mask.shape), mask)
    assert '0: "plate"\n  1: "cup"' in (tmp_path / "yolo" / "data.yaml").read_text()
    content = json.loads((tmp_path / "labelme" / "00003.json").read_text())
    assert (content["imageHeight"], content["imageWidth"], content["imagePath"]) == (40, 60, "00003.jpg")
    assert {(shape["label"], shape["group_id"]) for shape in content["shapes"]} == {("cup", 7)}
    polygons = [np.array(shape["points"]) for shape in content["shapes"]]
    assert len(polygons) == 2
    np.testing.assert_array_equal(fill_polygons(polygons, mask.shape), mask)
    with pytest.raises(ValueError, match="not in"):
        LabelmeFiles(tmp_path / "labelme", dataset).write(0, [Instance(1, "bowl", encode_mask(mask))])


def test_folders_follow_no_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "00000.txt").write_text("mine")
    (tmp_path / "yolo").symlink_to(elsewhere)
    with pytest.raises(ValueError, match="symbolic link"):
        YoloLabels(tmp_path / "yolo", Dataset((4, 4), (0,), ("a",)))
    assert (elsewhere / "00000.txt").read_text() == "mine"
