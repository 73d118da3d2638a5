"""The pictures of a video by frame number, from image files or a video file, and single images from disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from i2v.utils.image_file import FRAME_FORMATS, load_image
from i2v.video.frame_source import IMAGE_SUFFIXES, natural_key
from i2v.video.image_files import check_sequence
from i2v.video.video_file import VideoFile

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


class FrameReader(Protocol):
    """Pictures of one video. Frames are numbered as the annotations number them."""

    @property
    def frames(self) -> Sequence[int]:
        """Numbers of the frames there are, ascending."""

    def number(self, name: str) -> int | None:
        """The frame to which a file of this name, less suffix, belongs: a mask, for one. None if to none."""

    def read(self, frame: int, size: int) -> Tensor:
        """Frame as (3,H,W) uint8, reduced at most to where both sides are still at least `size`."""

    def close(self) -> None:
        """Let go of files."""


class ImageFrames:
    """Frames in image files, one each."""

    def __init__(self, files: Mapping[int, Path]) -> None:
        self._files = files
        self._numbers = {path.stem: number for number, path in files.items()}

    @property
    def frames(self) -> Sequence[int]:
        return sorted(self._files)

    def number(self, name: str) -> int | None:
        """The frame of the same name, else of the same number."""
        return self._numbers.get(name, int(name) if name.isdecimal() else None)

    def read(self, frame: int, size: int) -> Tensor:
        """Frame (3,H,W) uint8; ValueError names a file that cannot be read."""
        return read_image(self._files[frame], size)

    def close(self) -> None:
        return


class VideoFrames:
    """Frames of a video file; only those asked for, and the ones their decoding needs, are decoded."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file; FileNotFoundError or ValueError if there is no video in it that can be read."""
        self._video = VideoFile(path)

    @property
    def frames(self) -> Sequence[int]:
        return range(self._video.num_frames)

    def number(self, name: str) -> int | None:
        return int(name) if name.isdecimal() else None

    def read(self, frame: int, size: int) -> Tensor:
        """Frame (3,H,W) uint8 at full size; ValueError names a file that is damaged there."""
        # VideoFile's arrays are not for writing, and torch warns when it wraps such an array.
        return _to_tensor(self._video.read(frame).copy())

    def close(self) -> None:
        self._video.close()


def open_frames(path: Path) -> FrameReader:
    """Frames of a folder of images or of a video file.

    The number of an image is its name where all names are numbers, else its place in natural order. ValueError
    for a folder without images.
    """
    if not path.is_dir():
        return VideoFrames(path)
    files = files_of(path, IMAGE_SUFFIXES)
    if not files:
        raise ValueError(f"{path}: no images in this folder: expected {' '.join(IMAGE_SUFFIXES)}")
    check_sequence([file.name for file in files], str(path))
    numeric = all(file.stem.isdecimal() for file in files)
    return ImageFrames({int(file.stem) if numeric else i: file for i, file in enumerate(files)})


def files_of(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of a folder that end in one of the suffixes, in natural order."""
    names = (name for name in os.listdir(folder) if is_file_name(name, suffixes))
    return [folder / name for name in sorted(names, key=natural_key)]


def is_file_name(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a name ends in one of the suffixes and is not hidden, as the files are that macOS leaves behind."""
    return name.lower().endswith(suffixes) and not name.startswith(".")


def read_image(path: str | os.PathLike[str], size: int | None = None) -> Tensor:
    """Image file as (3,H,W) uint8 RGB; InvalidFileError names a file that is damaged or too large.

    With a `size`, a JPEG may come out smaller by 2, 4 or 8, but with no side below it: a fraction of the work.
    """
    return _to_tensor(np.array(load_image(path, FRAME_FORMATS, at_least=size).convert("RGB")))


def read_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """A mask image as label numbers (H,W), 0 being background; InvalidFileError as `read_image`.

    Palette images give their indices and grey ones their values, so that black-and-white masks have the label
    255. A colour is a label too: red * 65536 + green * 256 + blue.
    """
    image = load_image(path)
    if image.mode in ("1", "L", "LA"):
        return np.array(image.convert("L"))
    if image.mode == "P" or image.mode.startswith("I"):
        return np.array(image).astype(np.int32, copy=False)
    colours = np.array(image.convert("RGB")).astype(np.int32)
    return (colours[..., 0] << 16) | (colours[..., 1] << 8) | colours[..., 2]


def _to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)
