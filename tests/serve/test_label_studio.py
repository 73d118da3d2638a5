"""Label Studio: its requests, and results in the form in which it stores regions."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from serve_support import FIRST, HEIGHT, NUM_FRAMES, SECOND, WIDTH, Served, base64_image, decode_brush, mask_of

from i2v.results.polygons import fill_polygons
from i2v.serve.brush_rle import encode_brush
from i2v.serve.label_config import LabelConfig
from i2v.serve.label_studio_regions import box_in_pixels

IMAGE_CONFIG = """
<View>
  <Image name="image" value="$image" zoom="true"/>
  <KeyPointLabels name="points" toName="image" smart="true"><Label value="Disc"/><Label value="Other"/></KeyPointLabels>
  <RectangleLabels name="boxes" toName="image" smart="true"><Label value="Disc"/></RectangleLabels>
  {controls}
</View>
"""
BRUSH = '<BrushLabels name="brush" toName="image"><Label value="Disc"/><Label value="Other"/></BrushLabels>'
POLYGON = '<PolygonLabels name="polygon" toName="image"><Label value="Disc"/></PolygonLabels>'
VIDEO_CONFIG = """
<View>
  <Labels name="labels" toName="video"><Label value="Disc"/></Labels>
  <Video name="video" value="$video" framerate="25.0"/>
  <VideoRectangle name="box" toName="video"/>
