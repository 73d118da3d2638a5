"""Reads the frames of a video by number, from image files or a video file, and single images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from i2v.utils.image_file import FRAME_FORMATS, load_image, read_image_size
from i2v.utils.listing import is_visible, visible_entries
from i2v.video.frame_source import IMAGE_SUFFIXES, natural_key
from i2v.video.sequence_names import check_sequence
from i2v.video.video_file import VideoFile

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


class FrameReader(Protocol):
    """Frames of one video, numbered as in its annotations."""

    @property
    def frames(self) -> Sequence[int]:
        """Numbers of the existing frames, ascending."""

    def number(self, name: str) -> int | None:
        """Find the frame to which a file such as a mask belongs.

        Args:
            name: Name of the file without its suffix.

        Returns:
            The frame's number, or ``None`` if there is none.
        """

    def size(self, frame: int) -> tuple[int, int]:
        """Height and width of a frame as stored, without reading its pixels."""

    def read(self, frame: int, size: int) -> Tensor:
        """Read a frame.

        Args:
            frame: Number of the frame.
            size: The frame may be returned reduced, with both sides still at least this long.

        Returns:
            RGB ``(3, H, W)`` uint8.
        """

    def close(self) -> None:
        """Close all files."""


class ImageFrames:
    """Frames stored as one image file each."""

    def __init__(self, files: Mapping[int, Path]) -> None:
        """Keep the paths; images are read on request.

        Args:
            files: Image file by frame number.
        """
        self._files = files
        self._numbers = {path.stem: number for number, path in files.items()}

    @property
    def frames(self) -> Sequence[int]:
        return sorted(self._files)

    def number(self, name: str) -> int | None:
        """Find the frame with this file name, or else with this number, even if it does not exist."""
        return self._numbers.get(name, int(name) if name.isdecimal() else None)

    def size(self, frame: int) -> tuple[int, int]:
        return read_image_size(self._files[frame], FRAME_FORMATS)

    def read(self, frame: int, size: int) -> Tensor:
        """Read a frame, see :class:`FrameReader`.

        Raises:
            ValueError: If the image cannot be read, naming the file.
        """
        return read_image(self._files[frame], size)

    def close(self) -> None:
        return


class VideoFrames:
    """Frames of a video file. Only requested frames, and those needed to decode them, are decoded."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it holds no readable video.
        """
        self._video = VideoFile(path)

    @property
    def frames(self) -> Sequence[int]:
        return range(self._video.num_frames)

    def number(self, name: str) -> int | None:
        return int(name) if name.isdecimal() else None

    def size(self, frame: int) -> tuple[int, int]:
        return self._video.height, self._video.width

    def read(self, frame: int, size: int) -> Tensor:
        """Read a frame at full size, see :class:`FrameReader`.

        Raises:
            ValueError: If the file is damaged at this frame, naming it.
        """
        # VideoFile returns read-only arrays, and torch warns about wrapping these.
        return _to_tensor(self._video.read(frame).copy())

    def close(self) -> None:
        self._video.close()


def open_frames(path: Path) -> FrameReader:
    """Open a folder of images or a video file.

    Images are numbered by their names if all names are numbers, else by their position in natural order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the folder contains no images, or the file holds no readable video.
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
    """List the files of a folder that end in one of the suffixes, in natural order."""
    names = (entry.name for entry in visible_entries(folder) if is_file_name(entry.name, suffixes))
    return [folder / name for name in sorted(names, key=natural_key)]


def is_file_name(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a name ends in one of the suffixes and is visible (macOS leaves hidden copies behind)."""
    return name.lower().endswith(suffixes) and is_visible(name)


def read_image(path: str | os.PathLike[str], size: int | None = None) -> Tensor:
    """Read an image file.

    Args:
        path: The file.
        size: A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which is faster, with both sides still at least this
            long; ``None`` decodes at full size.

    Returns:
        RGB ``(3, H, W)`` uint8.

    Raises:
        InvalidFileError: If the file is damaged or too large.
    """
    return _to_tensor(np.array(load_image(path, FRAME_FORMATS, at_least=size).convert("RGB")))


def _to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)
