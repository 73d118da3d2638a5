"""Exporting a session's masks: palette PNGs, COCO RLE JSON, YouTube-VIS JSON and an overlay video."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from pycocotools import mask as coco_mask

from i2v.annotator.footage import Footage
from i2v.annotator.masks import Size, StoredMask
from i2v.annotator.session import Session
from i2v.results.export import JSON_NAME, MASK_NAME, VIDEO_NAME, RleJson, write_label_png
from i2v.results.frame_names import FrameNames
from i2v.results.overlay import VideoWriter, blend_overlay
from i2v.utils.files import DiskFullError, StreamedFile, replacing
from i2v.utils.output_folder import clear_files, own_folder
from i2v.utils.temporary import remove_leftovers

Format = Literal["png", "coco", "youtube_vis", "overlay"]
VIS_NAME = "youtube_vis.json"


@dataclass(frozen=True)
class _Scores:
    object_score: float
    iou: float


class Export:
    """An export of a session's state at the time of creation; later changes do not affect it."""

    def __init__(self, session: Session, folder: Path, formats: Collection[Format]) -> None:
        """Take a snapshot of the session.

        Args:
            session: The session.
            folder: The output folder.
            formats: Formats to write.

        Raises:
            ValueError: If there is no mask or no format.
        """
        self.folder = folder
        self._document, self._store = session.document, session.store
        self._footage: Footage = session.footage
        self._size: Size = session.size
        self._formats = set(formats)
        self._num_pngs = 0
        self._streamed: list[StreamedFile] = []
        self.frames = self._store.frames_of(self._document.numbers)
        if not self.frames:
            raise ValueError("there is no mask to export yet")
        if not self._formats:
            raise ValueError("choose at least one format to export")

    def steps(self) -> Generator[int, None, None]:
        """Write the files. Closing the generator early, or a full disk, keeps the frames written so far.

        Yields:
            The number of frames done.

        Raises:
            DiskFullError: If the disk is full; its ``kept`` says what was saved.
            OSError: If a file cannot be written otherwise.
        """
        own_folder(self.folder)
        remove_leftovers(self.folder)
        try:
            yield from self._write_frames()
            if "youtube_vis" in self._formats:
                self._write_youtube_vis()
        except DiskFullError as error:
            counts = {"masks/": self._num_pngs, **{f.path.name: f.num_frames for f in self._streamed if f.is_kept}}
            kept = ", ".join(f"{count} frames in {name}" for name, count in counts.items() if count)
            error.kept = f"kept in {self.folder}: {kept or 'nothing'}"
            raise

    def _write_frames(self) -> Generator[int, None, None]:
        labels: dict[Any, int] = {number: number for number in self._document.numbers}
        with contextlib.ExitStack() as files:
            pngs = self._png_folder() if "png" in self._formats else None
            rle, video, source = None, None, None
            if "coco" in self._formats:
                names = FrameNames(files.enter_context(self._footage.open()))
                rle = files.enter_context(RleJson(self.folder / JSON_NAME, labels, self._footage.frame_rate, names))
            if "overlay" in self._formats:
                source = files.enter_context(self._footage.open())
                video = files.enter_context(VideoWriter(self.folder / VIDEO_NAME, self._footage.frame_rate))
            self._streamed = [file for file in (rle, video) if file is not None]
            for done, frame in enumerate(self.frames, start=1):
                merged = self._store.label_map(frame, labels, self._size)
                if pngs is not None:
                    write_label_png(pngs / f"{frame:05d}.png", merged)
                    self._num_pngs = done
                if rle is not None:
                    rle.write(frame, merged, self._scores(frame))
                if video is not None and source is not None:
                    video.write(blend_overlay(source.read(frame), merged))
                yield done

    def names(self) -> list[str]:
        """Return the names of what was written in the folder."""
        named: dict[Format, str] = {
            "png": "masks/",
            "coco": JSON_NAME,
            "youtube_vis": VIS_NAME,
            "overlay": VIDEO_NAME,
        }
        return [name for form, name in named.items() if form in self._formats]

    def _png_folder(self) -> Path:
        folder = own_folder(self.folder / "masks")
        remove_leftovers(folder)
        clear_files(folder, MASK_NAME)
        return folder

    def _scores(self, frame: int) -> Mapping[Any, _Scores | None]:
        found = {number: self._store.shown(number, frame) for number in self._document.numbers}
        return {
            number: None if m.object_score is None or m.iou is None else _Scores(m.object_score, m.iou)
            for number, m in found.items()
            if m is not None
        }

    def _write_youtube_vis(self) -> None:
        categories = {name: i for i, name in enumerate(sorted({o.name for o in self._document.objects}), start=1)}
        with replacing(self.folder / VIS_NAME) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write('{"info":{"description":"made with i2v annotate"},"videos":[')
            json.dump(_vis_video(self._footage), file)
            file.write('],\n"categories":')
            json.dump([{"id": i, "name": name} for name, i in categories.items()], file)
            file.write(',\n"annotations":[')
            for place, info in enumerate(self._document.objects):
                file.write(",\n" if place else "\n")
                self._write_vis_object(file, info.number, categories[info.name])
            file.write("\n]}\n")

    def _write_vis_object(self, file: TextIO, number: int, category: int) -> None:
        height, width = self._size
        rles = [_vis_rle(self._store.shown(number, f), self._size) for f in range(self._footage.num_available)]
        json.dump(
            {
                "id": number,
                "video_id": 1,
                "category_id": category,
                "iscrowd": 0,
                "height": height,
                "width": width,
                "length": len(rles),
                "segmentations": rles,
                "bboxes": [None if rle is None else [int(v) for v in coco_mask.toBbox(rle)] for rle in rles],
                "areas": [None if rle is None else int(coco_mask.area(rle)) for rle in rles],
            },
            file,
            separators=(",", ":"),
        )


def _vis_video(footage: Footage) -> dict[str, Any]:
    names = [f"{footage.name}/{frame:05d}.jpg" for frame in range(footage.num_available)]
    size = {"width": footage.width, "height": footage.height, "length": len(names)}
    return {"id": 1, **size, "file_names": names}


def _vis_rle(stored: StoredMask | None, size: Size) -> dict[str, Any] | None:
    # YouTube-VIS has null where an object is not visible.
    if stored is None:
        return None
    rle = {"size": list(size), "counts": stored.counts.decode("ascii")}
    return rle if coco_mask.area(rle) else None
