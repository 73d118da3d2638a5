"""The measures of the DAVIS and SA-V benchmarks for one mask: region similarity J and boundary measure F.

They are exact, and fast with NumPy alone: only the bounding box of both masks is processed, and instead of dilating
boundaries with a disk (1009 pixels at full HD), every boundary pixel searches for a match row by row.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from i2v.utils.iou import mask_iou

Mask = NDArray[np.bool_]

BOUND_TH = 0.008
"""Distance within which boundaries match, as a fraction of the image diagonal."""


def region_similarity(gt: Mask, pred: Mask) -> float:
    """J: intersection over union of two masks.

    Args:
        gt: Ground truth ``(H, W)`` bool.
        pred: Prediction ``(H, W)`` bool.

    Returns:
        0..1; 1 if both masks are empty.

    Raises:
        TypeError: If a mask is not bool or not two-dimensional.
        ValueError: If the masks differ in size.
    """
    _check(gt, pred)
    return mask_iou(gt, pred)


def boundary_measure(gt: Mask, pred: Mask, bound_th: float = BOUND_TH) -> float:
    """F: how well the boundaries of two masks match.

    Boundary pixels match if they are at most ``ceil(bound_th * diagonal)`` pixels apart. F is the harmonic mean of
    precision, the fraction of the predicted boundary with a match, and recall, that of the true boundary. A mask has no
    boundary along the image border.

    Args:
        gt: Ground truth ``(H, W)`` bool.
        pred: Prediction ``(H, W)`` bool.
        bound_th: Matching distance as a fraction of the image diagonal.

    Returns:
        0..1; 0 if only one of the masks has a boundary, 1 if none has.

    Raises:
        TypeError: If a mask is not bool or not two-dimensional.
        ValueError: If the masks differ in size.
    """
    _check(gt, pred)
    return _boundary_measure(*_common_crop(gt, pred), matching_radius(gt.shape, bound_th))


def mask_scores(gt: Mask, pred: Mask, bound_th: float = BOUND_TH) -> tuple[float, float]:
    """J and F together, faster than one by one; see :func:`region_similarity` and :func:`boundary_measure`."""
    _check(gt, pred)
    gt_crop, pred_crop = _common_crop(gt, pred)
    radius = matching_radius(gt.shape, bound_th)
    return region_similarity(gt_crop, pred_crop), _boundary_measure(gt_crop, pred_crop, radius)


def matching_radius(size: tuple[int, ...], bound_th: float = BOUND_TH) -> int:
    """Distance in pixels within which boundaries match in an image of ``size`` (height, width)."""
    return math.ceil(bound_th * float(np.linalg.norm(size)))


def boundary_map(mask: Mask) -> Mask:
    """Find the boundary of a mask.

    Args:
        mask: ``(H, W)`` bool.

    Returns:
        ``(H, W)`` bool: pixels that differ from their right, lower or lower right neighbour inside the image.
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
    """Crop both masks to the smallest window that contains their pixels and boundaries; (0, 0) if both are empty."""
    rows = np.flatnonzero(gt.any(axis=1) | pred.any(axis=1))
    if not len(rows):
        return gt[:0, :0], pred[:0, :0]
    # A margin of one pixel: boundary pixels also lie above and left of a mask, and are found by comparing with the
    # background beyond it.
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
    """Count the pixels of ``points`` with a pixel of ``others`` within a disk of ``radius``."""
    alone = np.flatnonzero(points & ~others)
    if not len(alone):
        return int(np.count_nonzero(points))
    height, width = others.shape
    # sums[r, c]: number of pixels of `others` left of column c in row r. A segment of a row contains one if the sums at
    # its two ends differ; that is still true if they overflow 16 bits, as segments are short.
    sums = np.zeros((height + 2 * radius, width + 2 * radius + 1), np.uint16)
    np.cumsum(others, axis=1, out=sums[radius : radius + height, radius + 1 : radius + 1 + width], dtype=np.uint16)
    sums[:, radius + 1 + width :] = sums[:, radius + width, None]
    flat, stride = sums.ravel(), sums.shape[1]

    rows, columns = np.divmod(alone, width)
    centre = (rows + radius) * stride + columns + radius
    # Row by row of the disk, nearest first, drop the points that have found a match.
    for dy in sorted(range(-radius, radius + 1), key=abs):
        reach = math.isqrt(radius * radius - dy * dy)
        start = centre + (dy * stride - reach)
        centre = centre[flat[start] == flat[start + (2 * reach + 1)]]
        if not len(centre):
            break
    return int(np.count_nonzero(points)) - len(centre)
