"""Exporting tracking results: palette PNGs, COCO RLE JSON, an overlay video and a contact sheet.

Everything is streamed, so that at most one frame is in memory. torch is not imported, so that the command line starts
fast.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from i2v.errors import InvalidFileError
from i2v.prompts.object_ids import canonical_id
from i2v.results.frame_names import NUMBERED, FrameNames, clear_masks, uneven_times
from i2v.results.masks_json import RleJson, check_json_ids
from i2v.results.matte import MATTE_NAMES, Matte, compose_matte, matte_writer
from i2v.results.object_table import MaskScores, ObjectRow, write_object_table
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
from i2v.utils.files import DiskFullError
from i2v.utils.image_file import load_image
from i2v.utils.output_folder import check_results_folder, clear_files, own_folder
from i2v.utils.picture_file import write_picture
from i2v.utils.signals import interrupts_deferred
from i2v.utils.temporary import remove_leftovers

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

MAX_OBJECTS = 255
Progress: TypeAlias = Callable[[list[int]], Iterable[int]]
JSON_NAME, VIDEO_NAME, SHEET_NAME = "masks.json", "overlay.mp4", "contact_sheet.png"
TABLE_NAME = "objects.csv"
MASK_NAME = NUMBERED


class PictureSource(Protocol):
    """A video, as needed for overlays: ``read`` gives a frame ``(H, W, 3)`` uint8 RGB by its index.

    Attributes:
        frame_rate: Frames per second, ``None`` if unknown.
    """

    @property
    def frame_rate(self) -> float | None: ...

    def read(self, frame: int, /) -> Pixels: ...


def assign_labels(obj_ids: Iterable[Hashable]) -> dict[Hashable, int]:
    """Assign a label in 1..255 to every object: its id if all ids are integers in that range, else its position.

    Args:
        obj_ids: Object ids; repeated ones count once.

    Returns:
        The label of each id.

    Raises:
        ValueError: If there are more than 255 objects: a label map has one byte per pixel.
    """
    ids = list(dict.fromkeys(map(canonical_id, obj_ids)))
    if len(ids) > MAX_OBJECTS:
        raise ValueError(f"a palette PNG holds at most {MAX_OBJECTS} objects, got {len(ids)}")
    integers = [obj_id for obj_id in ids if isinstance(obj_id, int) and 1 <= obj_id <= MAX_OBJECTS]
    if len(integers) == len(ids):
        return dict(zip(ids, integers, strict=True))
    return {obj_id: position for position, obj_id in enumerate(ids, start=1)}


def label_map(logits: torch.Tensor | NDArray[np.float32], labels: Sequence[int]) -> Pixels:
    """Merge mask logits into a label map. Where masks overlap, the highest logit wins.

    Args:
        logits: ``(N, 1, H, W)``, positive on the object.
        labels: The ``N`` objects' labels in 1..255.

    Returns:
        ``(H, W)`` uint8, 0 on the background.

    Raises:
        ValueError: If the number of labels is not ``N``.
    """
    if len(logits) != len(labels):
        raise ValueError(f"labels: expected {len(logits)}, one per object, got {len(labels)}")
    if not labels:
        return np.zeros(tuple(logits.shape[-2:]), np.uint8)
    if isinstance(logits, np.ndarray):
        winners = np.asarray(labels, np.uint8)[logits[:, 0].argmax(axis=0)]
        return np.where(logits[:, 0].max(axis=0) > 0, winners, np.uint8(0))
    if len(labels) == 1:
        return (logits[0, 0] > 0).cpu().numpy() * np.uint8(labels[0])
    best, winner = logits[:, 0].max(dim=0)
    # Two bytes per pixel are copied from the device, however many objects there are.
    foreground, position = (best > 0).cpu().numpy(), winner.byte().cpu().numpy()
    return np.where(foreground, np.asarray(labels, np.uint8)[position], np.uint8(0))


def write_label_png(path: str | Path, labels: Pixels) -> None:
    """Write a label map ``(H, W)`` uint8 as a palette PNG, atomically."""
    image = Image.fromarray(labels)
    image.putpalette(PALETTE.tobytes())
    # Label maps are flat: a higher compression level takes three times as long for hardly smaller files.
    write_picture(path, image, "PNG", compress_level=1)


def read_label_png(path: str | Path) -> Pixels:
    """Read a label map written by ``write_label_png``.

    Returns:
        ``(H, W)`` uint8.

    Raises:
        OSError: If the file cannot be read.
        InvalidFileError: If it is not a palette PNG (a ``ValueError``).
    """
    image = load_image(path, formats=("PNG",))
    if image.mode != "P":
        raise InvalidFileError(path, f"expected a palette PNG, got one of mode {image.mode}")
    return np.array(image, dtype=np.uint8)


class ResultFolder:
    """The results of one tracking run: masks/00000.png ..., masks.json, objects.csv, overlay.mp4, contact_sheet.png.

    Cut-outs of the objects are further videos, where they are asked for.

    Masks of frames from picture files are named after these, see ``FrameNames``. Where labels differ from ids, the
    header of masks.json has the table of both.

    PNGs are written as frames come, in any order. JSON and video need the frames in the order of the video. A forward
    run writes them along the way; otherwise ``finish`` creates both from the PNGs, reading the video once more. On a
    full disk, finished frames keep their masks in PNG and JSON, and the video gets a lower quality if there is room for
    that.

    Attributes:
        folder: The folder.
        labels: Label of each object in the label maps.
    """

    def __init__(
        self,
        folder: str | Path,
        obj_ids: Iterable[Hashable],
        overwrite: bool = False,
        ordered: PictureSource | None = None,
        names: FrameNames | None = None,
        mattes: Sequence[Matte] = (),
    ) -> None:
        """Check the folder. Nothing is created yet.

        Args:
            folder: The folder.
            obj_ids: Ids of all objects.
            overwrite: Whether to replace earlier results in the folder.
            ordered: The video, if frames will be added in its order. Nobody else may read from this source.
            names: How frames are named; by default by number.
            mattes: Cut-outs to write, see ``i2v.results.matte``.

        Raises:
            FileExistsError: If the folder is a file, or not empty and ``overwrite`` is false.
            ValueError: If the folder or its ``masks`` folder is a symbolic link, or there are more than 255 objects, or
                an id that JSON does not have.
        """
        self.folder = Path(folder)
        self.labels = assign_labels(obj_ids)
        check_json_ids(self.labels, self.folder / JSON_NAME)
        self._names = names or FrameNames()
        self._mattes = tuple(dict.fromkeys(mattes))
        self._times = uneven_times(ordered)
        self._scores: dict[int, dict[Hashable, MaskScores | None]] = {}
        self._rows: dict[int, list[ObjectRow]] = {}
        self._ordered = ordered
        self._masks: RleJson | None = None
        self._video: VideoWriter | None = None
        check_results_folder(self.folder, ("masks",), overwrite)

    @property
    def frames(self) -> list[int]:
        """The finished frames in ascending order."""
        return sorted(self._scores)

    def mask_path(self, frame: int) -> Path:
        """Return the path of a frame's label map."""
        return self.folder / "masks" / self._names.mask_name(frame)

    def add(
        self,
        frame: int,
        obj_ids: Sequence[Hashable],
        logits: torch.Tensor | NDArray[np.float32],
        scores: Mapping[Any, MaskScores],
    ) -> None:
        """Write a frame's masks, and keep its scores for ``finish``.

        Args:
            frame: Index of the frame.
            obj_ids: Ids of the ``N`` objects on the frame.
            logits: Mask logits ``(N, 1, H, W)`` at video size.
            scores: Scores by object id; missing ones are written as null.

        Raises:
            OSError: If a file cannot be written, for example a DiskFullError.
        """
        self.add_labels(frame, obj_ids, self.label_map(obj_ids, logits), scores)

    def label_map(self, obj_ids: Sequence[Hashable], logits: torch.Tensor | NDArray[np.float32]) -> Pixels:
        """Merge mask logits ``(N, 1, H, W)`` into a label map ``(H, W)``, with the labels of this run."""
        return label_map(logits, [self.labels[canonical_id(obj_id)] for obj_id in obj_ids])

    def add_labels(
        self, frame: int, obj_ids: Sequence[Hashable], labels: Pixels, scores: Mapping[Any, MaskScores]
    ) -> None:
        """Like ``add``, but from a label map ``(H, W)``. May run in another thread, one frame at a time."""
        given = {canonical_id(obj_id): scores.get(obj_id) for obj_id in obj_ids}
        picture = None if self._ordered is None else blend_overlay(self._ordered.read(frame), labels)
        # An interrupt must not leave a frame's PNG without its scores.
        with interrupts_deferred():
            masks = self._masks or self._begin()
            write_label_png(self.mask_path(frame), labels)
            try:
                self._rows[frame] = masks.write(frame, labels, given)
            except OSError:
                self.mask_path(frame).unlink(missing_ok=True)
                raise
            self._scores[frame] = given
            if self._video is not None and picture is not None:
                self._video.write(picture, self._times(frame))

    def _begin(self) -> RleJson:
        # The folder is the user's: only remove files that have our names.
        own_folder(self.folder)
        pngs = own_folder(self.folder / "masks")
        for folder in (self.folder, pngs):
            remove_leftovers(folder)
        made = (JSON_NAME, TABLE_NAME, VIDEO_NAME, SHEET_NAME, *MATTE_NAMES.values())
        clear_files(self.folder, "|".join(map(re.escape, made)))
        clear_masks(pngs)
        self._masks = self._new_masks(self._ordered)
        if self._ordered is not None:
            self._video = VideoWriter(self.folder / VIDEO_NAME, self._ordered.frame_rate)
        return self._masks

    def _new_masks(self, source: PictureSource | None) -> RleJson:
        frame_rate = None if source is None else source.frame_rate
        return RleJson(self.folder / JSON_NAME, self.labels, frame_rate, self._names)

    def finish(self, source: PictureSource, prompts: Sequence[UserPrompt], progress: Progress = iter) -> None:
        """Complete JSON and video, or create them from the finished frames, and write the other files.

        If a file cannot be written, the others are still completed before the error is raised.

        Args:
            source: The video.
            prompts: The user's prompts, for the contact sheet.
            progress: Wraps the loop over frames whenever a video is created, for example as a progress bar.

        Raises:
            OSError: The first error in writing a file.
        """
        troubles: list[OSError] = []
        writes: tuple[Callable[[], None], ...] = (
            lambda: self._complete_masks(source),
            lambda: self._complete_video(source, progress),
            lambda: self._write_sheet(source, prompts),
            self._write_table,
            *(functools.partial(self._write_matte, kind, source, progress) for kind in self._mattes),
        )
        for write in writes:
            try:
                write()
            except OSError as error:
                troubles.append(error)
        if troubles:
            raise troubles[0]

    @property
    def file_names(self) -> list[str]:
        """Names of the files that are written besides the masks."""
        return [JSON_NAME, VIDEO_NAME, SHEET_NAME, TABLE_NAME, *(MATTE_NAMES[kind] for kind in self._mattes)]

    def lacks(self) -> list[str]:
        """List what is missing besides the finished frames' PNGs, for a message. Empty if ``finish`` succeeded."""
        names = [name for name in self.file_names if not (self.folder / name).exists()]
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
        # The JSON in order of arrival has reserved the room. Free it first: the disk may be full by now.
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
        # Removing the unfinished video has freed room, and a coarser one needs a quarter of it.
        self._write_video(source, progress, COARSE_CRF)
        log.warning("%s: the disk is nearly full: its video is coarser than usual", self.folder / VIDEO_NAME)

    def _write_video(self, source: PictureSource, progress: Progress, crf: int = CRF) -> None:
        times = uneven_times(source)
        with VideoWriter(self.folder / VIDEO_NAME, source.frame_rate, crf) as video:
            for frame in progress(self.frames):
                video.write(self._overlay(source, frame), times(frame))

    def _write_matte(self, kind: Matte, source: PictureSource, progress: Progress) -> None:
        times = uneven_times(source)
        with matte_writer(kind, self.folder, source.frame_rate) as video:
            for frame in progress(self.frames):
                cut_out = compose_matte(kind, source.read(frame), read_label_png(self.mask_path(frame)))
                video.write(cut_out, times(frame))

    def _write_table(self) -> None:
        if self._rows:
            times = {frame: self._names.time(frame) for frame in self.frames}
            write_object_table(self.folder / TABLE_NAME, self._rows, times)

    def _write_sheet(self, source: PictureSource, prompts: Sequence[UserPrompt]) -> None:
        chosen = spread_frames(self.frames, keep=[prompt.frame for prompt in prompts])
        sheet = ContactSheet(chosen, prompts, self.labels)
        for frame in chosen:
            sheet.add(frame, self._overlay(source, frame))
        sheet.save(self.folder / SHEET_NAME)

    def _overlay(self, source: PictureSource, frame: int) -> Pixels:
        return blend_overlay(source.read(frame), read_label_png(self.mask_path(frame)))
