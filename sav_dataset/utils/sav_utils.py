"""Reads SA-V's videos and annotations, and draws masks over frames.

data = SAVDataset("/data/sav_train")
annotation = data.annotation("sav_000001")
picture = data.draw("sav_000001", frame=8)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from i2v.errors import InvalidFileError, StrPath, locating
from i2v.results.overlay import Pixels, blend_overlay
from i2v.results.rle import Mask, RunLengths, Size
from i2v.utils.json_file import read_json
from i2v.utils.listing import is_visible
from i2v.utils.picture_size import check_size
from i2v.video.sources import FrameSource, ImageFolder, open_source

ANNOTATED_EVERY = 4
"""Frames per annotated frame: SA-V's videos have 24 fps and are annotated at 6 fps."""

KINDS = ("manual", "auto")
MAX_FRAME = 10**9


@dataclass(frozen=True)
class SAVAnnotation:
    """The masklets of a training video.

    Attributes:
        video: Name of the video.
        size: Height and width.
        first_frames: Video frame on which each masklet first appears.
        masklets: For every annotated frame, a COCO RLE per masklet, ``None`` where it is absent.
        every: Video frames per annotated frame.
        source: File that it was read from, for messages.
    """

    video: str
    size: Size
    first_frames: tuple[int, ...]
    masklets: Sequence[Sequence[dict[str, Any] | None]] = field(repr=False)
    every: int = ANNOTATED_EVERY
    source: str = field(default="", compare=False)

    @property
    def num_masklets(self) -> int:
        return len(self.first_frames)

    @property
    def frames(self) -> range:
        """Numbers of the annotated video frames."""
        return range(0, len(self.masklets) * self.every, self.every)

    def mask(self, frame: int, masklet: int) -> Mask:
        """Decode the mask of a masklet.

        Args:
            frame: Number of an annotated video frame.
            masklet: Number of the masklet.

        Returns:
            ``(H, W)`` bool, empty where the masklet is not visible.

        Raises:
            IndexError: If the frame is not annotated, or there is no such masklet.
            InvalidFileError: If the run lengths are damaged or have another size.
        """
        if frame not in self.frames or not 0 <= masklet < self.num_masklets:
            raise IndexError(
                f"{self.video}: no annotation of masklet {masklet} on frame {frame}; there are {self.num_masklets} "
                f"masklets on the {len(self.masklets)} frames 0, {self.every}, ..."
            )
        run_lengths = self.masklets[frame // self.every][masklet]
        if run_lengths is None:
            return np.zeros(self.size, np.bool_)
        with locating(self.source or self.video, f"frame {frame}, masklet {masklet}"):
            return RunLengths.of_coco(run_lengths, self.size).mask()

    def masks(self, frame: int) -> list[Mask]:
        """Decode the masks of all masklets on an annotated video frame, see :meth:`mask`."""
        return [self.mask(frame, masklet) for masklet in range(self.num_masklets)]


def read_annotation(path: StrPath) -> SAVAnnotation:
    """Read a JSON file of SA-V's training split.

    The run lengths are checked later, by :meth:`SAVAnnotation.mask`.

    Raises:
        OSError: If the file cannot be read.
        InvalidFileError: If it has another format, naming the place in the file.
    """
    content = read_json(path)
    masklets = content.member("masklet")
    first_frames = [
        frame.integer(most=MAX_FRAME) for frame in content.member("masklet_first_appeared_frame").elements()
    ]
    for frame in masklets.elements():
        count = sum(1 for _ in frame.elements())
        if count != len(first_frames):
            frame.fail(f"expected {len(first_frames)} masklets, as in masklet_first_appeared_frame, got {count}")
    height, width = (content.member(key).integer(1, MAX_FRAME) for key in ("video_height", "video_width"))
    with locating(path, "video_height, video_width"):
        check_size(width, height)
    return SAVAnnotation(
        video=content.member("video_id").text(),
        size=(height, width),
        first_frames=tuple(ANNOTATED_EVERY * frame for frame in first_frames),
        masklets=masklets.value,
        source=str(path),
    )


class SAVDataset:
    """SA-V's training split: VIDEO.mp4, or a folder VIDEO of frames, with VIDEO_manual.json and VIDEO_auto.json.

    Files may be in the subfolders of the official archives (sav_000 and so on).
    """

    def __init__(self, root: StrPath, frames: StrPath | None = None) -> None:
        """List the annotations.

        Args:
            root: Folder of the annotations, which are searched recursively.
            frames: Folder of the videos, if they are elsewhere.

        Raises:
            FileNotFoundError: If there are no annotations.
        """
        self.root = Path(root)
        self._frames = Path(frames) if frames is not None else self.root
        paths = sorted(self.root.rglob("*.json"))
        found = {path.name: path for path in paths if all(map(is_visible, path.relative_to(self.root).parts))}
        self._annotations = {name: path for name, path in found.items() if _kind(name)}
        if not self._annotations:
            raise FileNotFoundError(f"{self.root}: no annotations VIDEO_manual.json or VIDEO_auto.json here or below")

    @property
    def videos(self) -> list[str]:
        """Names of the annotated videos, sorted."""
        return sorted({name.removesuffix(f"_{_kind(name)}.json") for name in self._annotations})

    def annotation(self, video: str, kind: str = "manual") -> SAVAnnotation:
        """Read the masklets of a video.

        Args:
            video: Name of the video.
            kind: "manual" or "auto".

        Raises:
            ValueError: If the kind is unknown.
            FileNotFoundError: If the video has no such masklets.
        """
        if kind not in KINDS:
            raise ValueError(f"kind: expected {' or '.join(KINDS)}, got {kind!r}")
        path = self._annotations.get(f"{video}_{kind}.json")
        if path is None:
            raise FileNotFoundError(f"{self.root}: no {video}_{kind}.json here or below")
        return read_annotation(path)

    def video_path(self, video: str) -> Path:
        """Find the file of a video, or its folder of frames.

        Raises:
            FileNotFoundError: If there is neither.
        """
        folders = [self._frames, *sorted({path.parent for path in self._annotations.values()})]
        for path in (folder / name for folder in folders for name in (f"{video}.mp4", video)):
            if path.exists():
                return path
        raise FileNotFoundError(f"{self._frames}: no {video}.mp4 and no folder {video} here or beside the annotations")

    def read_frames(self, video: str, every: int = ANNOTATED_EVERY) -> Iterator[tuple[int, Pixels]]:
        """Read every ``every``-th frame of a video, by default the annotated ones.

        Images are numbered by their names, so some may be missing.

        Yields:
            Number of the frame, and RGB ``(H, W, 3)`` uint8.
        """
        with open_source(str(self.video_path(video))) as source:
            for position, number in enumerate(_frame_numbers(source)):
                if number % every == 0:
                    yield number, source.read(position)

    def draw(self, video: str, frame: int, kind: str = "manual") -> Pixels:
        """Draw an annotated frame ``(H, W, 3)`` uint8 with its masks.

        Args:
            video: Name of the video.
            frame: Number of the frame.
            kind: "manual" or "auto".

        Raises:
            IndexError: If the frame is not annotated, or missing.
        """
        masks = self.annotation(video, kind).masks(frame)
        with open_source(str(self.video_path(video))) as source:
            numbers = _frame_numbers(source)
            if frame not in numbers:
                raise IndexError(f"{source.name}: there is no frame {frame}")
            return draw_masks(source.read(numbers.index(frame)), masks)


def draw_masks(picture: Pixels, masks: Sequence[Mask]) -> Pixels:
    """Paint masks ``(H, W)`` over a picture ``(H, W, 3)``, each in its own colour, later ones on top."""
    labels = np.zeros(picture.shape[:2], np.uint8)
    for place, mask in enumerate(masks):
        labels[mask] = 1 + place % 255
    return blend_overlay(picture, labels)


def _kind(name: str) -> str | None:
    """Kind of an annotation file, from its name."""
    return next((kind for kind in KINDS if name.endswith(f"_{kind}.json")), None)


def _frame_numbers(source: FrameSource) -> Sequence[int]:
    if isinstance(source, ImageFolder):
        for name in source.files:
            if not Path(name).stem.isdecimal():
                raise InvalidFileError(Path(source.name) / name, "expected images named by frame number, as 00000.jpg")
        return [int(Path(name).stem) for name in source.files]
    return range(source.num_frames or 0)
