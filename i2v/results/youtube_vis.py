"""YouTube-VIS: a JSON file with a video, categories, and a track per object with its mask on every frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pycocotools import mask as coco_mask

from i2v.results.instances import Dataset
from i2v.results.rle import Size
from i2v.results.streamed_json import compact_json
from i2v.utils.files import replacing

VIS_NAME = "youtube_vis.json"


@dataclass(frozen=True)
class Track:
    """An object through the video.

    Attributes:
        number: Its number.
        category: Name of its category.
        masks: Its masks by frame, as COCO's compressed run lengths.
    """

    number: int
    category: str
    masks: Mapping[int, bytes]


def write_youtube_vis(path: Path, dataset: Dataset, video: str, num_frames: int, tracks: Iterable[Track]) -> None:
    """Write a YouTube-VIS file, atomically. Masks are complete, also where they overlap.

    Args:
        path: Path of the file.
        dataset: Size and categories.
        video: Name of the video.
        num_frames: Number of frames of the video; each is listed, and has null where an object has no mask.
        tracks: The objects.

    Raises:
        OSError: If the file cannot be written, for example a DiskFullError.
    """
    height, width = dataset.size
    names = [f"{video}/{frame:05d}.jpg" for frame in range(num_frames)]
    head = {
        "info": {"description": "made with i2v annotate"},
        "videos": [{"id": 1, "width": width, "height": height, "length": num_frames, "file_names": names}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(dataset.categories, start=1)],
    }
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(compact_json(head)[:-1] + ',\n"annotations":[')
        for place, track in enumerate(tracks):
            file.write(",\n" if place else "\n")
            _write_track(file, dataset, num_frames, track)
        file.write("\n]}\n")


def _write_track(file: TextIO, dataset: Dataset, num_frames: int, track: Track) -> None:
    height, width = dataset.size
    rles = [_rle(track.masks.get(frame), dataset.size) for frame in range(num_frames)]
    annotation = {
        "id": track.number,
        "video_id": 1,
        "category_id": dataset.category_id(track.category),
        "iscrowd": 0,
        "height": height,
        "width": width,
        "length": num_frames,
        "segmentations": rles,
        "bboxes": [None if rle is None else [int(v) for v in coco_mask.toBbox(rle)] for rle in rles],
        "areas": [None if rle is None else int(coco_mask.area(rle)) for rle in rles],
    }
    file.write(compact_json(annotation))


def _rle(counts: bytes | None, size: Size) -> dict[str, Any] | None:
    # null where an object is not visible
    if counts is None:
        return None
    rle = {"size": list(size), "counts": counts.decode("ascii")}
    return rle if coco_mask.area(rle) else None
