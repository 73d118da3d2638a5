"""Whether points and boxes lie on the frame: one rule for the Python API, the command line and the annotator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def check_points(points: np.ndarray, size: Any, where: str) -> None:
    """Check that points lie on the frame, its right and lower edges included.

    Pixel (0, 0) covers the area from (0, 0) to (1, 1), so the last pixel ends at (width, height).

    Args:
        points: ``(P, 2)``, x first.
        size: (width, height) in the unit of the points.
        where: Prefix of error messages.

    Raises:
        ValueError: If a point is off the frame.
    """
    rounded, limits = _as_model(points), _as_model(size)
    off = ~((rounded >= 0) & (rounded <= limits)).all(axis=1)
    if off.any():
        x, y = points[off][0].tolist()
        raise ValueError(f"{where}: point ({x:g}, {y:g}) is off the frame, which is {size[0]:g} x {size[1]:g}")


def clip_box(corners: np.ndarray, size: Any, where: str) -> np.ndarray:
    """Clip a box to the frame, as boxes of detectors often exceed it a little.

    Args:
        corners: ``(2, 2)``, upper left corner first, each x first.
        size: (width, height) in the unit of the corners.
        where: Prefix of error messages.

    Returns:
        The clipped corners ``(2, 2)``.

    Raises:
        ValueError: If no part of the box is on the frame.
    """
    clipped = np.clip(corners, 0, np.asarray(size, dtype=corners.dtype))
    upper_left, lower_right = _as_model(clipped)
    if not (upper_left < lower_right).all():
        (x0, y0), (x1, y1) = corners.tolist()
        raise ValueError(
            f"{where}: box ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}) is off the frame, which is {size[0]:g} x {size[1]:g}"
        )
    return clipped


def check_prompt(clicks: Sequence[Sequence[float]], box: Sequence[float] | None, size: Any, where: str) -> None:
    """Check that clicks and a box, in pixels, are on the frame; a box may reach over its edges.

    Args:
        clicks: (x, y, label) of each.
        box: x0, y0, x1, y1, or ``None``.
        size: (width, height) in pixels.
        where: Prefix of error messages.

    Raises:
        ValueError: If a click is off the frame, or the whole box.
    """
    check_points(np.array(clicks, dtype=np.float64).reshape(-1, 3)[:, :2], size, where)
    if box is not None:
        clip_box(np.array(box, dtype=np.float64).reshape(2, 2), size, where)


def _as_model(coordinates: Any) -> np.ndarray:
    """Round coordinates to float32, as the model reads them: one that is off the frame by less is on its edge."""
    with np.errstate(over="ignore"):
        return np.asarray(coordinates, dtype=np.float32)
