"""Where the pixels of frames are, and pictures that are read at such places."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def pixel_places(aspect: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Places x (B,S,S) and y (S,S) of the pixels of square frames, in half heights, from their middle.

    Args:
        aspect: (B,) widths by heights, of the frames before they were made square.
        resolution: Side S of the frames.
    """
    axis = (torch.arange(resolution, device=aspect.device) + 0.5) * 2 / resolution - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x * aspect.view(-1, 1, 1), y


def read_frames(pictures: Tensor, u: Tensor, v: Tensor, padding: str) -> Tensor:
    """Read pictures (B,C,S',S') at places (B,T,S,S) of -1 to 1 -> (B,T,C,S,S). ``padding``: as of ``grid_sample``."""
    # The frames of a clip below each other are one grid: so no picture has to be copied for each frame.
    grid = torch.stack((u, v), dim=-1).flatten(1, 2)
    seen = F.grid_sample(pictures, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    return seen.unflatten(2, u.shape[1:3]).transpose(1, 2)
