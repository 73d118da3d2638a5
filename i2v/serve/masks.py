"""Masks of the model as answers, and prompts of clients as its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from i2v.results.rle import Mask, RunLengths, encode_mask
from i2v.serve.schemas import Marks, MaskAnswer


def describe_mask(mask: Mask, iou: float | None = None) -> MaskAnswer:
    """Describe a mask.

    Args:
        mask: ``(H, W)``.
        iou: Predicted IoU.
    """
    counts = encode_mask(mask)
    rle = {"size": list(mask.shape), "counts": counts}
    x, y, width, height = (int(side) for side in coco_mask.toBbox(rle))
    return MaskAnswer(
        size=list(mask.shape),
        counts=counts.decode("ascii"),
        area=int(coco_mask.area(rle)),
        box=[x, y, x + width, y + height] if width and height else None,
        iou=None if iou is None else round(iou, 4),
    )


def decode_mask(answer: MaskAnswer) -> Mask:
    """Return the mask ``(H, W)`` of an answer."""
    return RunLengths.of_counts(answer.counts, (answer.size[0], answer.size[1])).mask()


def arguments_of(marks: Marks) -> dict[str, Any]:
    """Return points ``(P, 2)``, labels ``(P,)`` and box ``(4,)`` as the predictors take them; each can be ``None``."""
    points: NDArray[np.float64] | None = None
    labels: NDArray[np.int32] | None = None
    if marks.points:
        points = np.array([[point.x, point.y] for point in marks.points])
        labels = np.array([point.positive for point in marks.points], dtype=np.int32)
    return {"points": points, "labels": labels, "box": None if marks.box is None else np.array(marks.box)}
