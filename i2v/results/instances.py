"""What formats of datasets have in common: instances of categories, on the frames of a video."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from i2v.errors import brief, listed
from i2v.results.frame_names import FrameNames
from i2v.results.rle import Size


@dataclass(frozen=True)
class Instance:
    """The mask of one object on one frame.

    Attributes:
        track: Number of the object, the same on all frames.
        category: Name of its category.
        counts: Its mask, as COCO's compressed run lengths.
        score: Confidence in 0..1, if known.
    """

    track: int
    category: str
    counts: bytes
    score: float | None = None


@dataclass(frozen=True)
class Dataset:
    """A video as a dataset: one image per frame.

    Attributes:
        size: (height, width) of the frames.
        frames: Indices of the frames in ascending order.
        categories: Names of the categories, without repetition; the first has id 1.
        names: How frames are called.
    """

    size: Size
    frames: tuple[int, ...]
    categories: tuple[str, ...]
    names: FrameNames = field(default_factory=FrameNames)

    def image_name(self, frame: int) -> str:
        """Return the name of a frame's image file: its own where it has one, else its number."""
        name = self.names.describe(frame).get("name")
        return name if isinstance(name, str) else f"{frame:05d}.jpg"

    def category_id(self, name: str) -> int:
        """Return the id of a category, from 1.

        Raises:
            ValueError: If there is no such category.
        """
        if name not in self.categories:
            raise ValueError(f"category {brief(name)}: not in the dataset, which has {listed(self.categories, 10)}")
        return self.categories.index(name) + 1


def confidence(object_score: float | None, iou: float | None) -> float | None:
    """Return the probability that an object is in view, times the predicted IoU, in 0..1; ``None`` without scores.

    Args:
        object_score: Logit that the object is in view, if known.
        iou: Predicted mask quality in 0..1, if known.
    """
    if object_score is None or iou is None or not math.isfinite(object_score + iou):
        return None
    return min(1.0, max(0.0, iou)) / (1 + math.exp(-max(-60.0, min(60.0, object_score))))


def categories_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return category names in order of first appearance, without repetition."""
    return tuple(dict.fromkeys(names))
