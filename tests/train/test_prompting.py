"""Clicks and boxes fall where they should, with the odds they should have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from i2v.prompts.sampling import (
    box_points,
    centroid_pixel,
    point_from_error_center,
    random_points_from_errors,
    squared_distances,
)


def mask_of(*rows: str) -> Tensor:
    """A mask (1,1,H,W) drawn with #."""
    return torch.tensor([[[[letter == "#" for letter in row] for row in rows]]])


def brute_force(region: np.ndarray) -> np.ndarray:
    """Squared distances by comparing every pixel with every other one."""
    rows, columns = np.nonzero(~region)
    y, x = np.indices(region.shape)
    gaps = (y[..., None] - rows) ** 2 + (x[..., None] - columns) ** 2
    return np.where(region, gaps.min(axis=-1), 0)


@pytest.mark.parametrize("density", [0.3, 0.8, 0.97])
def test_squared_distances_are_exact(density: float) -> None:
    rng = np.random.default_rng(0)
    for height, width in [(1, 9), (9, 1), (7, 12), (23, 5), (16, 16)]:
        region = rng.random((height, width)) < density
        region[rng.integers(height), rng.integers(width)] = False
        assert np.array_equal(squared_distances(region), brute_force(region))


def test_squared_distances_agree_with_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    region = np.random.default_rng(1).random((200, 300)) < 0.999
    exact = np.rint(ndimage.distance_transform_edt(region) ** 2).astype(np.int64)
    assert np.array_equal(squared_distances(region), exact)


def test_without_an_outside_distances_are_beyond_the_image() -> None:
    assert squared_distances(np.ones((4, 6), bool)).min() > 4**2 + 6**2


def test_centre_click_takes_the_deepest_error() -> None:
    gt = mask_of(".......", ".###...", ".###...", ".###..#", ".......")
    points, labels = point_from_error_center(gt, torch.zeros_like(gt))
    assert points.tolist() == [[[2.0, 2.0]]] and labels.tolist() == [[1]]
    points, labels = point_from_error_center(torch.zeros_like(gt), gt)
    assert points.tolist() == [[[2.0, 2.0]]] and labels.tolist() == [[0]]


def test_centre_click_prefers_surplus_where_both_errors_are_equally_deep() -> None:
    points, labels = point_from_error_center(mask_of("##.."), mask_of("..##"))
    assert (points.tolist(), labels.tolist()) == ([[[2.0, 0.0]]], [[0]])


def test_padding_makes_the_border_an_end_of_errors() -> None:
    gt = mask_of("####.", "####.", "####.", "####.", ".....")
    empty = torch.zeros_like(gt)
    assert point_from_error_center(gt, empty, padding=True)[0].tolist() == [[[1.0, 1.0]]]
    assert point_from_error_center(gt, empty, padding=False)[0].tolist() == [[[0.0, 0.0]]]


def test_centre_click_without_error() -> None:
    gt = mask_of("#.", ".#")
    points, labels = point_from_error_center(gt, gt)
    assert points.tolist() == [[[0.0, 0.0]]] and labels.tolist() == [[0]]


def test_centroid_pixel_lies_on_the_mask() -> None:
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    assert centroid_pixel(ring) == (1, 0)
    with pytest.raises(ValueError, match="at least one object pixel"):
        centroid_pixel(np.zeros((3, 3), bool))


def test_random_clicks_are_uniform_over_all_errors() -> None:
    gt, pred = mask_of("##..", "...."), mask_of(".#.#", "....")
    points, labels = random_points_from_errors(gt, pred, 4000, torch.Generator().manual_seed(0))
    clicks = [(x, y, label) for (x, y), label in zip(points[0].tolist(), labels[0].tolist(), strict=True)]
    assert set(clicks) == {(0, 0, 1), (3, 0, 0)}
    assert clicks.count((0, 0, 1)) / 4000 == pytest.approx(0.5, abs=0.03)


def test_without_error_clicks_fall_on_the_background() -> None:
    gt = mask_of("##.", "###")
    points, labels = random_points_from_errors(gt, gt, 5, torch.Generator().manual_seed(0))
    assert points.tolist() == [[[2.0, 0.0]] * 5] and labels.tolist() == [[0] * 5]
    full = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    points, labels = random_points_from_errors(full, full)
    assert points.tolist() == [[[0.0, 0.0]]] and labels.tolist() == [[0]]


def test_an_absent_object_gets_a_negative_click() -> None:
    empty = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    _, labels = random_points_from_errors(empty, empty, 2)
    assert labels.tolist() == [[0, 0]] * 3


def test_boxes_are_tight_and_inclusive() -> None:
    corners, labels = box_points(mask_of(".....", "..##.", "..#..", "....."), noise=0)
    assert corners.tolist() == [[[2.0, 1.0], [3.0, 2.0]]] and labels.tolist() == [[2, 3]]


def test_noise_of_boxes_has_its_bounds() -> None:
    masks = torch.zeros(500, 1, 300, 300, dtype=torch.bool)
    masks[:, :, 100:121, 20:291] = True  # extents 20 and 270
    corners, _ = box_points(masks, 0.1, 20.0, torch.Generator().manual_seed(0))
    moved = corners.flatten(1) - torch.tensor([20.0, 100, 290, 120])
    assert moved.abs().amax(dim=0).tolist() == pytest.approx([20, 2, 20, 2], rel=0.05)
    assert corners.min() >= 0 and corners[:, :, 0].max() == 299  # kept within the image


def test_the_box_of_an_empty_mask_is_inside_out() -> None:
    corners, _ = box_points(torch.zeros(1, 1, 6, 8, dtype=torch.bool), noise=0)
    assert corners.tolist() == [[[7.0, 5.0], [0.0, 0.0]]]


def test_masks_of_another_form_are_refused() -> None:
    with pytest.raises(ValueError, match=r"bool \(B,1,H,W\)"):
        box_points(torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"bool \(B,1,H,W\)"):
        random_points_from_errors(mask_of("#."), mask_of("#"))
