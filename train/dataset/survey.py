"""A look at the videos of a data set before training: which give no clip, and what else its owner should know."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from i2v.errors import describe_error, listed
from i2v.results.rle import Size
from train.dataset.structures import FrameObjects
from train.dataset.transforms import resize

_THREADS = 4  # that wait for the disk
_SHOWN = 3  # names in a sentence


class SurveyedVideo(Protocol):
    """What a survey asks of an opened video."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def frames(self) -> Sequence[int]: ...

    def visible(self, frame: int) -> Sequence[int]: ...

    def void(self, frame: int) -> Sequence[int]:
        """Labels on the frame that are no objects, beside 0."""

    def sizes(self, frame: int) -> tuple[Size, Size]:
        """Height and width of a frame's picture and of its masks, as stored."""

    def load(self, frame: int, objects: Sequence[int], size: int) -> FrameObjects: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class VideoFacts:
    """What is known of a video. ``num_frames``: those that have masks. ``objects``, ``void``: labels on the first frame
    with any object.

    ``problem``: why it gives no clip. ``vanishing``: the objects of that frame that have no pixel at the model's size.
    """

    name: str
    num_frames: int = 0
    frame_size: Size | None = None
    mask_size: Size | None = None
    objects: tuple[int, ...] = ()
    void: tuple[int, ...] = ()
    vanishing: tuple[int, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class DatasetFacts:
    """The videos of a data set, in its order."""

    videos: Sequence[VideoFacts] = field(repr=False)

    @property
    def problems(self) -> dict[int, str]:
        """Why videos give no clip, by their numbers."""
        return {number: video.problem for number, video in enumerate(self.videos) if video.problem is not None}

    def notes(self) -> Iterator[str]:
        """Sentences about the videos that are used."""
        used = [video for video in self.videos if video.problem is None]
        resized = [video for video in used if video.frame_size != video.mask_size]
        if resized:
            first = resized[0]
            sizes = f"{describe_size(first.mask_size)} for frames of {describe_size(first.frame_size)}"
            yield f"masks of another size than their frames are resized: {_names(resized)}, {sizes} in the first"
        void = [video for video in used if video.void]
        if void:
            labels = ", ".join(str(label) for label in sorted({label for video in void for label in video.void}))
            yield f"label {labels} is void, not an object, where it stands in {_names(void)}"
        vanishing = [video for video in used if video.vanishing]
        if vanishing:
            objects = ", ".join(map(str, vanishing[0].vanishing))
            where = f"{_names(vanishing)} ({objects} in the first)"
            yield f"objects that are too small to have a pixel at the model's size: in {where}"

    def describe(self) -> Iterator[str]:
        """Lines about sizes, labels and what is left out."""
        used = [video for video in self.videos if video.problem is None]
        frames = sum(video.num_frames for video in used)
        yield f"{len(used)} of {len(self.videos)} videos are used, {frames} frames with masks"
        if used:
            yield f"frame sizes: {_counted(describe_size(video.frame_size) for video in used)}"
            yield f"objects where they are first seen: {sum(len(video.objects) for video in used)}"
            yield f"labels: {_counted(str(obj) for video in used for obj in video.objects)} (label: videos)"
        for problem in self.problems.values():
            yield f"left out: {problem}"
        yield from self.notes()


@runtime_checkable
class Surveyed(Protocol):
    """A data set that is small enough to be looked at from end to end whenever a run starts."""

    def open_for_survey(self, index: int) -> SurveyedVideo: ...

    def __len__(self) -> int: ...


def survey(dataset: Surveyed, num_frames: int, resolution: int | None = None) -> DatasetFacts:
    """Look at every video: the names of its files, the sizes in their headers, and masks until one has an object.

    `num_frames`: that a clip takes. `resolution`: side of the model's frames, to look for objects that vanish at it;
    None leaves that out, and with it the pictures.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        found = threads.map(lambda index: _look(dataset, index, num_frames, resolution), range(len(dataset)))
        return DatasetFacts(tuple(found))


def _look(dataset: Surveyed, index: int, num_frames: int, resolution: int | None) -> VideoFacts:
    try:
        with contextlib.closing(dataset.open_for_survey(index)) as video:
            return _facts(video, num_frames, resolution)
    except (OSError, ValueError) as error:
        return VideoFacts(f"video {index}", problem=describe_error(error))


def _facts(video: SurveyedVideo, num_frames: int, resolution: int | None) -> VideoFacts:
    frames = list(video.frames)
    if len(frames) < num_frames:
        problem = f"{video.source}: {len(frames)} frames with masks, a clip takes {num_frames}"
        return VideoFacts(video.name, len(frames), problem=problem)
    seen = next(((frame, objects) for frame in frames if (objects := tuple(video.visible(frame)))), None)
    if seen is None:
        problem = f"{video.source}: no object on any of the {len(frames)} masks"
        return VideoFacts(video.name, len(frames), problem=problem)
    frame, objects = seen
    pictures, masks = video.sizes(frame)
    vanishing: tuple[int, ...] = ()
    if resolution is not None:
        small = resize(video.load(frame, objects, resolution), resolution).masks.flatten(1).any(dim=1)
        vanishing = tuple(obj for obj, is_left in zip(objects, small.tolist(), strict=True) if not is_left)
    return VideoFacts(video.name, len(frames), pictures, masks, objects, tuple(video.void(frame)), vanishing)


def describe_size(size: Size | None) -> str:
    """WIDTHxHEIGHT."""
    return "unknown" if size is None else f"{size[1]}x{size[0]}"


def shorten(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return listed(names, _SHOWN)


def _names(videos: Sequence[VideoFacts]) -> str:
    return shorten([video.name for video in videos])


def _counted(values: Iterator[str]) -> str:
    counts: Mapping[str, int] = Counter(values)
    return listed([f"{value}: {count}" for value, count in sorted(counts.items(), key=lambda item: -item[1])], 8)
