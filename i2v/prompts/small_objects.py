"""Objects that are small for the model: kept in its image, and told to the caller."""

from __future__ import annotations

import logging

import torch
from torch import Tensor
from torch.nn import functional as F

from i2v.utils.masks import resize_logits

log = logging.getLogger(__name__)

LOW_RES_STRIDE = 4  # pixels of the model image for each cell of the masks that it predicts
FEATURE_STRIDE = 16  # the same for the features by which it recognizes an object
_MOST_CELLS = 3  # of a side of what a mask that would vanish becomes

SMALLEST_AREA = FEATURE_STRIDE**2
"""Area in pixels of the model image below which an object is not followed: one cell of the features.

Measured with i2v-nano on rendered discs: below a third of it, none was found on the next frame.
"""


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
    for cells_across in range(2, _MOST_CELLS + 1):
        if _is_visible(widened, video_size):
            break
        reach = F.pad(chosen, (0, cells_across - 1, 0, cells_across - 1))
        wide = F.max_pool2d(F.pad(reach, (cells_across - 1, 0, cells_across - 1, 0)), cells_across, stride=1)
        widened = F.interpolate(wide[..., : cells.shape[-2], : cells.shape[-1]], size=size, mode="nearest")
    return widened


def warn_if_small(area: float, where: str) -> None:
    """Log a warning for an object that is too small to be followed.

    Args:
        area: In pixels of the model image; 0 for an object that is not in view, which is fine.
        where: Names the object and the frame.
    """
    if 0 < area < SMALLEST_AREA:
        log.warning(
            "%s: the object covers %.2g pixels of the model's image, and the model follows objects from about %d on: "
            "crop the video to it, or use a larger model.image_size",
            where,
            area,
            SMALLEST_AREA,
        )


def _is_visible(binary: Tensor, video_size: tuple[int, int]) -> bool:
    """Whether a mask has a pixel left after it went through the grid of predicted masks to the video's size."""
    grid = binary.shape[-1] // LOW_RES_STRIDE
    low_res = F.interpolate(binary - 0.5, size=(grid, grid), mode="bilinear", align_corners=False, antialias=True)
    return bool(torch.any(resize_logits(low_res, video_size) > 0))
