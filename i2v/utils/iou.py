"""Intersection over union, the region measure J."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mask_iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """IoU of two masks (H,W) bool, 0 to 1. Two empty masks agree: 1."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0
