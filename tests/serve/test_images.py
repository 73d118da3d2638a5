"""Single images: as the image predictor answers, from base64, data URIs and files."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from serve_support import FIRST, FRAMES, HEIGHT, WIDTH, Served, base64_image, mask_of, tiny

from i2v.serve.images import image_predictor_of
from i2v.serve.pictures import decode_picture

POINT = [{"x": FIRST[0], "y": FIRST[1]}]
BOX = [8.0, 10.0, 26.0, 28.0]


def test_an_image_is_answered_as_by_the_predictor(served: Served) -> None:
    predictor = image_predictor_of(tiny())
    predictor.set_image(FRAMES[0])
    masks, ious, _ = predictor.predict([FIRST], [1])
    best = int(ious.argmax())
    for given in ({"path": "photo.png"}, {"image": base64_image()}):
        answer = served.post("/images/segment", points=POINT, **given)
        assert answer.status_code == 200
        np.testing.assert_array_equal(mask_of(answer.json()), masks[best])
        assert answer.json()["iou"] == pytest.approx(ious[best], abs=1e-4)
    assert masks[best].any()
    single, _, _ = predictor.predict(box=BOX, multimask_output=False)
    answer = served.post("/images/segment", box=BOX, image="data:image/png;base64," + base64_image())
    np.testing.assert_array_equal(mask_of(answer.json()), single[0])


def test_images_in_turn_are_not_mixed_up(served: Served) -> None:
    def segment(picture: np.ndarray) -> np.ndarray:
        return mask_of(served.post("/images/segment", points=POINT, image=base64_image(picture)).json())

    first, mirrored, again = (segment(p) for p in (FRAMES[0], FRAMES[0][:, ::-1].copy(), FRAMES[0]))
    np.testing.assert_array_equal(first, again)
    assert (first != mirrored).any()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"points": POINT}, "expected either image or path"),
        ({"image": "aGk=", "path": "photo.png", "points": POINT}, "expected either image or path"),
        ({"path": "photo.png"}, "expected points, a box or both"),
        ({"image": "not base64", "points": POINT}, "image: expected an image file in base64"),
        ({"image": "aGk=", "points": POINT}, "image: this image cannot be read"),
        ({"path": "clip", "points": POINT}, "this is a folder, expected a file"),
        ({"path": "photo.png", "points": [{"x": 1e6, "y": 0}]}, "is off the frame"),
        ({"path": "photo.png", "box": [1, 2, 3]}, "box: "),
        ({"path": "photo.png", "points": [{"x": 1, "y": "2"}]}, "points.0.y: "),
    ],
)
def test_a_wrong_request_is_refused_in_one_sentence(served: Served, body: dict, reason: str) -> None:
    answer = served.post("/images/segment", **body)
    assert answer.status_code == 400
    assert reason in answer.json()["error"] and "\n" not in answer.json()["error"]


def test_an_image_that_claims_to_be_gigantic_is_refused(served: Served) -> None:
    buffer = io.BytesIO()
    Image.new("1", (6_000, 6_000)).save(buffer, format="PNG")
    answer = served.post("/images/segment", image=base64.b64encode(buffer.getvalue()).decode(), points=POINT)
    assert answer.status_code == 400 and "a picture of 6000x6000 pixels" in answer.json()["error"]


def test_labelling_tools_see_images_upright() -> None:
    image = Image.fromarray(FRAMES[0])
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", exif=exif)
    text = base64.b64encode(buffer.getvalue()).decode()
    np.testing.assert_array_equal(decode_picture(text), FRAMES[0])
    assert decode_picture(text, upright=True).shape == (WIDTH, HEIGHT, 3)
    np.testing.assert_array_equal(decode_picture(text, upright=True), np.rot90(FRAMES[0], -1))
