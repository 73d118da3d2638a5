"""Masks as the shapes of labelling tools: polygons and rectangles."""

from __future__ import annotations

import numpy as np

from i2v.results.polygons import Polygon, outlines_of
from i2v.results.rle import Mask
from i2v.serve.masks import describe_mask

TOLERANCE = 1.0  # pixels between an outline and the polygon of it
_LEAST_SHARE = 0.01  # of the mask's area that a part must have to be a shape of its own


def shapes_of(mask: Mask, kind: str, tolerance: float = TOLERANCE) -> list[Polygon]:
    """Return corners ``(P, 2)`` of the shapes of a mask: its larger parts as polygons, or the box around it.

    Args:
        mask: ``(H, W)``.
        kind: ``"polygon"``, or ``"rectangle"`` for two corners.
        tolerance: Pixels between outlines and polygons.
    """
    answer = describe_mask(mask)
    if answer.box is None:
        return []
    if kind == "rectangle":
        return [np.array(answer.box, dtype=np.float64).reshape(2, 2)]
    least = _LEAST_SHARE * answer.area
    outlines = outlines_of(mask, tolerance)
    return [outlines[0], *(outline for outline in outlines[1:] if _area(outline) >= least)]


def _area(polygon: Polygon) -> float:
    x, y = polygon.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def upright_box(corners: list[float]) -> list[float]:
    """Return a box as x0, y0, x1, y1, whichever two opposite corners are given."""
    x0, y0, x1, y1 = corners
    return [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]
