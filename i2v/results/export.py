"""Results out: palette PNGs, COCO RLE JSON, and, through `overlay`, an overlay video and a contact sheet.

Everything is streamed: nothing here keeps more than one frame. No torch is imported, so that the command line
starts quickly.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from i2v.errors import InvalidFileError, brief
from i2v.prompts.object_ids import canonical_id
from i2v.results.frame_names import NUMBERED, FrameNames, clear_masks
from i2v.results.overlay import (
    COARSE_CRF,
    CRF,
    PALETTE,
    ContactSheet,
    Pixels,
    UserPrompt,
    VideoWriter,
    blend_overlay,
    spread_frames,
)
from i2v.utils.files import DiskFullError, StreamedFile
from i2v.utils.image_file import load_image
from i2v.utils.output_folder import clear_files, own_folder, refuse_link
from i2v.utils.picture_file import write_picture
from i2v.utils.signals import interrupts_deferred
from i2v.utils.temporary import remove_leftovers

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

MAX_OBJECTS = 255
Progress: TypeAlias = Callable[[list[int]], Iterable[int]]
JSON_NAME, VIDEO_NAME, SHEET_NAME = "masks.json", "overlay.mp4", "contact_sheet.png"
MASK_NAME = NUMBERED


class PictureSource(Protocol):
    """What finishing a run needs of a video: a frame (H,W,3) uint8 by its index, and the frame rate in Hz."""

    @property
    def frame_rate(self) -> float | None: ...

    def read(self, frame: int, /) -> Pixels: ...


class MaskScores(Protocol):
    """What the model says of one object on one frame: object_score logit, and mask quality within 0..1."""

    @property
    def object_score(self) -> float: ...

    @property
    def iou(self) -> float: ...


def assign_labels(obj_ids: Iterable[Hashable]) -> dict[Hashable, int]:
    """Label 1..255 of every object: its id where all ids are integers within 1..255, else its 1-based place.

    Raises ValueError for more than 255 objects: a label map has one byte per pixel.
    """
    ids = list(dict.fromkeys(map(canonical_id, obj_ids)))
    if len(ids) > MAX_OBJECTS:
        raise ValueError(f"a palette PNG holds at most {MAX_OBJECTS} objects, got {len(ids)}")
    integers = [obj_id for obj_id in ids if isinstance(obj_id, int) and 1 <= obj_id <= MAX_OBJECTS]
    if len(integers) == len(ids):
        return dict(zip(ids, integers, strict=True))
    return {obj_id: position for position, obj_id in enumerate(ids, start=1)}


def label_map(logits: torch.Tensor, labels: Sequence[int]) -> Pixels:
    """Merge logits (N,1,H,W) into one label map (H,W): the label of the highest positive logit, else 0."""
    if len(logits) != len(labels):
        raise ValueError(f"labels: expected {len(logits)}, one per object, got {len(labels)}")
    if not labels:
        return np.zeros(tuple(logits.shape[-2:]), np.uint8)
    if len(labels) == 1:
        return (logits[0, 0] > 0).cpu().numpy() * np.uint8(labels[0])
    best, winner = logits[:, 0].max(dim=0)
    # Two bytes per pixel leave the device, whatever the number of objects.
    foreground, position = (best > 0).cpu().numpy(), winner.byte().cpu().numpy()
    return np.where(foreground, np.asarray(labels, np.uint8)[position], np.uint8(0))


def write_label_png(path: str | Path, labels: Pixels) -> None:
    """Write a label map (H,W) uint8 as a palette PNG, atomically."""
    image = Image.fromarray(labels)
    image.putpalette(PALETTE.tobytes())
    # Label maps are flat: more effort makes them hardly smaller, and takes three times as long.
    write_picture(path, image, "PNG", compress_level=1)


def read_label_png(path: str | Path) -> Pixels:
    """Read the label map (H,W) uint8 that `write_label_png` wrote; InvalidFileError for anything else."""
    image = load_image(path, formats=("PNG",))
    if image.mode != "P":
        raise InvalidFileError(path, f"expected a palette PNG, got one of mode {image.mode}")
    return np.array(image, dtype=np.uint8)


class RleJson(StreamedFile):
    """Masks as compact JSON in COCO's run-length encoding: one line per frame, one entry per object on it.

    The file is whole after every frame, so that the frames before a disk was full are kept.
    """

    _END = b"\n]}\n"

    def __init__(
        self,
        path: str | Path,
        labels: Mapping[Hashable, int],
        frame_rate: float | None = None,
        names: FrameNames | None = None,
    ) -> None:
        """Open nothing yet.

        `labels`: the label of every object of the run in the label maps to come; `names`: what is said of frames.
        Raises ValueError for ids that JSON has not.
        """
        super().__init__(path)
        self._labels = {canonical_id(obj_id): label for obj_id, label in labels.items()}
        check_json_ids(self._labels, self.path)
        self._frame_rate = frame_rate
        self._names = names or FrameNames()
        self._file: io.FileIO | None = None
        self._size = 0  # bytes, up to the end of the last frame

    def write(self, frame: int, labels: Pixels, scores: Mapping[Hashable, MaskScores | None]) -> None:
        """Append a label map (H,W): an entry for every object in `scores`, with area 0 where it is absent.

        Raises DiskFullError; then the file has the frames before.
        """
        given = {canonical_id(obj_id): score for obj_id, score in scores.items()}
        entries = [_entry(obj_id, labels == self._labels[obj_id], score) for obj_id, score in given.items()]
        line = _compact({**self._names.describe(frame), "objects": entries})
        with self._writing():
            if self._file is None:
                self._file = io.FileIO(self._make(), "w")
            text = f",\n{line}" if self.num_frames else f"{self._header(labels.shape)}\n{line}"
            self._write_after_last_frame(self._file, text.encode("ascii") + self._END)
            self._size += len(text)
            self.num_frames += 1

    def _write_after_last_frame(self, file: io.FileIO, data: bytes) -> None:
        file.seek(self._size)
        rest = memoryview(data)
        while rest:
            # A disk that is nearly full takes a part.
            rest = rest[file.write(rest) or 0 :]

    def _undo_write(self) -> bool:
        if self._file is None or not self.num_frames:
            return False
        try:
            # The end has been there before, after the last frame: it needs no more room than the file had.
            self._file.truncate(self._size)
            self._write_after_last_frame(self._file, self._END)
        except OSError:
            return False
        return True

    def _header(self, size: tuple[int, ...]) -> str:
        objects = [{"id": obj_id, "label": label} for obj_id, label in self._labels.items()]
        video = {} if self._names.video is None else {"video": self._names.video}
        fields = _compact({**video, "size": size, "frame_rate": self._frame_rate, "objects": objects})
        return fields[:-1] + ',"frames":['

    def _finalize(self) -> None:
        if self._file is not None:
            self._file.close()


def check_json_ids(obj_ids: Iterable[Hashable], path: str | Path) -> None:
    """ValueError unless ids can be written to JSON and read from it: integers and texts."""
    for obj_id in obj_ids:
        if not isinstance(obj_id, int | str):
            raise ValueError(f"{path}: ids of objects: expected integers or texts, got {brief(obj_id)}")


def _entry(obj_id: Hashable, mask: NDArray[np.bool_], scores: MaskScores | None) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "id": obj_id,
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
        "bbox": [int(value) for value in coco_mask.toBbox(rle)],
        "area": int(coco_mask.area(rle)),
        "object_score": None if scores is None else _rounded(scores.object_score),
        "iou": None if scores is None else _rounded(scores.iou),
    }


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _rounded(score: float) -> float | None:
    # JSON has no NaN: a score that is none becomes null.
    return round(float(score), 4) if math.isfinite(score) else None


class ResultFolder:
    """The results of one tracking run: masks/00000.png ..., masks.json, overlay.mp4, contact_sheet.png.

    Masks of frames from picture files are called after these, see `FrameNames`. Where labels differ from ids, the table
    of both is in the head of masks.json and in `labels`.

    Masks are written as the frames come, in any order. JSON and video need the order of the video. They grow along
    where that is how the frames come; a backward run gives them reversed, so `finish` makes both afterwards, from the
    masks on disk and the frames, read again. On a full disk the finished frames keep their masks, in PNGs and JSON,
    and get a coarser video if there is room for one.
    """

    def __init__(
        self,
        folder: str | Path,
        obj_ids: Iterable[Hashable],
        overwrite: bool = False,
        ordered: PictureSource | None = None,
        names: FrameNames | None = None,
    ) -> None:
        """Make nothing yet.

        Raises FileExistsError if the folder holds anything, unless `overwrite`, and ValueError if it, or the one of the
        masks in it, is a link to another folder.

        `ordered`: the video, which nobody else reads, given if frames will be added in its order; `names`: how its
        frames are called, by number if not given.
        """
        self.folder = Path(folder)
        self.labels = assign_labels(obj_ids)
        check_json_ids(self.labels, self.folder / JSON_NAME)
        self._names = names or FrameNames()
        self._scores: dict[int, dict[Hashable, MaskScores | None]] = {}
        self._ordered = ordered
        self._masks: RleJson | None = None
        self._video: VideoWriter | None = None
        for own in (self.folder, self.folder / "masks"):
            refuse_link(own)
        if self.folder.exists() and not self.folder.is_dir():
            raise FileExistsError(f"{self.folder} is a file, expected a folder for the results")
        if not overwrite and self.folder.is_dir() and any(self.folder.iterdir()):
            raise FileExistsError(f"{self.folder} is not empty: give --overwrite or another --out")

    @property
    def frames(self) -> list[int]:
        """The finished frames, in order."""
        return sorted(self._scores)

    def mask_path(self, frame: int) -> Path:
        """Where the label map of a frame is."""
        return self.folder / "masks" / self._names.mask_name(frame)

    def add(
        self,
        frame: int,
        obj_ids: Sequence[Hashable],
        logits: torch.Tensor,
        scores: Mapping[Any, MaskScores],
    ) -> None:
        """Write the masks of a frame from its logits (N,1,H,W), and remember its scores for `finish`."""
        self.add_labels(frame, obj_ids, self.label_map(obj_ids, logits), scores)

    def label_map(self, obj_ids: Sequence[Hashable], logits: torch.Tensor) -> Pixels:
        """Merge logits (N,1,H,W) into one label map (H,W) with the labels of these results."""
        return label_map(logits, [self.labels[canonical_id(obj_id)] for obj_id in obj_ids])

    def add_labels(
        self, frame: int, obj_ids: Sequence[Hashable], labels: Pixels, scores: Mapping[Any, MaskScores]
    ) -> None:
        """As `add`, from a label map; may run in another thread, for one frame at a time."""
        given = {canonical_id(obj_id): scores.get(obj_id) for obj_id in obj_ids}
        picture = None if self._ordered is None else blend_overlay(self._ordered.read(frame), labels)
        # A frame is finished or it is not: an interrupt must not leave its PNG without its scores.
        with interrupts_deferred():
            masks = self._masks or self._begin()
            write_label_png(self.mask_path(frame), labels)
            try:
                masks.write(frame, labels, given)
            except OSError:
                self.mask_path(frame).unlink(missing_ok=True)
                raise
            self._scores[frame] = given
            if self._video is not None and picture is not None:
                self._video.write(picture)

    def _begin(self) -> RleJson:
        # Only our own file names go: the folder is the user's.
        own_folder(self.folder)
        pngs = own_folder(self.folder / "masks")
        for folder in (self.folder, pngs):
            remove_leftovers(folder)
        clear_files(self.folder, "|".join(map(re.escape, (JSON_NAME, VIDEO_NAME, SHEET_NAME))))
        clear_masks(pngs)
        self._masks = self._new_masks(self._ordered)
        if self._ordered is not None:
            self._video = VideoWriter(self.folder / VIDEO_NAME, self._ordered.frame_rate)
        return self._masks

    def _new_masks(self, source: PictureSource | None) -> RleJson:
        frame_rate = None if source is None else source.frame_rate
        return RleJson(self.folder / JSON_NAME, self.labels, frame_rate, self._names)

    def finish(self, source: PictureSource, prompts: Sequence[UserPrompt], progress: Progress = iter) -> None:
        """Complete JSON and video, or make them of the finished frames, and write the contact sheet.

        `progress` may wrap the loop over frames that are gone through once more. Where one of the files cannot be
        written, as on a full disk, the others are written nevertheless before the first OSError is raised.
        """
        troubles: list[OSError] = []
        for write in (
            lambda: self._complete_masks(source),
            lambda: self._complete_video(source, progress),
            lambda: self._write_sheet(source, prompts),
        ):
            try:
                write()
            except OSError as error:
                troubles.append(error)
        if troubles:
            raise troubles[0]

    def lacks(self) -> list[str]:
        """What is missing beside the PNGs of the finished frames, for a message; nothing if `finish` raised nothing."""
        names = [name for name in (JSON_NAME, VIDEO_NAME, SHEET_NAME) if not (self.folder / name).exists()]
        written = len(self._scores) if self._masks is None else self._masks.num_frames
        if JSON_NAME not in names and written < len(self._scores):
            names.append(f"{len(self._scores) - written} frames in {JSON_NAME}")
        return names if self._scores else []

    def _complete_masks(self, source: PictureSource) -> None:
        if self._masks is None:
            return
        if self._ordered is not None:
            self._masks.close()
            return
        # What is there, in the order of coming, has kept the room: the disk may be full by now.
        self._masks.discard()
        self._masks = self._new_masks(source)
        with self._masks:
            for frame in self.frames:
                self._masks.write(frame, read_label_png(self.mask_path(frame)), self._scores[frame])

    def _complete_video(self, source: PictureSource, progress: Progress) -> None:
        with contextlib.suppress(DiskFullError):
            if self._video is None:
                self._write_video(source, progress)
            else:
                self._video.close()
            if self._video is None or self._video.is_kept or not self._scores:
                return
        # What there was of it has made room by going, and a coarser one needs a quarter of that.
        self._write_video(source, progress, COARSE_CRF)
        log.warning("%s: the disk is nearly full: its video is coarser than usual", self.folder / VIDEO_NAME)

    def _write_video(self, source: PictureSource, progress: Progress, crf: int = CRF) -> None:
        with VideoWriter(self.folder / VIDEO_NAME, source.frame_rate, crf) as video:
            for frame in progress(self.frames):
                video.write(self._overlay(source, frame))

    def _write_sheet(self, source: PictureSource, prompts: Sequence[UserPrompt]) -> None:
        chosen = spread_frames(self.frames, keep=[prompt.frame for prompt in prompts])
        sheet = ContactSheet(chosen, prompts, self.labels)
        for frame in chosen:
            sheet.add(frame, self._overlay(source, frame))
        sheet.save(self.folder / SHEET_NAME)

    def _overlay(self, source: PictureSource, frame: int) -> Pixels:
        return blend_overlay(source.read(frame), read_label_png(self.mask_path(frame)))
