"""Sampling of prompts from masks, as a user would give them: random or central clicks on errors, and boxes.

Masks are ``(B, 1, H, W)`` bool, one per object. Points are ``(B, P, 2)`` float32 in pixels, x first, with labels
``(B, P)`` int32: 1 on the object, 0 on the background.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from i2v.modeling.structures import BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, OBJECT


def random_points_from_errors(
    gt: Tensor, pred: Tensor, num_points: int = 1, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Sample clicks uniformly from the pixels where a prediction is wrong, labelled by the ground truth.

    Without any error, clicks fall on the background, or on pixel (0, 0) if there is none.

    Args:
        gt: Ground truth ``(B, 1, H, W)`` bool.
        pred: Prediction ``(B, 1, H, W)`` bool.
        num_points: Clicks per object.
        generator: Random generator on the masks' device, advanced by ``B * num_points * H * W * 2`` numbers.

    Returns:
        Points ``(B, num_points, 2)`` and labels ``(B, num_points)``.

    Raises:
        ValueError: If the masks are not bool or differ in shape.
    """
    batch, _, _, width = _check_masks(gt, pred)
    no_error = (gt == pred).flatten(1).all(dim=1)[:, None, None, None]
    # The last axis is the label a click would have: 0 on false positives, 1 on false negatives.
    candidates = torch.stack(((~gt & pred) | (no_error & ~gt), gt & ~pred), dim=-1)
    # The argmax of i.i.d. random numbers is a uniform sample: one pass, no need to count the candidates.
    noise = torch.rand(
        (batch, num_points, *gt.shape[-2:], 2), generator=generator, device=gt.device, dtype=torch.float32
    )
    index = (noise * candidates).flatten(2).argmax(dim=2)
    # Flattened order is (row, column, label), so the label is the parity.
    pixel = index // 2
    points = torch.stack((pixel % width, pixel // width), dim=-1).float()
    return points, (index % 2).to(torch.int32)


def box_points(
    masks: Tensor, noise: float = 0.1, noise_bound: float = 20.0, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the tight box around each mask, with uniform noise.

    The box of an empty mask is inverted: from the far corner of the image to the origin.

    Args:
        masks: ``(B, 1, H, W)`` bool.
        noise: Largest shift of a coordinate, as a fraction of the box's extent along its axis.
        noise_bound: Largest shift in pixels.
        generator: Random generator on the masks' device, advanced by ``B * 4`` numbers.

    Returns:
        Corners ``(B, 2, 2)``, top left first, as inclusive pixel indices clipped to the image, and their labels
        ``(B, 2)``.

    Raises:
        ValueError: If the masks are not bool ``(B, 1, H, W)``.
    """
    batch, _, height, width = _check_masks(masks)
    columns, rows = masks.any(dim=2).flatten(1), masks.any(dim=3).flatten(1)
    x0, x1 = _first_and_last(columns)
    y0, y1 = _first_and_last(rows)
    box = torch.stack((x0, y0, x1, y1), dim=-1).float()
    if noise > 0:
        bound = torch.stack((x1 - x0, y1 - y0), dim=-1).float().mul(noise).clamp(max=noise_bound).repeat(1, 2)
        # The shape fixes which random number shifts which coordinate, so it is part of the reproducible result.
        shift = torch.rand((batch, 1, 4), generator=generator, device=masks.device)[:, 0]
        box = box + bound * (2 * shift - 1)
    limit = box.new_tensor([width - 1, height - 1, width - 1, height - 1])
    labels = torch.tensor([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], dtype=torch.int32, device=masks.device)
    return torch.minimum(box.clamp(min=0), limit).reshape(batch, 2, 2), labels.repeat(batch, 1)


def point_from_error_center(gt: Tensor, pred: Tensor, padding: bool = True) -> tuple[Tensor, Tensor]:
    """Click on the centre of the largest error: the wrong pixel that is farthest from the boundary of its error.

    False negatives win over false positives only if their centre is strictly farther from the boundary. Without any
    error the click is on pixel (0, 0) with label 0.

    Args:
        gt: Ground truth ``(B, 1, H, W)`` bool.
        pred: Prediction ``(B, 1, H, W)`` bool.
        padding: Whether the image's border counts as a boundary.

    Returns:
        Points ``(B, 1, 2)`` and labels ``(B, 1)``.

    Raises:
        ValueError: If the masks are not bool or differ in shape.
    """
    _check_masks(gt, pred)
    false_negatives, false_positives = (gt & ~pred)[:, 0].cpu().numpy(), (~gt & pred)[:, 0].cpu().numpy()
    points, labels = [], []
    for false_negative, false_positive in zip(false_negatives, false_positives, strict=True):
        depth_negative, point_negative = _innermost_pixel(false_negative, padding)
        depth_positive, point_positive = _innermost_pixel(false_positive, padding)
        on_object = depth_negative > depth_positive
        points.append([point_negative if on_object else point_positive])
        labels.append([OBJECT if on_object else BACKGROUND])
    point_tensor = torch.tensor(points, dtype=torch.float32, device=gt.device)
    return point_tensor, torch.tensor(labels, dtype=torch.int32, device=gt.device)


def centroid_pixel(mask: np.ndarray | Tensor) -> tuple[int, int]:
    """Find the mask pixel nearest to the centroid of a mask; the first in row-major order wins a tie.

    Args:
        mask: ``(H, W)``, nonzero on the object.

    Returns:
        The pixel as (x, y).

    Raises:
        ValueError: If the mask is empty.
    """
    rows, columns = np.nonzero(np.asarray(mask))
    if len(rows) == 0:
        raise ValueError("mask: expected at least one object pixel to click on, got none")
    nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return int(columns[nearest]), int(rows[nearest])


def squared_distances(region: np.ndarray) -> np.ndarray:
    """Exact squared Euclidean distance transform.

    Args:
        region: ``(H, W)`` bool.

    Returns:
        ``(H, W)`` int64: squared distance of each pixel to the nearest pixel outside the region, 0 outside. The image's
        border does not count as outside; if no pixel is, values exceed any distance within the image.
    """
    height, width = region.shape
    far = height + width
    # First along rows, from both sides, then across rows.
    from_left = _distances_from_left(region, far)
    from_right = _distances_from_left(region[:, ::-1], far)[:, ::-1]
    squared = np.minimum(from_left, from_right) ** 2
    # A boundary k rows up or down is at least k * k away, so larger k cannot improve on smaller values.
    across = squared.copy()
    for k in range(1, height):
        if k * k >= across.max(initial=0):
            break
        np.minimum(across[k:], squared[:-k] + k * k, out=across[k:])
        np.minimum(across[:-k], squared[k:] + k * k, out=across[:-k])
    return across


def _check_masks(*masks: Tensor) -> tuple[int, int, int, int]:
    for mask in masks:
        if mask.dim() != 4 or mask.shape[1] != 1 or mask.dtype != torch.bool or mask.shape != masks[0].shape:
            raise ValueError(f"masks: expected bool (B,1,H,W), got {mask.dtype} {tuple(mask.shape)}")
    batch, channels, height, width = masks[0].shape
    return batch, channels, height, width


def _first_and_last(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Indices ``(B,)`` of the first and last true entry of each row ``(B, L)``; ``L - 1`` and 0 where there is none."""
    length = occupied.shape[1]
    index = torch.arange(length, device=occupied.device)
    return torch.where(occupied, index, length - 1).amin(dim=1), torch.where(occupied, index, 0).amax(dim=1)


def _innermost_pixel(region: np.ndarray, padding: bool) -> tuple[int, tuple[float, float]]:
    """Squared distance and (x, y) of the pixel farthest from the region's boundary; zeros for an empty region."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if len(rows) == 0:
        return 0, (0.0, 0.0)
    # Crop to the region and one pixel around it: whatever lies beyond is outside as well, and farther away.
    top, left = max(rows[0] - 1, 0), max(columns[0] - 1, 0)
    crop = region[top : rows[-1] + 2, left : columns[-1] + 2]
    depth = squared_distances(np.pad(crop, 1))[1:-1, 1:-1] if padding else squared_distances(crop)
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return int(depth[row, column]), (float(left + column), float(top + row))


def _distances_from_left(region: np.ndarray, far: int) -> np.ndarray:
    """Distance of each pixel to the nearest pixel outside the region to its left; ``far`` if there is none."""
    index = np.arange(region.shape[1])
    last_outside = np.maximum.accumulate(np.where(region, -far, index), axis=1)
    return np.minimum(index - last_outside, far).astype(np.int64)
