"""CVAT, labelme and X-AnyLabeling: requests in their forms, and answers that they read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from serve_support import FIRST, FRAMES, HEIGHT, SECOND, WIDTH, Served, base64_image, mask_of

from i2v.results.polygons import fill_polygons, outlines_of

BOX = [8.0, 10.0, 26.0, 28.0]


def native(served: Served, **marks: Any) -> np.ndarray:
    return mask_of(served.post("/images/segment", image=base64_image(), **marks).json())


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def largest_part(mask: np.ndarray) -> np.ndarray:
    return fill_polygons(outlines_of(mask)[:1], mask.shape)


# What CVAT's lambda manager sends to an interactor: pairs for points, and a box as two pairs, or an empty list.
INTERACTIONS = [
    {"pos_points": [list(FIRST)], "neg_points": [], "obj_bbox": []},
    {"pos_points": [list(FIRST)], "neg_points": [list(SECOND)], "obj_bbox": None},
    {"pos_points": [], "neg_points": [], "obj_bbox": [[26, 28], [8, 10]]},
    {"pos_points": [], "neg_points": [], "obj_bbox": BOX},
]


@pytest.mark.parametrize("interaction", INTERACTIONS, ids=["click", "two clicks", "box", "flat box"])
def test_cvat_gets_the_mask_and_its_outline(served: Served, interaction: dict[str, Any]) -> None:
    answer = served.post("/cvat/interactor", image=base64_image(), threshold=0.5, **interaction)
    assert answer.status_code == 200
    points = [{"x": x, "y": y} for x, y in interaction["pos_points"]]
    points += [{"x": x, "y": y, "positive": False} for x, y in interaction["neg_points"]]
    box = BOX if interaction["obj_bbox"] else None
    mask = np.array(answer.json()["mask"])
    assert mask.shape == (HEIGHT, WIDTH) and set(np.unique(mask)) == {0, 1}
    np.testing.assert_array_equal(mask == 1, native(served, points=points, box=box))
    polygon = np.array(answer.json()["points"])
    assert iou(fill_polygons([polygon], mask.shape), largest_part(mask == 1)) > 0.8


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "expected pos_points, neg_points or obj_bbox"),
        ({"pos_points": [[1, 2, 3]]}, "pos_points.0: "),
        ({"obj_bbox": [[1, 2]]}, "obj_bbox: expected two corners"),
        ({"obj_bbox": [1, 2, 3]}, "obj_bbox: expected two corners"),
        ({"pos_points": [[-5, 2]]}, "is off the frame"),
    ],
)
def test_cvat_is_told_what_is_wrong(served: Served, body: dict[str, Any], reason: str) -> None:
    answer = served.post("/cvat/interactor", image=base64_image(), **body)
    assert answer.status_code == 400 and reason in answer.json()["error"]


def test_labelme_gets_the_contents_of_its_file(served: Served) -> None:
    objects = [
        {"label": "red", "points": [{"x": FIRST[0], "y": FIRST[1]}]},
        {"label": "blue", "points": [{"x": SECOND[0], "y": SECOND[1]}]},
    ]
    answer = served.post("/labelme/annotate", image=base64_image(), name="a.png", objects=objects, tolerance=0)
    content = answer.json()
    assert set(content) == {
        *("version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"),
    }
    assert (content["imagePath"], content["imageHeight"], content["imageWidth"]) == ("a.png", HEIGHT, WIDTH)
    for number, wanted in enumerate(objects, start=1):
        shapes = [shape for shape in content["shapes"] if shape["group_id"] == number]
        assert shapes and all(
            shape["shape_type"] == "polygon" and shape["label"] == wanted["label"] for shape in shapes
        )
        mask = native(served, points=wanted["points"])
        filled = fill_polygons([np.array(shapes[0]["points"])], mask.shape)
        np.testing.assert_array_equal(filled, largest_part(mask))
    boxes = served.post("/labelme/annotate", image=base64_image(), objects=objects[:1], shape_type="rectangle").json()
    rows, columns = np.nonzero(native(served, points=objects[0]["points"]))
    corners = [[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]]
    assert [shape["points"] for shape in boxes["shapes"]] == [corners]
    assert boxes["shapes"][0]["shape_type"] == "rectangle"


def test_x_anylabeling_finds_the_model_and_gets_shapes(served: Served) -> None:
    models = served.client.get("/v1/models").json()
    assert models["success"] is True and list(models["data"]) == ["tiny"]
    # X-AnyLabeling 4.2 shows the buttons that a model names, and no others.
    buttons = {widget["name"] for widget in models["data"]["tiny"]["widgets"]}
    assert {"button_add_point", "button_remove_point", "button_add_rect", "button_finish_object"} <= buttons
    marks = [
        {"type": "point", "data": list(FIRST), "label": 1},
        {"type": "point", "data": list(SECOND), "label": 0},
    ]
    image = "data:image/png;base64," + base64_image()
    answer = served.post("/v1/predict", model="tiny", image=image, params={"marks": marks, "conf_threshold": 0.2})
    assert answer.status_code == 200 and answer.json()["success"] is True
    shape = answer.json()["data"]["shapes"][0]
    assert shape["shape_type"] == "polygon" and shape["label"] == "AUTOLABEL_OBJECT" and 0 <= shape["score"] <= 1
    points = [{"x": FIRST[0], "y": FIRST[1]}, {"x": SECOND[0], "y": SECOND[1], "positive": False}]
    mask = native(served, points=points)
    assert iou(fill_polygons([np.array(shape["points"])], mask.shape), largest_part(mask)) > 0.8
    box = [{"type": "rectangle", "data": [26, 28, 8, 10]}]
    answer = served.post("/v1/predict", model="tiny", image=image, params={"marks": box, "output_mode": "rectangle"})
    rows, columns = np.nonzero(native(served, box=BOX))
    corners = [[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]]
    assert answer.json()["data"]["shapes"][0]["points"] == corners


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({}, "params.marks: Field required"),
        ({"marks": []}, "params.marks: "),
        ({"marks": [{"type": "point", "data": [1, 2, 3]}]}, "expected two numbers for a point"),
        ({"marks": 2 * [{"type": "rectangle", "data": [1, 2, 3, 4]}]}, "expected at most one rectangle"),
        ({"marks": [{"type": "circle", "data": [1, 2]}]}, "params.marks.0.type: "),
    ],
)
def test_x_anylabeling_is_told_what_is_wrong(served: Served, params: dict[str, Any], reason: str) -> None:
    answer = served.post("/v1/predict", model="tiny", image=base64_image(FRAMES[0]), params=params)
    assert answer.status_code == 400 and reason in answer.json()["error"]
