"""The objects to track in a video, each with its ground truth on its first frame."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from i2v.errors import InvalidFileError
from i2v.results.rle import Mask, Size
from i2v.video.sources import FrameSource, ImageFolder, open_source
from sav_dataset.utils.mask_files import MaskVideo
from sav_dataset.utils.mask_info import mask_info_files, read_mask_info
from test_pvs.prompts import Target

FrameKey = int | str
"""Identifies a frame in frames and annotations: the number in a file's name, or the name if it is not a number."""


@dataclass(frozen=True)
class Annotations:
    """Ground truth of one video.

    Attributes:
        folder: Folder of the video's annotations.
        is_mask_info: Whether it contains mask_info files instead of mask PNGs.
        single_object: Whether all labels count as one object.
        ignore_labels: Void labels, as in :meth:`MaskVideo.open`.
    """

    folder: Path
    is_mask_info: bool = False
    single_object: bool = False
    ignore_labels: tuple[int, ...] | None = None

    def known_objects(self) -> list[str]:
        """List the objects that are known without reading masks: none for label images."""
        if self.is_mask_info:
            return [read_mask_info(path).name for path in self._info_files()]
        return self._masks().objects()

    def first_masks(self, size: Size) -> Iterator[tuple[str, FrameKey, Mask]]:
        """Find the first non-empty mask of each object.

        Args:
            size: Expected height and width.

        Yields:
            Object, frame and mask ``(H, W)`` bool.

        Raises:
            InvalidFileError: If a mask has another size, which is checked before decoding, or is damaged.
        """
        if not self.is_mask_info:
            for obj, name, mask in self._masks().first_masks(size):
                yield obj, frame_key(Path(name).stem), mask
            return
        for path in self._info_files():
            info = read_mask_info(path)
            if info.size != size:
                got, wanted = f"{info.size[1]}x{info.size[0]}", f"{size[1]}x{size[0]}"
                raise InvalidFileError(path, f"the annotation has {got} pixels, the frames {wanted}")
            if info.first_frame is not None:
                mask = info.mask(info.first_frame)
                if not mask.any():
                    raise InvalidFileError(path, "this mask is empty", f"counts.{info.first_frame}")
                yield info.name, info.first_frame, mask

    def void_labels(self) -> list[int]:
        """The labels that stand in the label images, but are void and not followed."""
        if self.is_mask_info:
            return []
        masks = self._masks()
        return sorted(masks.ignored) if masks.has_void() else []

    def _masks(self) -> MaskVideo:
        return MaskVideo.open(self.folder, self.single_object, self.ignore_labels)

    def _info_files(self) -> list[Path]:
        return mask_info_files(self.folder)


@dataclass(frozen=True)
class FrameList:
    """The frames of a video.

    Attributes:
        names: Names without suffix, in order.
        size: Height and width.
    """

    names: tuple[str, ...]
    size: Size

    @staticmethod
    def of(source: FrameSource) -> FrameList:
        """List the frames of an opened video; those of a video file are named 00000, 00001 and so on."""
        if isinstance(source, ImageFolder):
            names = tuple(Path(name).stem for name in source.files)
        else:
            names = tuple(f"{frame:05d}" for frame in range(source.num_frames or 0))
        return FrameList(names, (source.height, source.width))


def list_frames(video: Path) -> FrameList:
    """List the frames of a folder of images or of a video file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it contains no frames or is damaged.
    """
    with open_source(video) as source:
        return FrameList.of(source)


def frame_key(stem: str) -> FrameKey:
    """Key of a file, from its name without suffix."""
    return int(stem) if stem.isdecimal() else stem


def read_targets(annotations: Annotations, frames: FrameList, done: Collection[str] = ()) -> list[Target]:
    """Read the objects to track in a video.

    Args:
        annotations: Ground truth of the video.
        frames: Frames of the video.
        done: Objects to leave out.

    Raises:
        FileNotFoundError: If the video has no annotations.
        ValueError: If an annotation is of a missing frame or of another size, or two objects have the same name.
    """
    positions = {frame_key(name): position for position, name in enumerate(frames.names)}
    targets: dict[str, Target] = {}
    for obj, key, mask in annotations.first_masks(frames.size):
        where = f"{annotations.folder}, object {obj}"
        if obj in done:
            continue
        if key not in positions:
            raise ValueError(f"{where}: annotated on frame {key}, which the video does not have")
        if obj in targets:
            raise ValueError(f"{where}: two annotations have this name")
        targets[obj] = Target(obj, positions[key], mask)
    return list(targets.values())
