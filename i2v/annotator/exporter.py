"""Exporting a session's masks: palette PNGs, JSON of several kinds, and an overlay video."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from i2v.annotator.document import ObjectInfo
from i2v.annotator.session import Session
from i2v.annotator.work import Outcome
from i2v.results.coco import COCO_NAME, CocoInstances
from i2v.results.cvat import CVAT_NAME, write_cvat
from i2v.results.export import JSON_NAME, MASK_NAME, VIDEO_NAME, write_label_png
from i2v.results.frame_names import FrameNames
from i2v.results.instances import Dataset, Instance, categories_of
from i2v.results.label_folders import LABELME_NAME, YOLO_NAME, LabelFolder, LabelmeFiles, YoloLabels
from i2v.results.masks_json import RleJson
from i2v.results.overlay import VideoWriter, blend_overlay
from i2v.results.youtube_vis import VIS_NAME, Track, write_youtube_vis
from i2v.utils.files import DiskFullError, StreamedFile
from i2v.utils.output_folder import clear_files, own_folder
from i2v.utils.temporary import remove_leftovers
from i2v.video.frame_source import FrameSource

Format = Literal["png", "masks", "coco", "yolo", "labelme", "youtube_vis", "cvat", "overlay"]
NAMES: Mapping[Format, str] = {
    "png": "masks/",
    "masks": JSON_NAME,
    "coco": COCO_NAME,
    "yolo": f"{YOLO_NAME}/",
    "labelme": f"{LABELME_NAME}/",
    "youtube_vis": VIS_NAME,
    "cvat": CVAT_NAME,
    "overlay": VIDEO_NAME,
}
"""Names of the formats' files in the folder."""


_DATASETS: Mapping[Format, tuple[Callable[[Path, Dataset], CocoInstances | LabelFolder], str]] = {
    "coco": (CocoInstances, COCO_NAME),
    "yolo": (YoloLabels, YOLO_NAME),
    "labelme": (LabelmeFiles, LABELME_NAME),
}
_TRACKS: Mapping[Format, tuple[Callable[[Path, Dataset, str, int, Iterable[Track]], None], str]] = {
    "youtube_vis": (write_youtube_vis, VIS_NAME),
    "cvat": (write_cvat, CVAT_NAME),
}


@dataclass(frozen=True)
class ExportRequest:
    """What to export.

    Attributes:
        formats: The formats, at least one.
        first: First frame.
        last: Last frame; ``None`` for the last one of the video.
        with_hidden: Whether hidden objects are exported.
    """

    formats: frozenset[Format]
    first: int = 0
    last: int | None = None
    with_hidden: bool = True


@dataclass(frozen=True)
class _Scores:
    object_score: float
    iou: float


