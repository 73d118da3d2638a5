"""Operations on mask logits: holes, overlap, resizing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

HOLE_LOGIT = 0.1  # logit of filled pixels
SPECK_LOGIT = -10.0  # logit of removed ones
OVERLAP_LOGIT = -10.0  # largest logit of an object where another one wins


def fill_holes(logits: Tensor, max_area: int) -> Tensor:
    """Fill small holes in masks with a logit of 0.1. Runs on any device without synchronizing.

    A hole is an 8-connected component of pixels with logit <= 0, also at the border.

    Args:
        logits: ``(N, 1, H, W)``.
        max_area: Largest hole to fill in pixels; 0 fills nothing.

    Returns:
        ``(N, 1, H, W)``.
    """
    if max_area <= 0 or logits.numel() == 0:
        return logits
    return torch.where(small_components(logits <= 0, max_area), HOLE_LOGIT, logits)


def remove_specks(logits: Tensor, max_area: int) -> Tensor:
    """Remove small components of masks, with a logit of -10. Runs on any device without synchronizing.

    Args:
        logits: ``(N, 1, H, W)``.
        max_area: Largest 8-connected component to remove in pixels; 0 removes nothing.

    Returns:
        ``(N, 1, H, W)``.
    """
    if max_area <= 0 or logits.numel() == 0:
        return logits
    return torch.where(small_components(logits > 0, max_area), SPECK_LOGIT, logits)


def small_components(region: Tensor, max_area: int) -> Tensor:
    """Find small 8-connected components.

    Every pixel starts with its own label and takes the largest label around it ``max_area`` times, which is enough for
    a small component to agree on one. A component is small if few pixels have its label and all their neighbours in the
    region have the same.

    Args:
        region: ``(N, 1, H, W)`` bool.
        max_area: Largest component in pixels.

    Returns:
        ``(N, 1, H, W)`` bool: the pixels of small components.
    """
    num_pixels = region[0].numel()
    # Labels restart in every mask, because float32 is only exact for integers up to 2 ** 24.
    start = torch.arange(1, num_pixels + 1, device=region.device, dtype=torch.float32).view(1, *region.shape[1:])
    labels = torch.where(region, start, 0.0)
    for _ in range(max_area):
        labels = torch.where(region, _around(torch.maximum, labels, 0.0), 0.0)
    outside = float(num_pixels + 1)
    lowest = _around(torch.minimum, torch.where(region, labels, outside), outside)
    settled = (_around(torch.maximum, labels, 0.0) == labels) & (lowest == labels)

    index = labels.flatten(1).long()
    counts = torch.zeros(len(index), num_pixels + 1, device=region.device, dtype=torch.int32)
    ones = torch.ones_like(index, dtype=torch.int32)
    area = counts.scatter_add(1, index, ones).gather(1, index)
    loose = counts.scatter_add(1, index, (~settled).flatten(1).int()).gather(1, index)
    return region & ((area <= max_area) & (loose == 0)).view(region.shape)


def _around(extreme: Callable[[Tensor, Tensor], Tensor], x: Tensor, outside: float) -> Tensor:
    """Maximum (or minimum) filter of size 3 x 3, along one axis after the other.

    Equal to max pooling, whose CPU kernels take ten times as long.
    """
    x = F.pad(x, (1, 1, 1, 1), value=outside)
    x = extreme(extreme(x[..., :-2], x[..., 1:-1]), x[..., 2:])
    return extreme(extreme(x[..., :-2, :], x[..., 1:-1, :]), x[..., 2:, :])


def suppress_overlap(logits: Tensor) -> Tensor:
    """Keep only the highest logit per pixel; clamp the other objects to at most -10. The first object wins ties.

    Args:
        logits: ``(N, 1, H, W)`` of ``N`` objects.

    Returns:
        ``(N, 1, H, W)``.
    """
    if logits.shape[0] == 1:
        return logits
    winner = logits.argmax(dim=0, keepdim=True)
    index = torch.arange(logits.shape[0], device=logits.device)[:, None, None, None]
    return torch.where(winner == index, logits, logits.clamp(max=OVERLAP_LOGIT))


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize ``(N, 1, H, W)`` bilinearly to ``size``, given as (height, width)."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
