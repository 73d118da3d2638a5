"""Intersection over union (J, the region measure of DAVIS)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mask_iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Compute the IoU of two masks ``(H, W)`` bool, in 0..1. Two empty masks have an IoU of 1."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0