class Export:
    """An export of a session's state at the time of creation; later changes do not affect it.

    Attributes:
        folder: The output folder.
        frames: The frames of the chosen range.
        objects: The exported objects.
    """

    def __init__(self, session: Session, folder: Path, request: ExportRequest) -> None:
        """Take a snapshot of the session.

        Args:
            session: The session.
            folder: The output folder.
            request: What to export.

        Raises:
            ValueError: If there is no format, no such frame, or no mask in the range.
        """
        self.folder = folder
        self._store, self._footage, self._size = session.store, session.footage, session.size
        self._formats = request.formats
        self.objects: Sequence[ObjectInfo] = [
            info for info in session.document.objects if info.visible or request.with_hidden
        ]
        self.frames = self._range(request)
        self._masked = set(self._store.frames_of([info.number for info in self.objects])) & set(self.frames)
        self._num_pngs = 0
        self._streamed: list[StreamedFile] = []
        if not self._masked:
            hidden = "" if request.with_hidden or not session.document.hidden else " of a visible object"
            raise ValueError(f"there is no mask{hidden} to export on frames {self.frames[0]} to {self.frames[-1]} yet")
        if not self._formats:
            raise ValueError("choose at least one format to export")

    def _range(self, request: ExportRequest) -> range:
        count = self._footage.num_available
        last = count - 1 if request.last is None else request.last
        if not 0 <= request.first <= last < count:
            raise ValueError(f"frames to export: expected a range in 0 to {count - 1}, got {request.first} to {last}")
        return range(request.first, last + 1)

    def names(self) -> list[str]:
        """Return the names of what was written in the folder."""
        return [name for form, name in NAMES.items() if form in self._formats]

    def steps(self) -> Generator[int, None, None]:
        """Write the files. Closing the generator early, or a full disk, keeps the frames written so far.

        Frames without a mask are in the overlay and among COCO's images, but have no PNG: nobody has said that there is
        nothing on them.

        Yields:
            The number of frames done.

        Raises:
            DiskFullError: If the disk is full; its ``kept`` says what was saved.
            OSError: If a file cannot be written otherwise.
            ValueError: If a symbolic link is in the place of a folder or file.
        """
        own_folder(self.folder)
        remove_leftovers(self.folder)
        try:
            with self._footage.open() as source:
                yield from self._write_frames(source)
                for form, (write, name) in _TRACKS.items():
                    if form in self._formats:
                        tracks = map(self._track, self.objects)
                        count = self._footage.num_available
                        write(self.folder / name, self._dataset(source), self._footage.name, count, tracks)
        except DiskFullError as error:
            counts = {"masks/": self._num_pngs, **{f.path.name: f.num_frames for f in self._streamed if f.is_kept}}
            kept = ", ".join(f"{count} frames in {name}" for name, count in counts.items() if count)
            error.kept = f"kept in {self.folder}: {kept or 'nothing'}"
            raise

    def _write_frames(self, source: FrameSource) -> Generator[int, None, None]:
        labels: dict[Any, int] = {info.number: info.number for info in self.objects}
        with contextlib.ExitStack() as files:
            pngs = self._png_folder() if "png" in self._formats else None
            rle, video = None, None
            datasets: list[CocoInstances | LabelFolder] = []
            if "masks" in self._formats:
                rate, names = self._footage.frame_rate, FrameNames(source)
                rle = RleJson(self.folder / JSON_NAME, labels, rate, names)
            for form, (make, name) in _DATASETS.items():
                if form in self._formats:
                    datasets.append(make(self.folder / name, self._dataset(source)))
            if "overlay" in self._formats:
                video = VideoWriter(self.folder / VIDEO_NAME, self._footage.frame_rate)
            self._streamed = [file for file in (rle, video, *datasets) if isinstance(file, StreamedFile)]
            for file in self._streamed:
                files.enter_context(file)
            for done, frame in enumerate(self.frames, start=1):
                if video is not None or frame in self._masked:
                    merged = self._store.label_map(frame, labels, self._size)
                if pngs is not None and frame in self._masked:
                    write_label_png(pngs / f"{frame:05d}.png", merged)
                    self._num_pngs += 1
                if rle is not None and frame in self._masked:
                    rle.write(frame, merged, self._scores(frame))
                for dataset in datasets:
                    if frame in self._masked or isinstance(dataset, CocoInstances):
                        dataset.write(frame, self._instances(frame))
                if video is not None:
                    video.write(blend_overlay(source.read(frame), merged))
                yield done

    def _png_folder(self) -> Path:
        folder = own_folder(self.folder / "masks")
        remove_leftovers(folder)
        clear_files(folder, MASK_NAME)
        return folder

    def _dataset(self, source: FrameSource) -> Dataset:
        categories = categories_of(info.exported_category for info in self.objects)
        return Dataset(self._size, tuple(self.frames), categories, FrameNames(source))

    def _instances(self, frame: int) -> list[Instance]:
        shown = [(info, self._store.shown(info.number, frame)) for info in self.objects]
        return [
            Instance(i.number, i.exported_category, mask.counts, mask.confidence)
            for i, mask in shown
            if mask is not None
        ]

    def _scores(self, frame: int) -> Mapping[Any, _Scores | None]:
        found = {info.number: self._store.shown(info.number, frame) for info in self.objects}
        return {
            number: None if m.object_score is None or m.iou is None else _Scores(m.object_score, m.iou)
            for number, m in found.items()
            if m is not None
        }

    def _track(self, info: ObjectInfo) -> Track:
        shown = {frame: self._store.shown(info.number, frame) for frame in self._masked}
        return Track(
            info.number,
            info.exported_category,
            {frame: mask.counts for frame, mask in shown.items() if mask is not None},
        )


def start_export(session: Session, folder: Path, request: ExportRequest) -> None:
    """Start exporting a session's masks, as a job of the session.

    Raises:
        ValueError: If there is nothing to export.
        RuntimeError: If another job is running.
    """
    export = Export(session, folder, request)

    async def run() -> Outcome:
        await session.work.each(export.steps(), session.work.advance)
        return Outcome("exported", {"folder": str(folder), "names": export.names(), "objects": len(export.objects)})

    session.work.start("export", run, len(export.frames))
