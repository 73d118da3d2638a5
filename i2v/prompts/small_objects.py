"""Objects that are small for the model are kept in its image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from i2v.prompts.object_area import LOW_RES_STRIDE, MOST_CELLS
from i2v.utils.masks import resize_logits


def keep_visible(binary: Tensor, coverage: Tensor, video_size: tuple[int, int]) -> Tensor:
    """Widen a mask that would vanish on the coarser grid of predicted masks to the cells that it covers most.

    Args:
        binary: ``(1, 1, S, S)`` float32 of zeros and ones.
        coverage: ``(1, 1, S, S)`` float32, how much of each pixel of the model image the object covers; not all zero.
        video_size: (height, width) in pixels.

    Returns:
        The same mask if a pixel of the video is left of it, else one with at least one cell of the grid.
    """
    if _is_visible(binary, video_size):
        return binary
    cells = F.avg_pool2d(coverage, LOW_RES_STRIDE)
    # Of a thin structure, every cell that it passes through the middle of.
    chosen = (cells >= 0.5 * cells.max()).float()
    size = list(binary.shape[-2:])
    widened = F.interpolate(chosen, size=size, mode="nearest").maximum(binary)
    for cells_across in range(2, MOST_CELLS + 1):
        if _is_visible(widened, video_size):
            break
        wide = F.max_pool2d(F.pad(chosen, [cells_across - 1] * 4), cells_across, stride=1)
        widened = F.interpolate(wide[..., : cells.shape[-2], : cells.shape[-1]], size=size, mode="nearest")
    return widened


def _is_visible(binary: Tensor, video_size: tuple[int, int]) -> bool:
    """Whether a mask has a pixel left after it went through the grid of predicted masks to the video's size."""
    grid = binary.shape[-1] // LOW_RES_STRIDE
    low_res = F.interpolate(binary - 0.5, size=(grid, grid), mode="bilinear", align_corners=False, antialias=True)
    return bool(torch.any(resize_logits(low_res, video_size) > 0))