</View>
"""


def key_point(place: Any, label: str = "Disc", is_positive: int = 1) -> dict[str, Any]:
    return {
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {"x": 100 * place[0] / WIDTH, "y": 100 * place[1] / HEIGHT, "width": 0.3, "keypointlabels": [label]},
        "is_positive": bool(is_positive),
        "id": "fBWv1t0S2L",
        "from_name": "points",
        "to_name": "image",
        "type": "keypointlabels",
        "origin": "manual",
    }


def rectangle(x0: float, y0: float, x1: float, y1: float) -> dict[str, Any]:
    place = {"x": 100 * x0 / WIDTH, "y": 100 * y0 / HEIGHT}
    size = {"width": 100 * (x1 - x0) / WIDTH, "height": 100 * (y1 - y0) / HEIGHT}
    value = {**place, **size, "rotation": 0, "rectanglelabels": ["Disc"]}
    return {"value": value, "id": "q", "from_name": "boxes", "to_name": "image", "type": "rectanglelabels"}


def predict(served: Served, config: str, data: dict[str, Any], marked: list[dict[str, Any]] | None) -> Any:
    """What Label Studio sends when a user has marked something; without marks, when it asks for all tasks."""
    context = None if marked is None else {"result": marked}
    return served.post(
        "/predict",
        tasks=[{"id": 5, "data": data, "annotations": [], "predictions": [], "project": 1}],
        model_version="tiny",
        project="1.1732700000",
        label_config=config,
        params={"login": None, "password": None, "context": context},
    )


def only_result(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    (prediction,) = answer.json()["results"]
    assert prediction["model_version"] == "tiny" and 0 <= prediction["score"] <= 1
    (result,) = prediction["result"]
    return dict(result)


def test_a_project_connects(served: Served) -> None:
    config = IMAGE_CONFIG.format(controls=BRUSH)
    body = {"project": "1.1732700000", "schema": config, "hostname": "http://localhost:8080", "access_token": "abc"}
    assert served.post("/setup", **body).json() == {"model_version": "tiny"}
    assert served.client.get("/health").json()["status"] == "UP"


def test_clicks_give_a_brush_mask(served: Served) -> None:
    config = IMAGE_CONFIG.format(controls=BRUSH + POLYGON)
    relation = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    marked = [key_point(FIRST), key_point(SECOND, is_positive=0), relation]
    result = only_result(predict(served, config, {"image": "photo.png"}, marked))
    assert (result["from_name"], result["to_name"], result["type"]) == ("brush", "image", "brushlabels")
    assert (result["original_width"], result["original_height"]) == (WIDTH, HEIGHT)
    assert result["value"]["brushlabels"] == ["Disc"] and result["value"]["format"] == "rle"
    values = decode_brush(result["value"]["rle"]).reshape(HEIGHT, WIDTH, 4)
    points = [{"x": FIRST[0], "y": FIRST[1]}, {"x": SECOND[0], "y": SECOND[1], "positive": False}]
    expected = mask_of(served.post("/images/segment", path="photo.png", points=points).json())
    np.testing.assert_array_equal(values, np.repeat(expected[:, :, None] * 255, 4, axis=2))
    assert expected.any()


def test_a_rectangle_gives_polygons_where_the_project_has_those(served: Served) -> None:
    config = IMAGE_CONFIG.format(controls=POLYGON)
    answer = predict(served, config, {"image": "photo.png"}, [rectangle(8, 10, 26, 28)])
    results = answer.json()["results"][0]["result"]
    assert {result["type"] for result in results} == {"polygonlabels"}
    polygons = [np.array(result["value"]["points"]) * (WIDTH / 100, HEIGHT / 100) for result in results]
    expected = mask_of(served.post("/images/segment", path="photo.png", box=[8, 10, 26, 28]).json())
    filled = fill_polygons(polygons, (HEIGHT, WIDTH))
    assert (filled & expected).sum() / (filled | expected).sum() > 0.8
    assert all(result["value"]["closed"] and result["value"]["polygonlabels"] == ["Disc"] for result in results)


def test_a_click_gives_a_rectangle_where_there_is_nothing_else(served: Served) -> None:
    result = only_result(predict(served, IMAGE_CONFIG.format(controls=""), {"image": "photo.png"}, [key_point(FIRST)]))
    answer = served.post("/images/segment", path="photo.png", points=[{"x": FIRST[0], "y": FIRST[1]}]).json()
    value = result["value"]
    x0, y0, x1, y1 = answer["box"]
    assert result["type"] == "rectanglelabels"
    assert value["x"] * WIDTH / 100 == pytest.approx(x0) and value["width"] * WIDTH / 100 == pytest.approx(x1 - x0)
    assert value["y"] * HEIGHT / 100 == pytest.approx(y0) and value["height"] * HEIGHT / 100 == pytest.approx(y1 - y0)


def test_rectangles_in_a_video_are_tracked_on(served: Served) -> None:
    place = {"x": 12.5, "y": 20.8, "width": 28.1, "height": 37.5, "rotation": 0}
    keys = [{"frame": 2, "enabled": True, "time": 0.04, **place}, {"frame": 1, "enabled": False, "time": 0, **place}]
    region = {
        "value": {"framesCount": NUM_FRAMES, "duration": 0.24, "sequence": keys, "labels": ["Disc"]},
        "id": "KQ3x8bW1vz",
        "from_name": "box",
        "to_name": "video",
        "type": "videorectangle",
        "origin": "manual",
    }
    result = only_result(predict(served, VIDEO_CONFIG, {"video": "clip"}, [region]))
    assert (result["type"], result["from_name"], result["to_name"]) == ("videorectangle", "box", "video")
    assert result["id"] == "KQ3x8bW1vz" and result["value"]["labels"] == ["Disc"]
    assert result["value"]["framesCount"] == NUM_FRAMES
    sequence = result["value"]["sequence"]
    assert [key["frame"] for key in sequence] == list(range(1, NUM_FRAMES + 1))
    assert not sequence[0]["enabled"] and {k: sequence[1][k] for k in place} == place
    session = served.open()
    box = [12.5 * WIDTH / 100, 20.8 * HEIGHT / 100, 40.6 * WIDTH / 100, 58.3 * HEIGHT / 100]
    served.post(f"/sessions/{session}/prompts", object=1, frame=1, box=box)
    for line in served.track(session, start=2)[:-1]:
        (mask,) = line["masks"]
        key = sequence[line["frame"]]
        assert key["enabled"] == (mask["box"] is not None)
        if mask["box"] is not None:
            shown = [key["x"] * WIDTH / 100, key["y"] * HEIGHT / 100]
            assert shown == pytest.approx(mask["box"][:2])
    served.client.delete(f"/sessions/{session}")
    assert not served.service.sessions.all()


def test_without_marks_nothing_is_predicted(served: Served) -> None:
    answer = predict(served, IMAGE_CONFIG.format(controls=BRUSH), {"image": "photo.png"}, None)
    assert answer.json() == {"results": [{"model_version": "tiny", "score": 0.0, "result": []}]}


@pytest.mark.parametrize(
    "source",
    [
        "/data/upload/1/mine%20photo.png",
        "http://localhost:8080/data/upload/1/mine%20photo.png",
        "/data/local-files/?d=photo.png",
        "photo.png",
        "data:image/png;base64," + base64_image(),
    ],
)
def test_images_are_found_where_label_studio_has_them(served: Served, source: str) -> None:
    (served.root / "upload" / "1").mkdir(parents=True, exist_ok=True)
    shutil.copy(served.root / "photo.png", served.root / "upload" / "1" / "mine photo.png")
    answer = predict(served, IMAGE_CONFIG.format(controls=BRUSH), {"image": source}, [key_point(FIRST)])
    assert only_result(answer)["type"] == "brushlabels"


@pytest.mark.parametrize(
    ("source", "status", "reason"),
    [
        ("http://169.254.169.254/latest", 400, "nothing is fetched from other machines"),
        ("s3://bucket/key.png", 400, "nothing is fetched"),
        ("file:///etc/passwd", 404, "below the folders"),
        ("/data/upload/../../secret.png", 404, "below the folders"),
        ("/data/local-files/?d=../secret.png", 404, "below the folders"),
        ("", 400, "expected a text as 'image'"),
        ("clip/1.txt", 404, "below the folders"),
    ],
)
def test_nothing_else_is_read_or_fetched(served: Served, source: str, status: int, reason: str) -> None:
    answer = predict(served, IMAGE_CONFIG.format(controls=BRUSH), {"image": source}, [key_point(FIRST)])
    assert answer.status_code == status and reason in answer.json()["error"]


BOMB = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><View>&c;</View>'


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("<View>", "expected a labelling configuration in XML"),
        (BOMB, "without declarations"),
        ("<View/>", "expected one of BrushLabels"),
        ('<View><Brush name="a" toName="nothing"/></View>', "expected one of BrushLabels"),
        ('<View><Video name="v" value="$video"/></View>', "expected a VideoRectangle"),
    ],
)
def test_a_wrong_configuration_is_told(served: Served, config: str, reason: str) -> None:
    answer = predict(served, config, {"image": "photo.png"}, [key_point(FIRST)])
    assert answer.status_code == 400 and reason in answer.json()["error"]


def test_marks_off_the_image_are_told(served: Served) -> None:
    marked = [key_point((WIDTH * 1e5, 1))]
    for place in marked, [key_point((WIDTH + 5, 1))]:
        answer = predict(served, IMAGE_CONFIG.format(controls=BRUSH), {"image": "photo.png"}, place)
        assert answer.status_code == 400 and "\n" not in answer.json()["error"]


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (300, 400)])
def test_brush_run_lengths_are_exact(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    for mask in (np.zeros(size, bool), np.ones(size, bool), generator.random(size) < 0.01):
        values = decode_brush(encode_brush(mask)).reshape(*size, 4)
        np.testing.assert_array_equal(values, np.repeat(mask[:, :, None] * 255, 4, axis=2))


def test_the_tool_with_the_label_is_chosen() -> None:
    other = '<BrushLabels name="second" toName="image"><Label value="Cat"/></BrushLabels>'
    config = LabelConfig.parse(IMAGE_CONFIG.format(controls=BRUSH + other))
    assert config.image_control("Cat").name == "second"
    assert config.image_control("Disc").name == "brush" and config.image_control(None).name == "brush"


def test_rotated_rectangles_are_boxed() -> None:
    # A quarter turn clockwise around the upper left corner: the box lies to the left of it.
    box = box_in_pixels(50, 10, 20, 10, 90, (100, 200))
    assert box == pytest.approx((90, 10, 100, 50))
    assert box_in_pixels(50, 10, 20, 10, 0, (100, 200)) == pytest.approx((100, 10, 140, 20))
