"""The image predictor answers as the video predictor does on a first frame, in SAM 2's forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from support import TINY, make_predictor, randomize, render_video

from i2v.build_i2v import build_i2v
from i2v.i2v_image_predictor import I2VImagePredictor
from i2v.modeling.i2v_model import I2VModel

HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def model() -> I2VModel:
    model = build_i2v(TINY, device="cpu")
    randomize(model)
    return model


@pytest.fixture
def predictor(model: I2VModel) -> I2VImagePredictor:
    predictor = I2VImagePredictor(model, max_hole_area=make_predictor().settings.fill_hole_area)
    predictor.set_image(render_video(1)[0])
    return predictor


def grid_of(model: I2VModel) -> int:
    return model.image_size // 4


@pytest.mark.parametrize(
    ("prompt", "several"),
    [
        ({"points": [[20, 19]], "labels": [1]}, True),
        ({"points": [[20, 19], [50, 40]], "labels": [1, 0]}, False),
        ({"box": [10, 8, 40, 30]}, False),
    ],
)
def test_masks_equal_those_of_a_first_frame(predictor: I2VImagePredictor, prompt: dict, several: bool) -> None:
    video = make_predictor()
    with video.init_state(render_video(1)) as state:
        _, _, expected = video.add_new_points_or_box(state, 0, 1, **prompt)

    masks, ious, low_res = predictor.predict(
        prompt.get("points"), prompt.get("labels"), prompt.get("box"), multimask_output=several, return_logits=True
    )

    assert masks.shape == (3 if several else 1, HEIGHT, WIDTH) and ious.shape == (len(masks),)
    assert low_res.shape == (len(masks), grid_of(predictor.model), grid_of(predictor.model))
    np.testing.assert_array_equal(masks[ious.argmax()], expected[0, 0].numpy())
    booleans, _, _ = predictor.predict(
        prompt.get("points"), prompt.get("labels"), prompt.get("box"), multimask_output=several
    )
    assert booleans.dtype == bool
    np.testing.assert_array_equal(booleans, masks > 0)


def test_refined_masks_equal_those_of_a_first_frame(model: I2VModel) -> None:
    video = make_predictor("predictor.refine_prompts=true")
    predictor = I2VImagePredictor(video.model, max_hole_area=0, refine_prompts=True)
    predictor.set_image(render_video(1)[0])
    boxes = np.array([[10, 8, 40, 30], [20, 10, 60, 40]], np.float32)
    masks, _, low_res = predictor.predict(box=boxes, multimask_output=False, return_logits=True)
    with video.init_state(render_video(1)) as state:
        for number, box in enumerate(boxes):
            _, _, expected = video.add_new_points_or_box(state, 0, number, box=box)
            np.testing.assert_allclose(masks[number, 0], expected[number, 0].numpy(), rtol=1e-4, atol=1e-4)
    raw, _ = predictor.predict_low_res(box=boxes, multimask_output=False)
    assert not np.allclose(low_res, raw.numpy(), atol=0.01), "and they are others than without"
    alone, _, _ = predictor.predict(mask_input=low_res[0], multimask_output=False)
    assert alone.shape == (1, HEIGHT, WIDTH)


def test_a_batch_of_prompts_answers_each_as_alone(predictor: I2VImagePredictor) -> None:
    boxes = np.array([[5, 5, 30, 30], [20, 10, 60, 40]], np.float32)
    masks, ious, low_res = predictor.predict(box=boxes, multimask_output=False, return_logits=True)
    assert masks.shape == (2, 1, HEIGHT, WIDTH) and ious.shape == (2, 1) and low_res.ndim == 4
    for number, box in enumerate(boxes):
        alone, _, _ = predictor.predict(box=box, multimask_output=False, return_logits=True)
        np.testing.assert_allclose(masks[number], alone, rtol=1e-4, atol=1e-4)
    points = np.array([[[20, 19]], [[50, 40]]], np.float32)
    both, _, _ = predictor.predict(points, np.ones((2, 1)), box=torch.tensor(boxes), multimask_output=False)
    assert both.shape == (2, 1, HEIGHT, WIDTH)


def test_coordinates_may_be_fractions(predictor: I2VImagePredictor) -> None:
    in_pixels, _, _ = predictor.predict([[16, 12]], [1], return_logits=True)
    fractions, _, _ = predictor.predict([[0.25, 0.25]], [1], return_logits=True, normalize_coords=False)
    np.testing.assert_array_equal(in_pixels, fractions)


def test_an_earlier_mask_refines_and_stands_alone(predictor: I2VImagePredictor) -> None:
    first, ious, low_res = predictor.predict([[20, 19]], [1], return_logits=True)
    best = low_res[ious.argmax()][None]
    refined, _, _ = predictor.predict([[20, 19]], [1], mask_input=best, multimask_output=False, return_logits=True)
    alone, _, _ = predictor.predict(mask_input=best, multimask_output=False, return_logits=True)
    assert refined.shape == alone.shape == (1, HEIGHT, WIDTH)
    assert not np.allclose(refined, alone) and not np.allclose(refined, first[ious.argmax()])


def test_several_images_are_answered_in_order(model: I2VModel) -> None:
    images = [render_video(2)[1], np.ascontiguousarray(render_video(1)[0][:30])]
    predictor = I2VImagePredictor(model)
    predictor.set_image_batch([images[0], Image.fromarray(images[1])])
    masks, _, _ = predictor.predict_batch([[[20, 19]], None], [[1], None], [None, [5, 5, 30, 20]], return_logits=True)
    assert [m.shape for m in masks] == [(3, HEIGHT, WIDTH), (3, 30, WIDTH)]
    predictor.set_image(images[1])
    alone, _, _ = predictor.predict(box=[5, 5, 30, 20], return_logits=True)
    np.testing.assert_array_equal(masks[1], alone)
    assert predictor.get_image_embedding().shape[0] == 1


def test_holes_are_filled_and_specks_removed(model: I2VModel) -> None:
    image = render_video(1)[0]
    found = {}
    for name, areas in {"raw": (0, 0), "filled": (8, 0), "removed": (0, 8)}.items():
        predictor = I2VImagePredictor(model, max_hole_area=areas[0], max_sprinkle_area=areas[1])
        predictor.set_image(image)
        found[name] = predictor.predict([[20, 19]], [1], return_logits=True)
    assert found["filled"][0].max() >= found["raw"][0].max()
    assert (found["filled"][0] >= found["raw"][0]).all() and (found["removed"][0] <= found["raw"][0]).all()
    np.testing.assert_array_equal(found["filled"][2], found["raw"][2])  # what goes back in as mask_input stays raw


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected points with labels, a box or a mask_input, got none"),
        ({"point_coords": [[1, 2]]}, "points and labels must be given together"),
        ({"point_coords": [[1, 2]], "point_labels": [1, 1]}, "expected 1 labels"),
        ({"point_coords": [[100, 2]], "point_labels": [1]}, r"point \(100, 2\) is off the frame"),
        ({"point_coords": [1, 2], "point_labels": [1]}, r"point_coords of shape \(P, 2\) or \(B, P, 2\), got \(2,\)"),
        ({"box": [1, 2, 3]}, r"a box of shape \(4,\) or \(B, 4\), got \(3,\)"),
        ({"box": np.zeros((0, 4))}, "at least one object"),
        ({"box": [[1, 2, 30, 40], [5, 5, 5, 9]]}, "object 1: expected a box with x0 < x1"),
        ({"box": ["a", 1, 2, 3]}, "expected box to be numbers"),
        ({"mask_input": np.zeros((1, 5, 5))}, "expected mask_input of shape"),
        ({"box": np.ones((2, 4)), "point_coords": [[1, 2]], "point_labels": [1]}, "point_coords 1, .*box 2"),
    ],
)
def test_malformed_prompts_are_told(predictor: I2VImagePredictor, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor.predict(**arguments)


def test_images_have_to_be_set_and_to_be_images(model: I2VModel) -> None:
    predictor = I2VImagePredictor(model)
    with pytest.raises(RuntimeError, match="no image is set"):
        predictor.predict([[1, 1]], [1])
    with pytest.raises(ValueError, match=r"image 0: expected .* got shape \(48, 64\) of uint8"):
        predictor.set_image(render_video(1)[0][..., 0])
    with pytest.raises(ValueError, match="of float32"):
        predictor.set_image(render_video(1)[0].astype(np.float32))
    for nothing, error in (([], ValueError), (None, TypeError), (5, TypeError)):
        with pytest.raises(error, match="image_list: expected"):
            predictor.set_image_batch(nothing)  # type: ignore[arg-type]
    predictor.set_image_batch([render_video(1)[0]] * 2)
    with pytest.raises(RuntimeError, match="2 images are set: use predict_batch"):
        predictor.predict([[1, 1]], [1])
    with pytest.raises(ValueError, match="box_batch: expected one entry for each of 2 images, got 1"):
        predictor.predict_batch(box_batch=[[1, 1, 5, 5]])
    predictor.reset_predictor()
    with pytest.raises(RuntimeError, match="no image is set"):
        predictor.get_image_embedding()
