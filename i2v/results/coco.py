"""COCO instances: a JSON file with images, categories and annotations, as pycocotools and training tools read it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from i2v.results.instances import Dataset, Instance
from i2v.results.streamed_json import StreamedJson, compact_json

COCO_NAME = "coco.json"


class CocoInstances(StreamedJson):
    """Writes COCO instances frame by frame. Masks are run lengths and complete, also where they overlap.

    An image's id is its frame's index plus 1. Annotations have the object's number as ``track_id``, and ``score``, its
    confidence in 0..1 where it is known. Empty masks have no annotation.
    """

    def __init__(self, path: str | Path, dataset: Dataset) -> None:
        """Open nothing yet.

        Args:
            path: Path of the JSON file.
            dataset: Images and categories. All of its frames are listed, also those without an instance.
        """
        super().__init__(path)
        self._dataset = dataset
        self._num_annotations = 0

    def write(self, frame: int, instances: Iterable[Instance]) -> None:
        """Append the instances of a frame.

        Raises:
            DiskFullError: If the disk is full. The file keeps the previous frames.
            OSError: If writing fails otherwise.
            ValueError: If an instance's category is none of the dataset's.
        """
        found = [self._annotation(frame, instance) for instance in instances]
        annotations = [annotation for annotation in found if annotation["area"]]
        for number, annotation in enumerate(annotations, start=self._num_annotations + 1):
            annotation["id"] = number
        self._append([compact_json(annotation) for annotation in annotations])
        self._num_annotations += len(annotations)

    def _annotation(self, frame: int, instance: Instance) -> dict[str, Any]:
        size = list(self._dataset.size)
        rle = {"size": size, "counts": instance.counts}
        known = {} if instance.score is None else {"score": round(instance.score, 4)}
        return {
            "id": 0,
            "image_id": frame + 1,
            "category_id": self._dataset.category_id(instance.category),
            "track_id": instance.track,
            "segmentation": {"size": size, "counts": instance.counts.decode("ascii")},
            "area": int(coco_mask.area(rle)),
            "bbox": [int(value) for value in coco_mask.toBbox(rle)],
            "iscrowd": 0,
            **known,
        }

    def _header(self) -> str:
        dataset = self._dataset
        height, width = dataset.size
        video = {} if dataset.names.video is None else {"video": dataset.names.video}
        head = {
            "info": {"description": "made with i2v", **video},
            "licenses": [],
            "categories": [
                {"id": number, "name": name, "supercategory": ""}
                for number, name in enumerate(dataset.categories, start=1)
            ],
        }
        text = io.StringIO()
        text.write(compact_json(head)[:-1] + ',\n"images":[')
        for place, frame in enumerate(dataset.frames):
            image = {"id": frame + 1, "file_name": dataset.image_name(frame), "width": width, "height": height}
            text.write((",\n" if place else "\n") + compact_json({**image, "frame": frame}))
        text.write('\n],\n"annotations":[')
        return text.getvalue()
