"""Regions of Label Studio, whose coordinates are per cent of the image or frame."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from i2v.serve.schemas import LooseModel

Percent = Annotated[float, Field(ge=-1e6, le=1e6)]
Size = tuple[int, int]  # height, width


class Keyframe(LooseModel):
    """A rectangle on a frame of a video, counted from 1."""

    frame: Annotated[int, Field(ge=1, lt=10**9)]
    enabled: bool = True
    x: Percent
    y: Percent
    width: Percent
    height: Percent
    rotation: Annotated[float, Field(ge=-3600, le=3600)] = 0.0


class RegionValue(LooseModel):
    """Where a region is, and its labels."""

    x: Percent | None = None
    y: Percent | None = None
    width: Percent | None = None
    height: Percent | None = None
    rotation: Annotated[float, Field(ge=-3600, le=3600)] = 0.0
    sequence: list[Keyframe] = Field(default=[], max_length=100_000)
    labels: list[str] = Field(default=[])
    keypointlabels: list[str] = Field(default=[])
    rectanglelabels: list[str] = Field(default=[])
    brushlabels: list[str] = Field(default=[])
    polygonlabels: list[str] = Field(default=[])


class Region(LooseModel):
    """A region that the user has marked."""

    type: str
    value: RegionValue = Field(default_factory=RegionValue)
    id: str | None = None
    from_name: str | None = None
    is_positive: bool = True

    @property
    def label(self) -> str | None:
        """Its first label, if any."""
        value = self.value
        lists = (value.labels, value.keypointlabels, value.rectanglelabels, value.brushlabels, value.polygonlabels)
        return next((labels[0] for labels in lists if labels), None)


def box_in_pixels(
    x: float, y: float, width: float, height: float, rotation: float, size: Size
) -> tuple[float, float, float, float]:
    """Return the upright box around a rectangle, x0, y0, x1, y1 in pixels.

    Args:
        x: Left side in per cent.
        y: Upper side in per cent.
        width: Width in per cent.
        height: Height in per cent.
        rotation: Clockwise, in degrees, around the upper left corner.
        size: (height, width) of the image in pixels.
    """
    left, upper = x * size[1] / 100, y * size[0] / 100
    across, down = width * size[1] / 100, height * size[0] / 100
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    corners = [(a * cos - b * sin, a * sin + b * cos) for a in (0.0, across) for b in (0.0, down)]
    xs, ys = ([left + corner[0] for corner in corners], [upper + corner[1] for corner in corners])
    return min(xs), min(ys), max(xs), max(ys)


def box_in_percent(box: list[int], size: Size) -> dict[str, float]:
    """Return x, y, width and height in per cent of a box in pixels."""
    x0, y0, x1, y1 = box
    return {
        "x": 100 * x0 / size[1],
        "y": 100 * y0 / size[0],
        "width": 100 * (x1 - x0) / size[1],
        "height": 100 * (y1 - y0) / size[0],
    }
