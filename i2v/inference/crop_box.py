"""CropBox: which part of a frame is looked at again, without PyTorch; see ``CropRefiner``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

MARGIN = 1.5  # side of a crop in sides of what is in it
SMALLEST = 0.15  # side of a crop in sides of the frame
LARGEST = 0.8  # the same; above, a crop shows nothing that the frame does not
LOW_RES_STRIDE = 4  # pixels of the model image in a cell of the low-res grid
OUTSIDE_LOGIT = -10.0  # the crop's answer for what is outside of it

Box = TypeVar("Box", bound="CropBox")
Logits = TypeVar("Logits", bound=Any)  # a tensor or a NumPy array


@dataclass(frozen=True)
class CropBox:
    """A part of a frame with the frame's aspect ratio, in cells of the low-res grid.

    Attributes:
        left: First column.
        top: First row.
        side: Columns and rows.
        grid: Columns and rows of the whole frame.
    """

    left: int
    top: int
    side: int
    grid: int

    @classmethod
    def whole(cls: type[Box], image_size: int) -> Box:
        """Return all of a frame that fills a model image of ``image_size`` pixels."""
        grid = image_size // LOW_RES_STRIDE
        return cls(0, 0, grid, grid)

    @classmethod
    def around(cls: type[Box], low: Any, high: Any, grid: int) -> Box | None:
        """Return the crop for what lies between two corners, or ``None`` if that is most of the frame.

        Args:
            low: Column and row ``(2,)`` of the first corner, in cells; a tensor or a NumPy array.
            high: Those of the last.
            grid: Columns and rows of the frame.
        """
        extent = float((high - low).max())
        side = math.ceil(max(extent * MARGIN, SMALLEST * grid))
        if side > LARGEST * grid:
            return None
        middle = (low + high) / 2
        left, top = (min(max(round(float(m) - side / 2), 0), grid - side) for m in middle)
        return cls(left, top, side, grid)

    def pixels(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom in a picture of the whole frame."""
        x, y = width / self.grid, height / self.grid
        return self.left * x, self.top * y, (self.left + self.side) * x, (self.top + self.side) * y

    def of(self, logits: Logits) -> Logits:
        """Return the crop's part of logits ``(..., grid, grid)``."""
        part: Logits = logits[..., self.top : self.top + self.side, self.left : self.left + self.side]
        return part
