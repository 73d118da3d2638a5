"""Masks of everything: what a grid of clicks finds, filtered and without duplicates."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from support import TINY, randomize

from i2v.automatic_mask_generator import AutomaticMaskSettings, I2VAutomaticMaskGenerator
from i2v.build_i2v import build_i2v
from i2v.i2v_image_predictor import I2VImagePredictor

HEIGHT, WIDTH = 96, 128
DISCS = ((30, 40, 14), (90, 60, 20), (118, 14, 5))  # x, y, radius


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
for _number, _disc in enumerate(DISCS, start=1):
    IMAGE[disc(*_disc)] = 60 * _number


class OneColourPredictor:
    """Answers a click with the pixels of its colour, as sure masks; background is an unsure one."""

    model = SimpleNamespace(image_size=128)

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.refined = 0

    def set_image(self, image: np.ndarray) -> None:
        self.image = image

    def reset_predictor(self) -> None:
        del self.image

    def predict_low_res(
        self, points: Any, labels: Any, mask_input: Any = None, multimask_output: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert np.shape(points)[1:] == (1, 2) and np.shape(labels) == (len(points), 1)
        self.batches.append(len(points))
        colours = [int(self.image[int(y), int(x), 0]) for ((x, y),) in points]
        planes = [torch.tensor(np.where(self.image[..., 0] == colour, 10.0, -10.0)) for colour in colours]
        masks = torch.stack(planes)[:, None].float()
        # Always as many cells, as a model answers, whatever the size of the crop.
        masks = torch.nn.functional.interpolate(masks, (HEIGHT, WIDTH))[:, 0]
        ious = torch.tensor([0.95 if colour else 0.3 for colour in colours])
        if mask_input is not None:
            assert mask_input.shape == (len(points), 1, HEIGHT, WIDTH) and not multimask_output
            self.refined += len(points)
            return masks[:, None], ious[:, None]
        # The second answer is unstable, the third is empty.
        answers = torch.stack([masks, 0.01 * masks, torch.full_like(masks, -10)], dim=1)
        return (answers if multimask_output else answers[:, :1]), ious[:, None].expand(-1, 3 if multimask_output else 1)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch):
    model = build_i2v(TINY, device="cpu")

    def make(**changes: Any) -> I2VAutomaticMaskGenerator:
        generator = I2VAutomaticMaskGenerator(model, **{"points_per_side": 16, "min_mask_region_area": 0, **changes})
        monkeypatch.setattr(generator, "predictor", OneColourPredictor())
        return generator

    return make


def test_each_object_is_found_once(make) -> None:
    generator = make(points_per_batch=100)
    found = generator.generate(IMAGE)

    assert generator.predictor.batches == [100, 100, 56]
    assert len(found) == len(DISCS)
    for expected in (disc(*d) for d in DISCS):
        match = next(mask for mask in found if (mask["segmentation"] == expected).all())
        ys, xs = np.nonzero(expected)
        assert match["area"] == expected.sum()
        assert match["bbox"] == [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
        assert match["predicted_iou"] == pytest.approx(0.95) and match["stability_score"] == 1.0
        (x, y), *_ = match["point_coords"]
        assert expected[int(y), int(x)]
        assert match["crop_box"] == [0, 0, WIDTH, HEIGHT]


@pytest.mark.parametrize("mode", ["coco_rle", "uncompressed_rle"])
def test_run_lengths_decode_to_the_masks(make, mode: str) -> None:
    arrays = [mask["segmentation"] for mask in make().generate(IMAGE)]
    encoded = [mask["segmentation"] for mask in make(output_mode=mode).generate(IMAGE)]
    for array, rle in zip(arrays, encoded, strict=True):
        code = coco_mask.frPyObjects(rle, *rle["size"]) if mode == "uncompressed_rle" else rle
        np.testing.assert_array_equal(coco_mask.decode(code), array)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return (first & second).sum() / (first | second).sum()


def test_crops_find_the_same_objects_in_place(make) -> None:
    found = make(crop_n_layers=1, points_per_batch=16).generate(IMAGE)
    assert len(found) == len(DISCS)
    by_disc = [max(found, key=lambda mask: iou(mask["segmentation"], disc(*d))) for d in DISCS]
    assert all(iou(mask["segmentation"], disc(*d)) > 0.9 for mask, d in zip(by_disc, DISCS, strict=True))
    assert by_disc[2]["crop_box"] != [0, 0, WIDTH, HEIGHT], "masks of smaller crops win"


def test_grids_of_clicks_can_be_given(make) -> None:
    clicks = np.array([[30.5, 40.5], [90.5, 60.5], [1.0, 1.0]]) / (WIDTH, HEIGHT)
    generator = make(points_per_side=None, point_grids=[clicks])
    assert len(generator.generate(IMAGE)) == 2 and generator.predictor.batches == [3]


def test_masks_go_back_in_to_be_refined(make) -> None:
    generator = make(use_m2m=True, points_per_batch=100)
    found = generator.generate(IMAGE)
    assert generator.predictor.refined == 3 * 16 * 16
    assert sorted(mask["area"] for mask in found) == sorted(int(disc(*d).sum()) for d in DISCS)


def test_holes_and_specks_are_cleaned(make) -> None:
    image = IMAGE.copy()
    image[40, 30] = 0  # a hole
    image[5, 5] = 60  # a speck of the same colour
    raw = make().generate(image)
    cleaned = make(min_mask_region_area=4).generate(image)
    assert not any((mask["segmentation"] == disc(*DISCS[0])).all() for mask in raw)
    assert sum((mask["segmentation"] == disc(*DISCS[0])).all() for mask in cleaned) == 1


def test_nothing_found_is_no_mask(make) -> None:
    assert make().generate(np.zeros((20, 30, 3), np.uint8)) == []


def test_a_network_is_asked_through_the_image_predictor() -> None:
    model = build_i2v(TINY, device="cpu")
    settings = AutomaticMaskSettings(points_per_side=2, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    randomize(model)
    found = I2VAutomaticMaskGenerator(model, settings, stability_score_offset=0.0).generate(IMAGE)
    assert found
    for mask in found:
        assert mask["segmentation"].shape == (HEIGHT, WIDTH) and mask["segmentation"].any()
    assert I2VAutomaticMaskGenerator(I2VImagePredictor(model), settings, crop_n_layers=1, use_m2m=True).generate(IMAGE)


def test_what_is_no_image_is_told(make) -> None:
    with pytest.raises(ValueError, match=r"image: expected a Pillow image or an array .* got shape \(96, 128\)"):
        make().generate(IMAGE[..., 0])
    with pytest.raises(ValueError, match="an image of 3x2 has no 4 crops along a side"):
        make(crop_n_layers=2).generate(IMAGE[:2, :3])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"points_per_side": 0}, ValueError, "points_per_side: expected a whole number from 1 up, got 0"),
        ({"pred_iou_thresh": 2}, ValueError, "pred_iou_thresh: expected a number from 0 to 1"),
        ({"crop_n_layers": -1}, ValueError, "crop_n_layers: expected a whole number from 0 up, got -1"),
        ({"points_per_side": 1.5}, ValueError, "points_per_side: expected a whole number from 1 up, got 1.5"),
        ({"points_per_side": None}, ValueError, "points_per_side or point_grids, got neither"),
        ({"point_grids": [np.ones((1, 2))]}, ValueError, "points_per_side or point_grids, got both"),
        (
            {"points_per_side": None, "point_grids": [np.ones((1, 2))], "crop_n_layers": 1},
            ValueError,
            "a grid for each of 2 layers, got 1",
        ),
        (
            {"points_per_side": None, "point_grids": [[[2, 0]]]},
            ValueError,
            "layer 0: expected points",
        ),
        ({"crop_overlap_ratio": 1}, ValueError, "crop_overlap_ratio: expected a number from 0 to below 1"),
        ({"settings": 16}, TypeError, "settings: expected AutomaticMaskSettings"),
        ({"output_mode": "png"}, ValueError, "output_mode: expected binary_mask"),
        ({"points": 3}, TypeError, "expected settings among .* got points"),
    ],
)
def test_settings_are_checked(changes: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        I2VAutomaticMaskGenerator(build_i2v(TINY, device="cpu"), **changes)
