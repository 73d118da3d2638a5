"""Prompts drawn from masks, as a user would give them: a click somewhere in the error or at its centre, a box.

Masks are bool (B,1,H,W), one row for every object; points are (B,P,2) float32 in pixels, x first, with labels (B,P):
1 on the object, 0 off it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from i2v.modeling.structures import BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, OBJECT


def random_points_from_errors(
    gt: Tensor, pred: Tensor, num_points: int = 1, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Clicks drawn uniformly from the pixels where a prediction is wrong, labelled by what is right there.

    Where nothing is wrong they fall on the background, and on pixel (0,0) where there is none. ``generator``, on the
    masks' device, gives B * num_points * H * W * 2 uniform numbers. Returns points (B,num_points,2) and labels.
    """
    batch, _, _, width = _check_masks(gt, pred)
    perfect = (gt == pred).flatten(1).all(dim=1)[:, None, None, None]
    # What a click could say at each pixel: "not here" or "here, too".
    wanted = torch.stack(((~gt & pred) | (perfect & ~gt), gt & ~pred), dim=-1)
    # The largest of equally distributed numbers is a uniform draw, in one pass and without asking how many there are.
    chance = torch.rand(
        (batch, num_points, *gt.shape[-2:], 2), generator=generator, device=gt.device, dtype=torch.float32
    )
    index = (chance * wanted).flatten(2).argmax(dim=2)
    pixel = index // 2
    points = torch.stack((pixel % width, pixel // width), dim=-1).float()
    return points, (index % 2).to(torch.int32)


def box_points(
    masks: Tensor, noise: float = 0.1, noise_bound: float = 20.0, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Corners (B,2,2) of the tight boxes around masks and their labels (B,2): top left, then bottom right.

    Pixel indices are inclusive. Each coordinate is moved by up to ``noise`` times the box's extent along its axis, at
    most by ``noise_bound`` pixels, drawn uniformly, and kept within the image. The box of an empty mask is inside out:
    from the far corner of the image to the origin.
    """
    batch, _, height, width = _check_masks(masks)
    columns, rows = masks.any(dim=2).flatten(1), masks.any(dim=3).flatten(1)
    x0, x1 = _extent(columns)
    y0, y1 = _extent(rows)
    box = torch.stack((x0, y0, x1, y1), dim=-1).float()
    if noise > 0:
        bound = torch.stack((x1 - x0, y1 - y0), dim=-1).float().mul(noise).clamp(max=noise_bound).repeat(1, 2)
        # The shape is part of the result: it fixes which number moves which coordinate.
        chance = torch.rand((batch, 1, 4), generator=generator, device=masks.device)[:, 0]
        box = box + bound * (2 * chance - 1)
    limit = box.new_tensor([width - 1, height - 1, width - 1, height - 1])
    labels = torch.tensor([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], dtype=torch.int32, device=masks.device)
    return torch.minimum(box.clamp(min=0), limit).reshape(batch, 2, 2), labels.repeat(batch, 1)


def point_from_error_center(gt: Tensor, pred: Tensor, padding: bool = True) -> tuple[Tensor, Tensor]:
    """The click at the middle of the largest error: the wrong pixel farthest from where its error ends.

    A missed part wins over a surplus one only if its middle is deeper. ``padding``: errors also end at the image's
    border. Without any error the click is on pixel (0,0), label 0. Returns points (B,1,2) and labels (B,1).
    """
    _check_masks(gt, pred)
    missed, surplus = (gt & ~pred)[:, 0].cpu().numpy(), (~gt & pred)[:, 0].cpu().numpy()
    points, labels = [], []
    for row in range(len(missed)):
        depth_missed, point_missed = _deepest(missed[row], padding)
        depth_surplus, point_surplus = _deepest(surplus[row], padding)
        on_object = depth_missed > depth_surplus
        points.append([point_missed if on_object else point_surplus])
        labels.append([OBJECT if on_object else BACKGROUND])
    as_points = torch.tensor(points, dtype=torch.float32, device=gt.device)
    return as_points, torch.tensor(labels, dtype=torch.int32, device=gt.device)


def centroid_pixel(mask: np.ndarray | Tensor) -> tuple[int, int]:
    """The pixel (x, y) of a mask (H,W) nearest to its centroid, the first in row order of equals.

    Raises ValueError for an empty mask.
    """
    rows, columns = np.nonzero(np.asarray(mask))
    if len(rows) == 0:
        raise ValueError("mask: expected at least one object pixel to click on, got none")
    nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return int(columns[nearest]), int(rows[nearest])


def squared_distances(region: np.ndarray) -> np.ndarray:
    """Exact squared Euclidean distance of every pixel of ``region`` (H,W) bool to the nearest pixel outside it.

    int64 (H,W), 0 outside the region. The image's border is no boundary: where nothing is outside the region, values
    are larger than any distance within the image.
    """
    height, width = region.shape
    far = height + width
    along_rows = np.minimum(_steps_from_outside(region, far), _steps_from_outside(region[:, ::-1], far)[:, ::-1])
    squared = along_rows**2
    # Going k rows up or down costs k * k and cannot help pixels that are closer than that already.
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


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First and last true entry of every row (B,L); L - 1 and 0 where there is none."""
    length = occupied.shape[1]
    index = torch.arange(length, device=occupied.device)
    return torch.where(occupied, index, length - 1).amin(dim=1), torch.where(occupied, index, 0).amax(dim=1)


def _deepest(region: np.ndarray, padding: bool) -> tuple[int, tuple[float, float]]:
    """Squared depth of the pixel farthest from the region's end, and that pixel as x, y; zeros for no region."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if len(rows) == 0:
        return 0, (0.0, 0.0)
    # Everything beyond one pixel around the region is outside it and farther away.
    top, left = max(rows[0] - 1, 0), max(columns[0] - 1, 0)
    part = region[top : rows[-1] + 2, left : columns[-1] + 2]
    depth = squared_distances(np.pad(part, 1))[1:-1, 1:-1] if padding else squared_distances(part)
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return int(depth[row, column]), (float(left + column), float(top + row))


def _steps_from_outside(region: np.ndarray, far: int) -> np.ndarray:
    """Pixels since the last one outside the region, going right in every row; ``far`` where there was none."""
    index = np.arange(region.shape[1])
    last_outside = np.maximum.accumulate(np.where(region, -far, index), axis=1)
    return np.minimum(index - last_outside, far).astype(np.int64)
