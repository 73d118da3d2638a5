"""J and F of single masks against hand-worked values and a direct computation."""

from __future__ import annotations

import numpy as np
import pytest

from sav_dataset.utils.measures import (
    boundary_map,
    boundary_measure,
    mask_scores,
    matching_radius,
    region_similarity,
)
from tools.benchmarks.eval import plain_boundary, plain_edge, plain_region


def block(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((5, 6), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def pixels(mask: np.ndarray) -> dict[int, list[int]]:
    return {row: np.flatnonzero(mask[row]).tolist() for row in range(len(mask)) if mask[row].any()}


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (block(1, 1, 3), {0: [0, 1, 2, 3], 1: [0, 3], 2: [0, 3], 3: [0, 1, 2, 3]}),
        (block(3, 4, 2), {2: [3, 4, 5], 3: [3], 4: [3]}),
        (block(0, 0, 2), {0: [1], 1: [0, 1]}),
        (np.ones((5, 6), bool), {}),
    ],
)
def test_boundary_map_by_hand(mask, expected):
    assert pixels(boundary_map(mask)) == expected


@pytest.mark.parametrize(("size", "radius"), [((480, 854), 8), ((720, 1280), 12), ((1080, 1920), 18), ((5, 6), 1)])
def test_matching_radius(size, radius):
    assert matching_radius(size) == radius


def random_masks(generator: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Two blobs with something in common, anywhere from empty to full."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    masks = []
    for _ in range(2):
        y, x, reach = generator.random(3) * [size[0], size[1], max(size)]
        noise = generator.standard_normal(size)
        masks.append(np.hypot(rows - y, columns - x) + generator.choice([0, 1, 9]) * noise < reach)
    return masks[0], masks[1]


def test_measures_equal_the_plain_computation():
    pytest.importorskip("cv2")
    generator = np.random.default_rng(0)
    for _ in range(150):
        size = tuple(generator.integers(1, 150, 2))
        gt, pred = random_masks(generator, size)
        assert np.array_equal(boundary_map(gt), plain_edge(gt))
        expected = plain_region(gt, pred), plain_boundary(gt, pred)
        assert mask_scores(gt, pred) == pytest.approx(expected, abs=1e-12)
        assert (region_similarity(gt, pred), boundary_measure(gt, pred)) == pytest.approx(expected, abs=1e-12)


def test_wide_tolerance_and_thin_masks():
    gt, pred = np.zeros((40, 400), bool), np.zeros((40, 400), bool)
    gt[20, :], pred[23, :] = True, True  # 3 pixels apart, radius 4 of a diagonal of 402
    assert boundary_measure(gt, pred) == 1.0
    assert boundary_measure(gt, pred, bound_th=0.004) == pytest.approx(0.5)  # radius 2: the upper of two edge rows


def test_empty_masks():
    empty, some = np.zeros((9, 9), bool), np.eye(9, dtype=bool)
    assert (region_similarity(empty, empty), boundary_measure(empty, empty)) == (1.0, 1.0)
    assert (region_similarity(some, empty), boundary_measure(some, empty)) == (0.0, 0.0)
    assert boundary_measure(empty, some) == 0.0
    # A mask without any boundary, next to nothing.
    assert boundary_measure(np.ones((9, 9), bool), empty) == 1.0


def test_bad_masks_are_refused():
    mask = np.zeros((4, 4), bool)
    with pytest.raises(TypeError, match=r"pred: expected a mask .* of bool, got 2 axes of uint8"):
        boundary_measure(mask, mask.astype(np.uint8))
    with pytest.raises(TypeError, match=r"gt: .* got 3 axes"):
        region_similarity(mask[None], mask[None])
    with pytest.raises(ValueError, match=r"gt has \(4, 4\), pred has \(4, 3\)"):
        mask_scores(mask, mask[:, :3])
