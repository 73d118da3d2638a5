"""What is to be followed in a video: its objects, each with its mask where it first appears."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from i2v.utils.video import ImageFolder, open_source
from sav_dataset.utils.mask_files import MaskVideo
from sav_dataset.utils.mask_info import Mask, mask_info_files, read_mask_info
from test_pvs.prompts import Target

FrameKey = int | str
"""What frames and annotations agree on: the number that a file is named after, or its name if that is none."""


@dataclass(frozen=True)
class Annotations:
    """Ground truth of one video: its folder of mask PNGs, or of mask_info files (``is_mask_info``)."""

    folder: Path
    is_mask_info: bool = False
    single_object: bool = False

    def known_objects(self) -> list[str]:
        """The objects, as far as they can be told without reading masks: none for label images."""
        if self.is_mask_info:
            return [read_mask_info(path).name for path in self._info_files()]
        return self._masks().objects()

    def first_masks(self) -> Iterator[tuple[str, FrameKey, Mask]]:
        """Every object with its mask where it is first seen; objects never seen are left out."""
        if not self.is_mask_info:
            for obj, name, mask in self._masks().first_masks():
                yield obj, frame_key(Path(name).stem), mask
            return
        for path in self._info_files():
            info = read_mask_info(path)
            if info.first_frame is not None:
                yield info.name, info.first_frame, info.mask(info.first_frame)

    def _masks(self) -> MaskVideo:
        return MaskVideo.open(self.folder, self.single_object)

    def _info_files(self) -> list[Path]:
        return mask_info_files(self.folder)


def frame_key(stem: str) -> FrameKey:
    """The key of a file from its name without suffix."""
    return int(stem) if stem.isdigit() else stem


def frame_names(video: Path) -> list[str]:
    """Names of a video's frames, without suffix, in order: those of its images, or of an mp4 00000 and so on."""
    with open_source(video) as source:
        if isinstance(source, ImageFolder):
            return [Path(name).stem for name in source.files]
        return [f"{frame:05d}" for frame in range(source.num_frames or 0)]


def read_targets(annotations: Annotations, names: list[str], done: Collection[str] = ()) -> list[Target]:
    """The objects that are to be followed, less those that are ``done``, on the video's frames of these ``names``.

    Raises FileNotFoundError for a video without annotations, ValueError for annotations of frames that are not there.
    """
    positions = {frame_key(name): position for position, name in enumerate(names)}
    targets = []
    for obj, key, mask in annotations.first_masks():
        if obj in done:
            continue
        if key not in positions:
            raise ValueError(f"{annotations.folder}, object {obj}: annotated on frame {key}, which the video lacks")
        targets.append(Target(obj, positions[key], mask))
    return targets
