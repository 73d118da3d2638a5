"""Data sets on disk: lists their videos, and opens one with frames and masks by number."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from i2v.errors import InvalidFileError
from i2v.results.rle import Size
from i2v.utils.input_file import read_text
from i2v.utils.listing import visible_entries
from i2v.video.frame_source import IMAGE_SUFFIXES
from sav_dataset.utils.label_pictures import ignored_labels_of
from train.dataset.frame_reader import (
    VIDEO_SUFFIXES,
    FrameReader,
    ImageFrames,
    files_of,
    is_file_name,
    open_frames,
)
from train.dataset.structures import FrameObjects
from train.dataset.survey import shorten
from train.dataset.vos_segment_loader import (
    JSONSegmentLoader,
    MultiplePNGSegmentLoader,
    PalettisedPNGSegmentLoader,
    SA1BSegmentLoader,
    SegmentLoader,
)

log = logging.getLogger(__name__)

# Relative difference allowed between the aspect ratios of image and mask: the sides of reduced copies are rounded.
_ASPECT_TOLERANCE = 0.03
# How much larger than its image a mask may be: JPEGs are decoded at down to 1/8, and may be stored reduced.
_LARGEST_REDUCTION = 32

# SA-1B has eleven million images.
MAX_LIST_BYTES, MAX_LIST_LINES = 192 << 20, 12_000_000

PathLike = str | os.PathLike[str]


class RawVideo(Protocol):
    """An opened video: what a sampler chooses from, and its frames on request."""

    @property
    def name(self) -> str:
        """Name of the video in its data set."""

    @property
    def source(self) -> str:
        """Path of the video, or a description, for messages."""

    @property
    def frames(self) -> Sequence[int]:
        """Numbers of the frames with both image and masks, ascending."""

    def visible(self, frame: int) -> Sequence[int]:
        """List the objects that are visible on a frame, ascending."""

    def load(self, frame: int, objects: Sequence[int], size: int) -> FrameObjects:
        """Load image and masks of these objects; the image may be reduced, with both sides at least ``size``."""

    def close(self) -> None:
        """Close all files."""


class RawDataset(Protocol):
    """Videos by number. Reading raises OSError or ValueError, naming the file, if it is missing or damaged."""

    def __len__(self) -> int: ...

    def open(self, index: int, generator: np.random.Generator) -> RawVideo:
        """Open video ``index``; the generator is used by data sets that render their videos."""


def _differ_in_shape(size: Size, other: Size) -> bool:
    """Whether two (height, width) have different aspect ratios."""
    return abs(size[1] * other[0] / (size[0] * other[1]) - 1) > _ASPECT_TOLERANCE


class AnnotatedVideo:
    """A RawVideo with images and masks from files."""

    def __init__(
        self,
        name: str,
        path: Path,
        pictures: FrameReader,
        masks: SegmentLoader,
        sample_rate: int = 1,
    ) -> None:
        """Keep every ``sample_rate``-th of the frames that have both image and masks."""
        self.name, self.source = name, str(path)
        self._pictures, self._masks = pictures, masks
        there = set(pictures.frames)
        self.frames = [frame for frame in masks.frames if frame in there][::sample_rate]

    def visible(self, frame: int) -> Sequence[int]:
        return self._masks.visible(frame)

    def void(self, frame: int) -> Sequence[int]:
        """Labels on a frame that are no objects, beside 0."""
        return self._masks.void(frame)

    def sizes(self, frame: int) -> tuple[Size, Size]:
        """Height and width of a frame's picture and of its masks, as stored.

        Raises:
            ValueError: If their aspect ratios differ, so that no clip can be loaded.
        """
        sizes = self._pictures.size(frame), self._masks.size(frame)
        if _differ_in_shape(*sizes):
            raise self._misshapen(frame, *sizes)
        return sizes

    def load(self, frame: int, objects: Sequence[int], size: int) -> FrameObjects:
        """Load image and masks, see :class:`RawVideo`.

        Raises:
            ValueError: If their aspect ratios differ, for example because one of them is rotated.
        """
        picture = self._pictures.read(frame, size)
        if len(objects):
            self._check_size(frame, (picture.shape[1], picture.shape[2]))
        return FrameObjects(picture, self._masks.load(frame, objects))

    def _check_size(self, frame: int, size: Size) -> None:
        """Check the size of the masks before decoding them, as there may be many."""
        mask_size = self._masks.size(frame)
        if _differ_in_shape(size, mask_size) or mask_size[0] > _LARGEST_REDUCTION * size[0]:
            raise self._misshapen(frame, size, mask_size)

    def _misshapen(self, frame: int, picture: Size, mask: Size) -> ValueError:
        return ValueError(
            f"{self.source}: frame {frame}: the image is {picture[1]}x{picture[0]}, its masks are {mask[1]}x{mask[0]}"
        )

    def close(self) -> None:
        self._pictures.close()


class JSONRawDataset:
    """SA-V: each video has a JSON file of RLE masks.

    A video is a folder of JPEGs named by frame number at 24 fps (the annotated frames suffice), or the mp4 itself.
    Videos and JSON files are directly in their folders or, as downloaded, one folder deeper.
    """

    def __init__(
        self,
        img_folder: PathLike,
        gt_folder: PathLike,
        file_list_txt: PathLike | None = None,
        excluded_videos_list_txt: PathLike | Sequence[PathLike] = (),
        annotation: str = "manual",
        sample_rate: int = 1,
        ann_every: int = 4,
        frames_fps: int = 24,
        max_missing: float = 0.01,
    ) -> None:
        """List the files.

        Args:
            img_folder: Folder of the videos.
            gt_folder: Folder of the annotations.
            file_list_txt: List of the videos to use, one name per line; ``None`` for all.
            excluded_videos_list_txt: Lists of videos to leave out.
            annotation: Which JSON file of a video to read, "manual" or "auto".
            sample_rate: Use every n-th annotated frame.
            ann_every: Frames of the video per annotated frame.
            frames_fps: Frame rate of the videos.
            max_missing: Fraction (0..1) of the listed videos that may be missing.

        Raises:
            ValueError: If more videos are missing, or none are left.
        """
        suffix = f"_{annotation}.json"
        annotations = find_files(gt_folder, (suffix,))
        videos = find_videos(img_folder, annotations)
        described = f"videos in {img_folder} with NAME{suffix} in {gt_folder}"
        self.names = choose(videos, file_list_txt, excluded_videos_list_txt, described, max_missing)
        self._files = {name: (videos[name], annotations[name]) for name in self.names}
        self._sample_rate, self._ann_every, self._frames_fps = sample_rate, ann_every, frames_fps

    def __len__(self) -> int:
        return len(self.names)

    def open(self, index: int, generator: np.random.Generator) -> AnnotatedVideo:
        name = self.names[index]
        frames, annotation = self._files[name]
        masks = JSONSegmentLoader(annotation, self._ann_every, self._frames_fps)
        return AnnotatedVideo(name, frames, open_frames(frames), masks, self._sample_rate)


class SA1BRawDataset:
    """SA-1B: images with RLE masks in a JSON file of the same name, flat or in subfolders as downloaded."""

    def __init__(
        self,
        img_folder: PathLike,
        gt_folder: PathLike,
        file_list_txt: PathLike | None = None,
        excluded_videos_list_txt: PathLike | Sequence[PathLike] = (),
        mask_area_frac_thresh: float = 1.1,
        uncertain_iou: float = -1.0,
        max_missing: float = 0.01,
    ) -> None:
        """List the files; arguments are those of :class:`SA1BSegmentLoader` and :class:`JSONRawDataset`."""
        # SA-1B has eleven million files: keep only the names on the list in memory.
        wanted = None if file_list_txt is None else set(read_list(file_list_txt))
        images = find_files(img_folder, IMAGE_SUFFIXES, wanted)
        annotations = find_files(gt_folder, (".json",), images)
        described = f"images in {img_folder} with NAME.json in {gt_folder}"
        self.names = choose(annotations, file_list_txt, excluded_videos_list_txt, described, max_missing)
        self._files = {name: (images[name], annotations[name]) for name in self.names}
        self._thresholds = (mask_area_frac_thresh, uncertain_iou)

    def __len__(self) -> int:
        return len(self.names)

    def open(self, index: int, generator: np.random.Generator) -> AnnotatedVideo:
        name = self.names[index]
        image, annotation = self._files[name]
        masks = SA1BSegmentLoader(annotation, *self._thresholds)
        return AnnotatedVideo(name, image, ImageFrames({0: image}), masks)


class PNGRawDataset:
    """Custom data, DAVIS, MOSE, YouTube-VOS, SA-V val: frames and PNG masks in folders of the same name.

    A video is a folder of images or a video file ``NAME.mp4``. Its masks are PNGs named like the frames (by frame
    number for a video file), with all objects in one file or a folder per object. Frames without a mask are left out.
    """

    def __init__(
        self,
        img_folder: PathLike,
        gt_folder: PathLike,
        file_list_txt: PathLike | None = None,
        excluded_videos_list_txt: PathLike | Sequence[PathLike] = (),
        sample_rate: int = 1,
        ignored_labels: Sequence[int] | None = None,
        max_missing: float = 0.0,
    ) -> None:
        """List the folders.

        ``ignored_labels`` count as background; ``None`` for 255 in the label images of a video with other labels, too.
        The others are as in :class:`JSONRawDataset`.
        """
        annotations = {entry.name: Path(entry.path) for entry in visible_entries(gt_folder) if entry.is_dir()}
        videos = find_videos(img_folder, annotations)
        described = f"videos in {img_folder} with a folder of the same name in {gt_folder}"
        if file_list_txt is None:
            _tell_partners(img_folder, gt_folder, annotations, videos)
        self.names = choose(videos, file_list_txt, excluded_videos_list_txt, described, max_missing)
        self._files = {name: (videos[name], annotations[name]) for name in self.names}
        self._sample_rate, self._ignored_labels = sample_rate, ignored_labels
        self._ignored: dict[str, frozenset[int]] = {}  # by video, as far as they have been opened

    def __len__(self) -> int:
        return len(self.names)

    def open(self, index: int, generator: np.random.Generator) -> AnnotatedVideo:
        name = self.names[index]
        frames, annotation = self._files[name]
        pictures = open_frames(frames)
        if name not in self._ignored:
            self._ignored[name] = ignored_labels_of(files_of(annotation, (".png",)), self._ignored_labels)
        masks = open_masks(annotation, pictures, self._ignored[name])
        return AnnotatedVideo(name, frames, pictures, masks, self._sample_rate)

    def open_for_survey(self, index: int) -> AnnotatedVideo:
        """Video `index`, see `train.dataset.survey`."""
        return self.open(index, np.random.default_rng(0))


class ImageMaskRawDataset:
    """Images with a mask PNG of the same stem that holds all objects, see :class:`PalettisedPNGSegmentLoader`."""

    def __init__(
        self,
        img_folder: PathLike,
        gt_folder: PathLike,
        file_list_txt: PathLike | None = None,
        excluded_videos_list_txt: PathLike | Sequence[PathLike] = (),
        ignored_labels: Sequence[int] | None = None,
        max_missing: float = 0.0,
    ) -> None:
        """List the files, flat or one folder deep; arguments are those of :class:`PNGRawDataset`."""
        images = find_files(img_folder, IMAGE_SUFFIXES)
        annotations = find_files(gt_folder, (".png",), images)
        described = f"images in {img_folder} with NAME.png in {gt_folder}"
        self.names = choose(annotations, file_list_txt, excluded_videos_list_txt, described, max_missing)
        self._files = {name: (images[name], annotations[name]) for name in self.names}
        self._ignored_labels = ignored_labels

    def __len__(self) -> int:
        return len(self.names)

    def open(self, index: int, generator: np.random.Generator) -> AnnotatedVideo:
        name = self.names[index]
        image, annotation = self._files[name]
        masks = PalettisedPNGSegmentLoader({0: annotation}, ignored_labels_of([annotation], self._ignored_labels))
        return AnnotatedVideo(name, image, ImageFrames({0: image}), masks)


def _tell_partners(
    img_folder: PathLike, gt_folder: PathLike, annotations: Collection[str], videos: Collection[str]
) -> None:
    """Say which videos have no annotations, and which annotations no video: they are left out."""
    unknown = [entry for entry in visible_entries(img_folder) if os.path.splitext(entry.name)[0] not in annotations]
    without = [name for entry in unknown if (name := _video_name(entry)) is not None and name not in annotations]
    if without:
        log.warning("%s: left out for want of annotations in %s: %s", img_folder, gt_folder, shorten(without))
    alone = sorted(name for name in annotations if name not in videos)
    if alone:
        log.warning("%s: left out for want of a video in %s: %s", gt_folder, img_folder, shorten(alone))


def _video_name(entry: os.DirEntry[str]) -> str | None:
    """The name of a video that an entry of a folder is; None for another file, and a folder of further folders."""
    if not entry.is_dir():
        return os.path.splitext(entry.name)[0] if is_file_name(entry.name, VIDEO_SUFFIXES) else None
    return None if any(below.is_dir() for below in visible_entries(entry.path)) else entry.name


@contextlib.contextmanager
def opened(dataset: RawDataset, index: int, generator: np.random.Generator) -> Iterator[RawVideo]:
    """Open a video for the block."""
    video = dataset.open(index, generator)
    try:
        yield video
    finally:
        video.close()


def open_masks(folder: Path, pictures: FrameReader, ignored_labels: Collection[int] = ()) -> SegmentLoader:
    """Open the masks of a video: a folder of PNGs, or of a folder of PNGs per object.

    Raises:
        ValueError: If it contains neither.
    """

    def numbered(files: Sequence[Path]) -> dict[int, Path]:
        numbers = ((pictures.number(file.stem), file) for file in files)
        return {number: file for number, file in numbers if number is not None}

    folders = [Path(entry.path) for entry in visible_entries(folder) if entry.is_dir()]
    if folders:
        numeric = all(entry.name.isdecimal() for entry in folders)
        objects = [int(entry.name) + 1 if numeric else i for i, entry in enumerate(folders, 1)]
        files = (numbered(files_of(entry, (".png",))) for entry in folders)
        return MultiplePNGSegmentLoader(dict(zip(objects, files, strict=True)))
    masks = files_of(folder, (".png",))
    if not masks:
        raise ValueError(f"{folder}: neither PNG masks nor folders of objects in this folder")
    return PalettisedPNGSegmentLoader(numbered(masks), ignored_labels)


def read_list(path: PathLike) -> list[str]:
    """Read names from a list file, one per line, without their suffixes; blank lines are skipped.

    Raises:
        InvalidFileError: If the list is empty or too long, or a name is repeated.
    """
    text = read_text(path, MAX_LIST_BYTES)
    if text.count("\n") > MAX_LIST_LINES:
        raise InvalidFileError(path, f"this list has more than {MAX_LIST_LINES:,} lines")
    # Line by line: there may be millions of names, of which only one copy should be in memory.
    names = [os.path.splitext(line.strip())[0] for line in io.StringIO(text) if line.strip()]
    if not names:
        raise InvalidFileError(path, "this list is empty")
    if len(set(names)) < len(names):
        name, times = Counter(names).most_common(1)[0]
        raise InvalidFileError(path, f"{name} is listed {times} times")
    return names


def choose(
    there: Collection[str],
    file_list_txt: PathLike | None,
    excluded: PathLike | Sequence[PathLike],
    described: str,
    max_missing: float,
) -> list[str]:
    """Choose the videos to use.

    Args:
        there: Names of the existing videos.
        file_list_txt: List of the videos to use; ``None`` for all, sorted.
        excluded: Lists of videos to leave out.
        described: What and where the videos are, for messages.
        max_missing: Fraction (0..1) of the listed videos that may be missing.

    Raises:
        ValueError: If more videos are missing, or none are left.
    """
    lists = [excluded] if isinstance(excluded, str | os.PathLike) else excluded
    out = {name for path in lists for name in read_list(path)}
    listed = sorted(there) if file_list_txt is None else read_list(file_list_txt)
    names = [name for name in listed if name not in out]
    missing = [name for name in names if name not in there]
    if missing:
        message = f"{file_list_txt}: of {len(names)} {described}, {len(missing)} are missing ({missing[0]} first)"
        if len(missing) > max_missing * len(names):
            raise ValueError(f"{message}; python -m train.scripts.make_file_lists lists the existing ones")
        log.warning("%s", message)
    present = [name for name in names if name in there]
    if not present:
        raise ValueError(f"there are no {described}")
    return present


def find_files(folder: PathLike, suffixes: tuple[str, ...], wanted: Collection[str] | None = None) -> dict[str, Path]:
    """Find files of a folder and its subfolders, by name without suffix; with ``wanted``, only these names."""
    found: dict[str, Path] = {}
    for entry in visible_entries(folder):
        for file in visible_entries(entry.path) if entry.is_dir() else [entry]:
            suffix = next((s for s in suffixes if is_file_name(file.name, (s,))), "")
            name = file.name[: -len(suffix)] if suffix else ""
            if name and (wanted is None or name in wanted):
                found[name] = Path(file.path)
    return found


def find_videos(folder: PathLike, annotated: Collection[str]) -> dict[str, Path]:
    """Find annotated videos by name, flat or one folder deeper: a folder of frames or, without one, a video file."""
    found: dict[str, Path] = {}
    for entry in visible_entries(folder):
        deeper = entry.is_dir() and entry.name not in annotated
        for item in visible_entries(entry.path) if deeper else [entry]:
            if item.is_dir() and item.name in annotated:
                found[item.name] = Path(item.path)
            elif is_file_name(item.name, VIDEO_SUFFIXES):
                name = os.path.splitext(item.name)[0]
                if name in annotated:
                    found.setdefault(name, Path(item.path))
    return found
