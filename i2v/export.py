"""Results out: palette PNGs, COCO RLE JSON, and, through `overlay`, an overlay video and a contact sheet.

Everything is streamed: nothing here keeps more than one frame. No torch is imported, so that the command line
starts quickly.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from i2v.errors import InvalidFileError
from i2v.overlay import PALETTE, ContactSheet, Pixels, UserPrompt, VideoWriter, blend_overlay, spread_frames
from i2v.utils.files import StreamedFile, interrupts_deferred, replacing
from i2v.utils.image_file import load_image
from i2v.utils.output_folder import clear_files, own_folder, refuse_link

if TYPE_CHECKING:
    import torch

MAX_OBJECTS = 255
JSON_NAME, VIDEO_NAME, SHEET_NAME = "masks.json", "overlay.mp4", "contact_sheet.png"
MASK_NAME = r"\d{5,}\.png"  # of a frame, as a regular expression


class FrameReader(Protocol):
    """What finishing a run needs of a video: a frame (H,W,3) uint8 by its index, and the frame rate in Hz."""

    @property
    def frame_rate(self) -> float | None: ...

    def read(self, frame: int, /) -> Pixels: ...


class Scores(Protocol):
    """What the model says of one object on one frame: presence logit, and mask quality within 0..1."""

    @property
    def presence(self) -> float: ...

    @property
    def iou(self) -> float: ...


def assign_labels(obj_ids: Iterable[Hashable]) -> dict[Hashable, int]:
    """Label 1..255 of every object: its id where all ids are integers within 1..255, else its 1-based place.

    Raises ValueError for more than 255 objects: a label map has one byte per pixel.
    """
    ids = list(dict.fromkeys(obj_ids))
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
    with replacing(path) as temporary:
        # Label maps are flat: more effort makes them hardly smaller, and takes three times as long.
        image.save(temporary, format="PNG", compress_level=1)


def read_label_png(path: str | Path) -> Pixels:
    """Read the label map (H,W) uint8 that `write_label_png` wrote; InvalidFileError for anything else."""
    image = load_image(path, formats=("PNG",))
    if image.mode != "P":
        raise InvalidFileError(path, f"wanted a palette PNG, got one of mode {image.mode}")
    return np.array(image, dtype=np.uint8)


class RleJson(StreamedFile):
    """Masks as compact JSON in COCO's run-length encoding: one line per frame, one entry per object on it."""

    def __init__(self, path: str | Path, labels: Mapping[Hashable, int], frame_rate: float | None = None) -> None:
        """`labels`: the label of every object of the run in the label maps to come."""
        super().__init__(path)
        self._labels = dict(labels)
        self._frame_rate = frame_rate
        self._file: IO[str] | None = None

    def write(self, frame: int, labels: Pixels, scores: Mapping[Hashable, Scores | None]) -> None:
        """Append a label map (H,W): an entry for every object in `scores`, with area 0 where it is absent."""
        entries = [_entry(obj_id, labels == self._labels[obj_id], given) for obj_id, given in scores.items()]
        with self._writing():
            if self._file is None:
                self._file = self._temporary.open("w", encoding="ascii")
                self._file.write(self._header(labels.shape))
            separator = ",\n" if self.num_frames else "\n"
            self._file.write(separator + _compact({"frame": frame, "objects": entries}))
            self.num_frames += 1

    def _header(self, size: tuple[int, ...]) -> str:
        objects = [{"id": obj_id, "label": label} for obj_id, label in self._labels.items()]
        fields = _compact({"size": size, "frame_rate": self._frame_rate, "objects": objects})
        return fields[:-1] + ',"frames":['

    def _finalize(self) -> None:
        if self._file is not None:
            with self._file:
                self._file.write("\n]}\n")


def _entry(obj_id: Hashable, mask: NDArray[np.bool_], scores: Scores | None) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "id": obj_id,
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
        "bbox": [int(value) for value in coco_mask.toBbox(rle)],
        "area": int(coco_mask.area(rle)),
        "presence": None if scores is None else _rounded(scores.presence),
        "iou": None if scores is None else _rounded(scores.iou),
    }


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _rounded(score: float) -> float | None:
    # JSON has no NaN: a score that is none becomes null.
    return round(float(score), 4) if math.isfinite(score) else None


