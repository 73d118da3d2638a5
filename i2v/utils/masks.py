"""Operations on mask logits: holes, overlap, resizing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

HOLE_LOGIT = 0.1  # what filled pixels become
OVERLAP_LOGIT = -10.0  # what an object is at most where another one wins


def fill_holes(logits: Tensor, max_area: int) -> Tensor:
    """Fill small holes of masks (N,1,H,W).

    A hole is an 8-connected component of pixels with logit <= 0 (those at the border count, too) of at most
    ``max_area`` pixels; its pixels become 0.1. 0 fills nothing. Runs on any device, without waiting for it.
    """
    if max_area <= 0 or logits.numel() == 0:
        return logits
    return torch.where(small_components(logits <= 0, max_area), HOLE_LOGIT, logits)


def small_components(region: Tensor, max_area: int) -> Tensor:
    """Pixels of ``region`` (N,1,H,W) bool that lie in 8-connected components of at most ``max_area`` pixels.

    Every pixel starts with a label of its own and takes the largest one next to it, ``max_area`` times: enough for a
    small component to agree on one label. A label marks a small component if few pixels carry it and none of them has
    a neighbour in the region with another label.
    """
    num_pixels = region[0].numel()
    # Labels restart in every mask: float32 tells integers apart up to 2 ** 24.
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
    """The largest (or smallest) of every pixel and its eight neighbours, along one axis after the other.

    Pooling would do the same, but its kernels on a CPU take ten times as long.
    """
    x = F.pad(x, (1, 1, 1, 1), value=outside)
    x = extreme(extreme(x[..., :-2], x[..., 1:-1]), x[..., 2:])
    return extreme(extreme(x[..., :-2, :], x[..., 1:-1, :]), x[..., 2:, :])


def suppress_overlap(logits: Tensor) -> Tensor:
    """Leave every pixel of (N,1,H,W) to the object with the highest logit (the first of equals)."""
    if logits.shape[0] == 1:
        return logits
    winner = logits.argmax(dim=0, keepdim=True)
    index = torch.arange(logits.shape[0], device=logits.device)[:, None, None, None]
    return torch.where(winner == index, logits, logits.clamp(max=OVERLAP_LOGIT))


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Plain bilinear resize of (N,1,H,W) to (rows, columns)."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
