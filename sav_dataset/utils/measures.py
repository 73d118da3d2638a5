"""The measures of the DAVIS and SA-V benchmarks for one mask: region similarity J and boundary measure F.

Exact, and fast without any library beside NumPy: everything happens inside the bounding box of both masks, and instead
of dilating boundaries with a disk (1009 pixels at full HD), every boundary pixel looks for a partner row by row.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from i2v.utils.iou import mask_iou

Mask = NDArray[np.bool_]

BOUND_TH = 0.008
"""How far apart two boundaries may lie and still match, as a part of the image's diagonal."""


def region_similarity(gt: Mask, pred: Mask) -> float:
    """J of two masks (H,W) bool, 0 to 1: intersection over union; 1 if both are empty.

    Raises TypeError for masks that are not bool and ValueError for masks of different shapes.
    """
    _check(gt, pred)
    return mask_iou(gt, pred)


def boundary_measure(gt: Mask, pred: Mask, bound_th: float = BOUND_TH) -> float:
    """F of two masks (H,W) bool, 0 to 1: how well their boundaries match.

    Boundary pixels match if they are at most ``ceil(bound_th * diagonal)`` pixels apart. F is the harmonic mean of the
    parts of the predicted boundary (precision) and of the true one (recall) that find a match. Where only one of the
    masks has a boundary F is 0, where none has it is 1; a mask has no boundary along the image's border.

    Raises TypeError for masks that are not bool and ValueError for masks of different shapes.
    """
    _check(gt, pred)
    return _boundary_measure(*_common_crop(gt, pred), matching_radius(gt.shape, bound_th))


def mask_scores(gt: Mask, pred: Mask, bound_th: float = BOUND_TH) -> tuple[float, float]:
    """J and F together, at less than the cost of both; see :func:`region_similarity`, :func:`boundary_measure`."""
    _check(gt, pred)
    gt_crop, pred_crop = _common_crop(gt, pred)
    radius = matching_radius(gt.shape, bound_th)
    return region_similarity(gt_crop, pred_crop), _boundary_measure(gt_crop, pred_crop, radius)


def matching_radius(size: tuple[int, ...], bound_th: float = BOUND_TH) -> int:
    """Distance in pixels within which boundaries match in an image of ``size`` (height, width)."""
    return math.ceil(bound_th * float(np.linalg.norm(size)))


def boundary_map(mask: Mask) -> Mask:
    """Boundary of a mask (H,W) bool, one pixel wide: pixels unlike the right, the lower or the lower right neighbour.

    Pixels beyond the image are compared with nothing.
    """
    edge = np.zeros_like(mask)
    edge[:, :-1] = mask[:, :-1] ^ mask[:, 1:]
    edge[:-1] |= mask[:-1] ^ mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def _check(gt: Mask, pred: Mask) -> None:
    for name, mask in (("gt", gt), ("pred", pred)):
        if mask.dtype != np.bool_ or mask.ndim != 2:
            raise TypeError(f"{name}: expected a mask (H,W) of bool, got {mask.ndim} axes of {mask.dtype}")
    if gt.shape != pred.shape:
        raise ValueError(f"masks differ in size: gt has {gt.shape}, pred has {pred.shape} (height, width)")


def _common_crop(gt: Mask, pred: Mask) -> tuple[Mask, Mask]:
    """Both masks in the smallest window that holds their pixels and boundaries; (0,0) if both are empty."""
    rows = np.flatnonzero(gt.any(axis=1) | pred.any(axis=1))
    if not len(rows):
        return gt[:0, :0], pred[:0, :0]
    # One pixel more on every side: boundaries lie half a pixel up and left, and must see the background beyond.
    across = slice(max(0, rows[0] - 1), rows[-1] + 2)
    columns = np.flatnonzero(gt[across].any(axis=0) | pred[across].any(axis=0))
    window = across, slice(max(0, columns[0] - 1), columns[-1] + 2)
    return gt[window], pred[window]


def _boundary_measure(gt: Mask, pred: Mask, radius: int) -> float:
    gt_edge, pred_edge = boundary_map(gt), boundary_map(pred)
    num_gt, num_pred = np.count_nonzero(gt_edge), np.count_nonzero(pred_edge)
    if not num_gt or not num_pred:
        return float(num_gt == num_pred)
    precision = _count_near(pred_edge, gt_edge, radius) / num_pred
    recall = _count_near(gt_edge, pred_edge, radius) / num_gt
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _count_near(points: Mask, others: Mask, radius: int) -> int:
    """How many pixels of ``points`` have one of ``others`` within a disk of ``radius``."""
    alone = np.flatnonzero(points & ~others)
    if not len(alone):
        return int(np.count_nonzero(points))
    height, width = others.shape
    # sums[r, c]: pixels of `others` left of column c in row r. A stretch of a row holds one if the sums at its two
    # ends differ, which 16 bits show even where the sums overflow.
    sums = np.zeros((height + 2 * radius, width + 2 * radius + 1), np.uint16)
    np.cumsum(others, axis=1, out=sums[radius : radius + height, radius + 1 : radius + 1 + width], dtype=np.uint16)
    sums[:, radius + 1 + width :] = sums[:, radius + width, None]
    flat, stride = sums.ravel(), sums.shape[1]

    rows, columns = np.divmod(alone, width)
    centre = (rows + radius) * stride + columns + radius
    for dy in sorted(range(-radius, radius + 1), key=abs):
        reach = math.isqrt(radius * radius - dy * dy)
        start = centre + (dy * stride - reach)
        centre = centre[flat[start] == flat[start + (2 * reach + 1)]]
        if not len(centre):
            break
    return int(np.count_nonzero(points)) - len(centre)