class Film:
    """Results that need the frames in the order of the video: masks.json and overlay.mp4 in a folder."""

    def __init__(self, folder: Path, labels: Mapping[Hashable, int], source: FrameReader) -> None:
        """Make nothing yet. `source` is read in order by this alone."""
        self._source = source
        self._masks = RleJson(folder / JSON_NAME, labels, source.frame_rate)
        self._video = VideoWriter(folder / VIDEO_NAME, source.frame_rate)

    def add(self, frame: int, labels: Pixels, scores: Mapping[Hashable, Scores | None]) -> None:
        """Append a frame's label map (H,W) and scores."""
        picture = blend_overlay(self._source.read(frame), labels)
        with interrupts_deferred():
            self._masks.write(frame, labels, scores)
            self._video.write(picture)

    def __enter__(self) -> Film:
        return self

    def __exit__(self, *_: object) -> None:
        """Complete the files with the frames that they have."""
        with self._masks, self._video:
            pass


class ResultFolder:
    """The results of one tracking run: masks/00000.png ..., masks.json, overlay.mp4, contact_sheet.png.

    Masks are written as the frames come, in any order. JSON and video need the order of the video. They grow along
    where that is how the frames come; a backward run gives them reversed, so `finish` makes both afterwards, from the
    masks on disk and the frames, read again.
    """

    def __init__(
        self,
        folder: str | Path,
        obj_ids: Iterable[Hashable],
        overwrite: bool = False,
        ordered: FrameReader | None = None,
    ) -> None:
        """Make nothing yet.

        Raises FileExistsError if the folder holds anything, unless `overwrite`, and ValueError if it, or the one of the
        masks in it, is a link to another folder.

        `ordered`: the video, which nobody else reads, given if frames will be added in its order.
        """
        self.folder = Path(folder)
        self.labels = assign_labels(obj_ids)
        self._scores: dict[int, dict[Hashable, Scores | None]] = {}
        self._film = None if ordered is None else Film(self.folder, self.labels, ordered)
        for own in (self.folder, self.folder / "masks"):
            refuse_link(own)
        if self.folder.exists() and not self.folder.is_dir():
            raise FileExistsError(f"{self.folder} is a file, wanted a folder for the results")
        if not overwrite and self.folder.is_dir() and any(self.folder.iterdir()):
            raise FileExistsError(f"{self.folder} is not empty: give --overwrite or another --out")

    @property
    def frames(self) -> list[int]:
        """The finished frames, in order."""
        return sorted(self._scores)

    def mask_path(self, frame: int) -> Path:
        """Where the label map of a frame is."""
        return self.folder / "masks" / f"{frame:05d}.png"

    def add(
        self,
        frame: int,
        obj_ids: Sequence[Hashable],
        logits: torch.Tensor,
        scores: Mapping[Any, Scores],
    ) -> None:
        """Write the masks of a frame from its logits (N,1,H,W), and remember its scores for `finish`."""
        self.add_labels(frame, obj_ids, self.label_map(obj_ids, logits), scores)

    def label_map(self, obj_ids: Sequence[Hashable], logits: torch.Tensor) -> Pixels:
        """Merge logits (N,1,H,W) into one label map (H,W) with the labels of these results."""
        return label_map(logits, [self.labels[obj_id] for obj_id in obj_ids])

    def add_labels(self, frame: int, obj_ids: Sequence[Hashable], labels: Pixels, scores: Mapping[Any, Scores]) -> None:
        """As `add`, from a label map; may run in another thread, for one frame at a time."""
        # A frame is finished or it is not: an interrupt must not leave its PNG without its scores.
        with interrupts_deferred():
            if not self._scores:
                self._clear()
            write_label_png(self.mask_path(frame), labels)
            given = {obj_id: scores.get(obj_id) for obj_id in obj_ids}
            if self._film is not None:
                self._film.add(frame, labels, given)
            self._scores[frame] = given

    def _clear(self) -> None:
        masks = self.mask_path(0).parent
        own_folder(self.folder)
        own_folder(masks)
        clear_files(self.folder, "|".join(map(re.escape, (JSON_NAME, VIDEO_NAME, SHEET_NAME))))
        clear_files(masks, MASK_NAME)

    def finish(
        self,
        source: FrameReader,
        prompts: Sequence[UserPrompt],
        progress: Callable[[list[int]], Iterable[int]] = iter,
    ) -> None:
        """Complete JSON and video, or make them of the finished frames, and write the contact sheet.

        `progress` may wrap the loop over frames that are gone through once more.
        """
        chosen = spread_frames(self.frames, keep=[prompt.frame for prompt in prompts])
        if self._film is not None:
            with self._film:
                pass
        else:
            with Film(self.folder, self.labels, source) as film:
                for frame in progress(self.frames):
                    film.add(frame, read_label_png(self.mask_path(frame)), self._scores[frame])
        sheet = ContactSheet(chosen, prompts, self.labels)
        for frame in chosen:
            sheet.add(frame, blend_overlay(source.read(frame), read_label_png(self.mask_path(frame))))
        sheet.save(self.folder / SHEET_NAME)
