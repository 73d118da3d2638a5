"""Posts, trunks and bars in front of a scene: what splits an object in two, and hides a small one for a while."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from train.dataset.frame_grids import pixel_places, read_frames
from train.dataset.random_draws import RandomDraws

MIN_HALF_WIDTH, MAX_HALF_WIDTH = 0.03, 0.2  # in half heights of the frame
MAX_TILT = 0.3  # radians
HORIZONTAL_PROB = 0.15


def render_posts(
    photos: Tensor, paths: Tensor, aspect: Tensor, resolution: int, draw: RandomDraws
) -> tuple[Tensor, Tensor]:
    """A straight bar from edge to edge of each clip, with the surface of a photo.

    Args:
        photos: (B,3,S',S') in 0 to 1.
        paths: (B,T) displacement of the bar across its length, in half heights of the frame.
        aspect: (B,) widths of the frames by their heights.
        resolution: Side S of the square frames.
        draw: Source of what is random.

    Returns:
        Pixels (B,T,3,S,S) in 0 to 1, and opacities (B,T,S,S).
    """
    count = len(paths)
    half_width = torch.exp(draw.uniform((count, 1, 1, 1), math.log(MIN_HALF_WIDTH), math.log(MAX_HALF_WIDTH)))
    angle = draw.uniform((count, 1, 1), -MAX_TILT, MAX_TILT)
    angle = angle + math.pi / 2 * (draw.uniform((count, 1, 1)) < HORIZONTAL_PROB).float()
    start = draw.uniform((count, 1), -0.8, 0.8) * aspect[:, None]
    x, y = pixel_places(aspect, resolution)
    across = (x * torch.cos(angle) + y * torch.sin(angle))[:, None] - (start + paths)[..., None, None]
    along = (y * torch.cos(angle) - x * torch.sin(angle))[:, None].expand_as(across)
    # A half height is S / 2 pixels: the edge is one pixel wide.
    opacity = ((half_width - across.abs()) * resolution / 2 + 0.5).clamp(0, 1)
    surface = read_frames(photos, across, along, "reflection")
    # Between the photo and its mean colour, darker or lighter.
    plain = photos.mean(dim=(-2, -1)).view(count, 1, 3, 1, 1).expand_as(surface)
    surface = torch.lerp(surface, plain, draw.uniform((count, 1, 1, 1, 1)))
    return (surface * draw.uniform((count, 1, 3, 1, 1), 0.5, 1.4)).clamp(0, 1), opacity
