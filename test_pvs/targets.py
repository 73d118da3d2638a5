"""What is to be followed in a video: its objects, each with its mask where it first appears."""

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
"""What frames and annotations agree on: the number that a file is named after, or its name if that is none."""


@dataclass(frozen=True)
class Annotations:
    """Ground truth of one video: its folder of mask PNGs, or of mask_info files (``is_mask_info``).

    ``single_object``, ``ignore_labels``: as :meth:`MaskVideo.open` takes them.
    """

    folder: Path
    is_mask_info: bool = False
    single_object: bool = False
    ignore_labels: tuple[int, ...] | None = None

    def known_objects(self) -> list[str]:
        """The objects, as far as they can be told without reading masks: none for label images."""
        if self.is_mask_info:
            return [read_mask_info(path).name for path in self._info_files()]
        return self._masks().objects()

    def first_masks(self, size: Size) -> Iterator[tuple[str, FrameKey, Mask]]:
        """Every object with its mask where it is first seen; objects never seen are left out.

        InvalidFileError for masks that are not of the ``size`` (height, width), before they are made.
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
                    raise InvalidFileError(path, "this mask has no pixel of the object", f"counts.{info.first_frame}")
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
    """A video's frames: their ``names`` without suffix, in order, and their ``size`` (height, width)."""

    names: tuple[str, ...]
    size: Size

    @staticmethod
    def of(source: FrameSource) -> FrameList:
        """Those of an opened video: the names of its images, or of an mp4 00000 and so on."""
        if isinstance(source, ImageFolder):
            names = tuple(Path(name).stem for name in source.files)
        else:
            names = tuple(f"{frame:05d}" for frame in range(source.num_frames or 0))
        return FrameList(names, (source.height, source.width))


def list_frames(video: Path) -> FrameList:
    """The frames of a folder of images or of a video file. Raises as ``open_source`` does."""
    with open_source(video) as source:
        return FrameList.of(source)


def frame_key(stem: str) -> FrameKey:
    """The key of a file from its name without suffix."""
    return int(stem) if stem.isdecimal() else stem


def read_targets(annotations: Annotations, frames: FrameList, done: Collection[str] = ()) -> list[Target]:
    """The objects that are to be followed in a video, less those that are ``done``.

    Raises FileNotFoundError for a video without annotations, ValueError for annotations of frames that are not there,
    of another size, or of an object that another one has the name of.
    """
    positions = {frame_key(name): position for position, name in enumerate(frames.names)}
    targets: dict[str, Target] = {}
    for obj, key, mask in annotations.first_masks(frames.size):
        where = f"{annotations.folder}, object {obj}"
        if obj in done:
            continue
        if key not in positions:
            raise ValueError(f"{where}: annotated on frame {key}, which the video lacks")
        if obj in targets:
            raise ValueError(f"{where}: two annotations have this name")
        targets[obj] = Target(obj, positions[key], mask)
    return list(targets.values())
