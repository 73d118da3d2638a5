"""Results of tracking as datasets, from ``masks.json``: COCO, YOLO, labelme, YouTube-VIS and CVAT."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from i2v.errors import InvalidFileError, brief, reading
from i2v.results.coco import COCO_NAME, CocoInstances
from i2v.results.cvat import CVAT_NAME, write_cvat
from i2v.results.export import JSON_NAME
from i2v.results.frame_names import FrameNames
from i2v.results.instances import Dataset, Instance, categories_of, confidence
from i2v.results.label_folders import LABELME_NAME, YOLO_NAME, LabelFolder, LabelmeFiles, YoloLabels
from i2v.results.rle import RunLengths, encode_mask
from i2v.results.youtube_vis import VIS_NAME, Track, write_youtube_vis

DatasetFormat = Literal["coco", "yolo", "labelme", "youtube_vis", "cvat"]
DATASET_FORMATS: tuple[DatasetFormat, ...] = get_args(DatasetFormat)

_TRACKS: Mapping[DatasetFormat, tuple[Callable[[Path, Dataset, str, int, Iterable[Track]], None], str]] = {
    "youtube_vis": (write_youtube_vis, VIS_NAME),
    "cvat": (write_cvat, CVAT_NAME),
}


@dataclass(frozen=True)
class _Results:
    """What ``masks.json`` says before its frames, and where these are."""

    path: Path
    size: tuple[int, int]
    labels: Mapping[int | str, int]
    video: str

    def frames(self) -> Iterator[dict[str, Any]]:
        with self.path.open(encoding="ascii") as file:
            next(file)
            for number, line in enumerate(file, start=2):
                if line.startswith("{"):
                    with reading(self.path, "this JSON", f"line {number}"):
                        frame: dict[str, Any] = json.loads(line.rstrip("\n,"))
                    yield frame


class _KnownNames(FrameNames):
    """The names that ``masks.json`` has of frames from files."""

    def __init__(self, names: Mapping[int, str], video: str) -> None:
        super().__init__()
        self._known, self._video_name = names, video

    @property
    def video(self) -> str | None:
        return self._video_name or None

    def describe(self, frame: int) -> dict[str, Any]:
        name = self._known.get(frame)
        return {"frame": frame} if name is None else {"frame": frame, "name": name}


def write_datasets(
    folder: str | Path, formats: Collection[DatasetFormat], categories: Mapping[int | str, str] | None = None
) -> list[Path]:
    """Write the results in a folder of ``ResultFolder`` as datasets, too, beside its ``masks.json``.

    Frame by frame: a long video takes no more memory than a short one, except for YouTube-VIS and CVAT, which list an
    object's masks together.

    Args:
        folder: The folder of results.
        formats: The formats to write.
        categories: Name of each object's category; by default a text that is its id, else "object" and the number.

    Returns:
        The files and folders that were written.

    Raises:
        OSError: If there are no results, or a file cannot be written.
        InvalidFileError: If ``masks.json`` is not as i2v writes it.
        ValueError: If there is no such format, or a link is in the place of a folder.
    """
    folder = Path(folder)
    unknown = [name for name in formats if name not in DATASET_FORMATS]
    if unknown:
        raise ValueError(f"formats of datasets: expected {', '.join(DATASET_FORMATS)}, got {brief(unknown[0])}")
    results = _read_header(folder / JSON_NAME)
    names = {obj_id: (categories or {}).get(obj_id) or _default_name(obj_id) for obj_id in results.labels}
    frames = {entry["frame"]: entry.get("name") for entry in results.frames()}
    known = {frame: name for frame, name in frames.items() if isinstance(name, str)}
    dataset = Dataset(
        results.size, tuple(sorted(frames)), categories_of(names.values()), _KnownNames(known, results.video)
    )
    written = _write_by_frame(folder, formats, dataset, results, names)
    chosen = [form for form in _TRACKS if form in formats]
    tracks = _tracks(results, names) if chosen else []
    for form in chosen:
        write, name = _TRACKS[form]
        write(folder / name, dataset, results.video or "video", max(dataset.frames, default=-1) + 1, tracks)
        written.append(folder / name)
    return written


def _write_by_frame(
    folder: Path,
    formats: Collection[DatasetFormat],
    dataset: Dataset,
    results: _Results,
    names: Mapping[int | str, str],
) -> list[Path]:
    folders: list[LabelFolder] = []
    if "yolo" in formats:
        folders.append(YoloLabels(folder / YOLO_NAME, dataset))
    if "labelme" in formats:
        folders.append(LabelmeFiles(folder / LABELME_NAME, dataset))
    with CocoInstances(folder / COCO_NAME, dataset) as coco:
        for entry in results.frames():
            instances = _instances(entry, results, names)
            if "coco" in formats:
                coco.write(entry["frame"], instances)
            for one in folders:
                one.write(entry["frame"], instances)
    return [*([folder / COCO_NAME] if "coco" in formats else []), *(one.folder for one in folders)]


def _instances(entry: dict[str, Any], results: _Results, names: Mapping[int | str, str]) -> list[Instance]:
    found = []
    with reading(results.path, "this frame", f"frame {entry['frame']}"):
        for mask in entry["objects"]:
            counts = encode_mask(RunLengths.of_coco(mask["segmentation"], results.size).mask())
            score = confidence(mask.get("object_score"), mask.get("iou"))
            found.append(Instance(results.labels[mask["id"]], names[mask["id"]], counts, score))
    return found


def _tracks(results: _Results, names: Mapping[int | str, str]) -> list[Track]:
    masks: dict[int, dict[int, bytes]] = {label: {} for label in results.labels.values()}
    for entry in results.frames():
        for instance in _instances(entry, results, names):
            masks[instance.track][entry["frame"]] = instance.counts
    return [Track(label, names[obj_id], masks[label]) for obj_id, label in results.labels.items()]


def _read_header(path: Path) -> _Results:
    with path.open(encoding="ascii", errors="replace") as file:
        line = file.readline(1 << 20)
    try:
        header = json.loads(line + "]}")
        height, width = header["size"]
        labels = {entry["id"]: int(entry["label"]) for entry in header["objects"]}
        return _Results(path, (int(height), int(width)), labels, str(header.get("video") or ""))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidFileError(path, "expected masks as i2v track writes them, with a line for each frame") from error


def _default_name(obj_id: int | str) -> str:
    return obj_id if isinstance(obj_id, str) else f"object {obj_id}"
