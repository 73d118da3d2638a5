"""masks.json: the masks of a run in COCO's run-length encoding, written frame by frame."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from i2v.errors import brief
from i2v.prompts.object_ids import canonical_id
from i2v.results.frame_names import FrameNames
from i2v.results.object_table import MaskScores, ObjectRow
from i2v.results.overlay import Pixels
from i2v.results.streamed_json import StreamedJson, compact_json


class RleJson(StreamedJson):
    """Writes masks as compact JSON in COCO RLE: one line per frame, with an entry for each object on it.

    The file is valid JSON after every frame, so that the frames written before a full disk are kept.
    """

    def __init__(
        self,
        path: str | Path,
        labels: Mapping[Hashable, int],
        frame_rate: float | None = None,
        names: FrameNames | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            path: Path of the JSON file.
            labels: Label of each object in the label maps.
            frame_rate: Frames per second, if known.
            names: What is said of each frame; by default its number only.

        Raises:
            ValueError: If an id is neither an integer nor a text, so that JSON does not have it.
        """
        super().__init__(path)
        self._labels = {canonical_id(obj_id): label for obj_id, label in labels.items()}
        check_json_ids(self._labels, self.path)
        self._frame_rate = frame_rate
        self._names = names or FrameNames()
        self._shape: tuple[int, ...] = ()

    def write(self, frame: int, labels: Pixels, scores: Mapping[Hashable, MaskScores | None]) -> list[ObjectRow]:
        """Append a frame.

        Args:
            frame: Index of the frame.
            labels: Label map ``(H, W)``.
            scores: Scores of the objects on this frame. Each gets an entry, with area 0 if its mask is empty.

        Returns:
            What the entries say besides the masks.

        Raises:
            DiskFullError: If the disk is full. The file keeps the previous frames.
            OSError: If writing fails otherwise.
        """
        rows, entries = [], []
        for obj_id, score in ((canonical_id(obj_id), score) for obj_id, score in scores.items()):
            rle = coco_mask.encode(np.asfortranarray(labels == self._labels[obj_id], dtype=np.uint8))
            row = _measure(obj_id, rle, score)
            rows.append(row)
            segmentation = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
            entries.append({"id": obj_id, "segmentation": segmentation, "bbox": row.box, **row.measures()})
        self._shape = labels.shape
        self._append([compact_json({**self._names.describe(frame), "objects": entries})])
        return rows

    def _header(self) -> str:
        objects = [{"id": obj_id, "label": label} for obj_id, label in self._labels.items()]
        video = {} if self._names.video is None else {"video": self._names.video}
        fields = compact_json({**video, "size": self._shape, "frame_rate": self._frame_rate, "objects": objects})
        return fields[:-1] + ',"frames":['


def check_json_ids(obj_ids: Iterable[Hashable], path: str | Path) -> None:
    """ValueError unless ids can be written to JSON and read from it: integers and texts."""
    for obj_id in obj_ids:
        if not isinstance(obj_id, int | str):
            raise ValueError(f"{path}: ids of objects: expected integers or texts, got {brief(obj_id)}")


def _measure(obj_id: Hashable, rle: dict[str, Any], scores: MaskScores | None) -> ObjectRow:
    left, top, width, height = (int(value) for value in coco_mask.toBbox(rle))
    return ObjectRow(
        obj_id,
        (left, top, width, height),
        int(coco_mask.area(rle)),
        None if scores is None else _rounded(scores.object_score),
        None if scores is None else _rounded(scores.iou),
    )


def _rounded(score: float) -> float | None:
    # JSON has no NaN: write null instead.
    return round(float(score), 4) if math.isfinite(score) else None
