"""Prompts that were read, in the model's coordinates and as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2v.modeling.structures import Prompt
from i2v.prompts.object_area import warn_if_small
from i2v.prompts.reading import read_binary_mask
from i2v.prompts.small_objects import keep_visible


def to_prompt(coordinates: np.ndarray, labels: np.ndarray, image_size: int, device: torch.device) -> Prompt:
    """Make a prompt for one object.

    Args:
        coordinates: ``(P, 2)`` float32 in 0..1 of the frame, x first.
        labels: ``(P,)`` int32.
        image_size: Side ``S`` of the model image in pixels. It is square, so the aspect ratio is not kept.
        device: Device of the prompt's tensors.
    """
    points = torch.from_numpy(coordinates).to(device)[None] * image_size
    return Prompt.click(points, torch.from_numpy(labels).to(device)[None])


def read_mask(mask: Any, video_size: tuple[int, int], image_size: int, where: str) -> Tensor:
    """Read a mask and resize it to the model image.

    Args:
        mask: ``(H, W)``, bool or numeric, with the video's size or aspect ratio, or the model image's size. Label maps
            count as the object from 1, grey levels (0..255) from half of their range, floats in 0..1 from 0.5, and what
            is negative never; see ``i2v.prompts.mask_values.foreground``.
        video_size: (height, width) in pixels.
        image_size: Side ``S`` of the model image in pixels.
        where: Prefix of error messages.

    Returns:
        ``(1, 1, S, S)`` float32 of zeros and ones. A mask that would vanish at the model's resolution is widened until
        the predicted mask has a pixel; a warning is logged for objects that are too small to be followed.

    Raises:
        ValueError: If the mask is not two-dimensional, has another shape, or values that are no mask, such as NaN.
    """
    binary = torch.from_numpy(np.ascontiguousarray(read_binary_mask(mask, video_size, image_size, where)))
    coverage = binary.float()[None, None]
    size = (image_size, image_size)
    if tuple(binary.shape) != size:
        # Antialiasing keeps thin structures when a large mask shrinks; thresholding makes it binary again.
        coverage = F.interpolate(coverage, size=size, mode="bilinear", align_corners=False, antialias=True)
    resized = (coverage >= 0.5).float()
    if not binary.any():
        return resized
    warn_if_small(float(coverage.sum()), where)
    return keep_visible(resized, coverage, video_size)
