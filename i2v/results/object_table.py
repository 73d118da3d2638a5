"""A table of the objects on each frame as CSV, as ``pandas.read_csv`` takes it."""

from __future__ import annotations

import csv
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from i2v.utils.files import naming_full_disk, replacing

COLUMNS = ("object", "frame", "time", "x", "y", "width", "height", "area", "object_score", "iou")
"""Of the table: id, index of the frame, its time in seconds, box and area in pixels, and the model's two scores.

What is not known is empty: times of frames without, boxes of objects that are not seen, scores of masks without."""


class MaskScores(Protocol):
    """The model's scores for one object on one frame.

    Attributes:
        object_score: Logit that the object is in view.
        iou: Predicted mask quality in 0..1.
    """

    @property
    def object_score(self) -> float: ...

    @property
    def iou(self) -> float: ...


@dataclass(frozen=True)
class ObjectRow:
    """Where an object is on a frame.

    Attributes:
        obj_id: Its id.
        box: x, y, width and height in pixels; zeros if the mask is empty.
        area: Pixels of the mask.
        object_score: Logit that the object is in view, or ``None`` if it is not known.
        iou: Predicted mask quality in 0..1, or ``None``.
    """

    obj_id: Hashable
    box: tuple[int, int, int, int]
    area: int
    object_score: float | None
    iou: float | None

    def measures(self) -> dict[str, Any]:
        """All but id and box, by name."""
        return {"area": self.area, "object_score": self.object_score, "iou": self.iou}


def write_object_table(path: Path, rows: Mapping[int, Sequence[ObjectRow]], times: Mapping[int, float | None]) -> None:
    """Write the table, atomically: one row for each object on each frame.

    Args:
        path: The file.
        rows: The objects of each frame, by its index.
        times: The frames to write, in order, with their times in seconds, if known.

    Raises:
        OSError: If the file cannot be written.
    """
    with naming_full_disk(path), replacing(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for frame, time in times.items():
            for row in rows[frame]:
                box = row.box if row.area else ("",) * 4
                # The csv module writes None as an empty field.
                table.writerow([row.obj_id, frame, time, *box, *row.measures().values()])
