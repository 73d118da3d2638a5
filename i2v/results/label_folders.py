"""Datasets of one text file per frame: YOLO segmentation and labelme."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from i2v.results.instances import Dataset, Instance
from i2v.results.polygons import Polygon, joined_polygon, polygons_of
from i2v.results.rle import RunLengths, Size
from i2v.utils.files import replacing
from i2v.utils.output_folder import clear_files, own_folder
from i2v.utils.temporary import remove_leftovers

YOLO_NAME, LABELME_NAME = "yolo", "labelme"


class LabelFolder(ABC):
    """Writes a file per frame into a folder, whose earlier files of such names are removed. Every file is complete.

    Attributes:
        folder: The folder.
        num_frames: Number of frames written.
    """

    _NAMES: str  # of the files, as a regular expression

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        """Create the folder, and remove earlier results from it.

        Args:
            folder: The folder; other files in it are kept.
            dataset: Frames and categories.

        Raises:
            OSError: If the folder cannot be written.
            ValueError: If a link is in its place, or in that of a file.
        """
        self.folder = own_folder(folder)
        self.num_frames = 0
        self._dataset = dataset
        remove_leftovers(folder)
        clear_files(folder, self._NAMES)

    def write(self, frame: int, instances: Iterable[Instance]) -> None:
        """Write a frame's file; without instances it says that there are none.

        Raises:
            DiskFullError: If the disk is full.
            OSError: If writing fails otherwise.
            ValueError: If an instance's category is none of the dataset's.
        """
        shapes = [(instance, self._polygons(instance)) for instance in instances]
        for instance, _ in shapes:
            self._dataset.category_id(instance.category)
        name, text = self._file(frame, shapes)
        with replacing(self.folder / name, one_of_many=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
        self.num_frames += 1

    def _polygons(self, instance: Instance) -> list[Polygon]:
        return polygons_of(RunLengths.of_counts(instance.counts, self._dataset.size).mask())

    @abstractmethod
    def _file(self, frame: int, shapes: list[tuple[Instance, list[Polygon]]]) -> tuple[str, str]:
        """Return name and content of a frame's file."""


class YoloLabels(LabelFolder):
    """YOLO segmentation: a line per instance, with the category from 0 and one polygon in parts of the frame's size.

    Parts and holes of a mask are joined by lines that are run along twice. ``data.yaml`` names the categories.
    """

    _NAMES = r"\d{5,}\.txt|data\.yaml"

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        """Create the folder and ``data.yaml``. See ``LabelFolder``."""
        super().__init__(folder, dataset)
        names = "".join(f"  {i}: {json.dumps(name)}\n" for i, name in enumerate(dataset.categories))
        with replacing(folder / "data.yaml") as temporary:
            temporary.write_text(f"# made with i2v: images are the frames of the video, by number\nnames:\n{names}")

    def _file(self, frame: int, shapes: list[tuple[Instance, list[Polygon]]]) -> tuple[str, str]:
        height, width = self._dataset.size
        lines = []
        for instance, polygons in shapes:
            if polygons:
                corners = joined_polygon(polygons) / (width, height)
                numbers = " ".join(f"{value:.8g}" for value in corners.ravel())
                lines.append(f"{self._dataset.category_id(instance.category) - 1} {numbers}\n")
        return f"{frame:05d}.txt", "".join(lines)


class LabelmeFiles(LabelFolder):
    """labelme: a JSON file per frame with the polygons of its instances. ``group_id`` is the object's number."""

    _NAMES = r"\d{5,}\.json"

    def _file(self, frame: int, shapes: list[tuple[Instance, list[Polygon]]]) -> tuple[str, str]:
        parts = [(instance, polygon) for instance, polygons in shapes for polygon in polygons]
        labelled = [labelme_shape(instance.category, polygon, instance.track) for instance, polygon in parts]
        content = labelme_content(self._dataset.image_name(frame), self._dataset.size, labelled)
        return f"{frame:05d}.json", json.dumps(content, allow_nan=False) + "\n"


def labelme_shape(
    label: str, points: Polygon, group: int | None = None, kind: Literal["polygon", "rectangle"] = "polygon"
) -> dict[str, Any]:
    """Return a shape of a labelme file.

    Args:
        label: Its label.
        points: Corners ``(P, 2)``, x first, in pixels; of a rectangle, two opposite ones.
        group: Number that the shapes of an object share.
        kind: Kind of the shape.
    """
    return {
        "label": label,
        "points": points.tolist(),
        "group_id": group,
        "description": "",
        "shape_type": kind,
        "flags": {},
    }


def labelme_content(image_name: str, size: Size, shapes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the contents of a labelme file.

    Args:
        image_name: Name of the image's file.
        size: (height, width) of the image.
        shapes: Shapes, as ``labelme_shape`` returns them.
    """
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": image_name,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }
