"""Real pictures for rendered clips: background videos, and things cut out of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2v.errors import InvalidFileError
from i2v.utils.listing import visible_entries
from i2v.video.frame_source import IMAGE_SUFFIXES
from sav_dataset.utils.label_pictures import read_labels
from train.dataset.frame_reader import VIDEO_SUFFIXES, files_of, is_file_name, open_frames, read_image
from train.dataset.vos_raw_dataset import PathLike

MAX_THINGS = 255  # in one picture


@dataclass(frozen=True)
class Still:
    """A square picture and the things in it.

    Attributes:
        picture: ``(3, S, S)`` float32 in 0..255.
        things: Masks ``(K, S, S)`` bool.
    """

    picture: Tensor
    things: Tensor


@dataclass(frozen=True)
class Cutouts:
    """Things cut out of pictures, as written by ``train.scripts.make_cutouts``.

    Attributes:
        labels: Label images (PNG), each next to its picture, a JPEG of the same name; see :func:`find_cutouts`.
        probability: Probability (0..1) of using a cut-out.
    """

    labels: tuple[Path, ...] = ()
    probability: float = 0.0

    def wanted(self, generator: np.random.Generator) -> bool:
        """Draw whether to use a cut-out."""
        return generator.random() < self.probability

    def still(self, generator: np.random.Generator, size: int) -> Still:
        """Draw a whole picture with its things, resized to a square of ``size`` pixels."""
        picture, labels = self._read(generator)
        numbers = torch.arange(1, int(labels.max()) + 1).view(-1, 1, 1)
        things = F.interpolate((labels == numbers)[None].float(), (size, size), mode="area")[0] > 0.5
        return Still(_square(picture, size), things)

    def sprite(self, generator: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
        """Draw a single thing, keeping its aspect ratio.

        Returns:
            Colors ``(3, size, size)`` float32 in 0..255 and opacity ``(size, size)`` float32 in 0..1.
        """
        picture, labels = self._read(generator)
        mask = labels == int(generator.integers(1, int(labels.max()) + 1))
        top, bottom, left, right = bounds(mask)
        height, width = bottom - top, right - left
        side = int(max(height, width) * 1.1) + 2
        down, along = (side - height) // 2, (side - width) // 2
        room = (along, side - width - along, down, side - height - down)
        alpha = F.pad(mask[top:bottom, left:right].float(), room)
        # Pad with the picture's own colours: interpolation at the edge would otherwise blend with black.
        colours = F.pad(picture[None, :, top:bottom, left:right].float(), room, mode="replicate")[0]
        if generator.random() < 0.5:
            alpha, colours = alpha.flip(-1), colours.flip(-1)
        return _square(colours, size), _square(alpha[None], size)[0]

    def _read(self, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        path = self.labels[int(generator.integers(len(self.labels)))]
        picture, labels = read_image(path.with_suffix(".jpg")), torch.from_numpy(read_labels(path).astype(np.int64))
        if picture.shape[1:] != labels.shape or not 1 <= labels.max() <= MAX_THINGS:
            raise InvalidFileError(
                path,
                f"expected labels of size {tuple(picture.shape[1:])} in 1..{MAX_THINGS}, "
                f"got size {tuple(labels.shape)} and labels up to {int(labels.max())}",
            )
        return picture, labels


@dataclass(frozen=True)
class Footage:
    """Real videos to take pictures from, and cut-outs.

    Attributes:
        videos: Video files and folders of images.
        probability: Probability (0..1) of using a picture of a video.
        cutouts: Things cut out of pictures.
    """

    videos: tuple[Path, ...] = ()
    probability: float = 0.0
    cutouts: Cutouts = Cutouts()

    def wanted(self, generator: np.random.Generator) -> bool:
        """Draw whether to use a picture of a video."""
        return generator.random() < self.probability

    def pictures(self, generator: np.random.Generator, num_frames: int, size: int) -> tuple[Tensor, ...]:
        """Read frames from a random part of a video, every fourth one (6 fps at 24 fps) if it is long enough.

        Args:
            generator: Source of randomness.
            num_frames: Number of frames; the last one of a shorter video is repeated.
            size: Side of the square pictures in pixels.

        Returns:
            Pictures ``(3, size, size)`` float32 in 0..255.
        """
        reader = open_frames(self._choose(generator))
        try:
            there = reader.frames
            step = max(min(4, (len(there) - 1) // max(num_frames - 1, 1)), 1)
            count = min(num_frames, len(there))
            start = int(generator.integers(len(there) - (count - 1) * step))
            # Repeat the last frame of a video that is shorter than the clip.
            places = [start + min(t, count - 1) * step for t in range(num_frames)]
            loaded = {place: reader.read(there[place], size) for place in dict.fromkeys(places)}
        finally:
            reader.close()
        squares = {place: _square(image, size) for place, image in loaded.items()}
        return tuple(squares[place] for place in places)

    def patch(self, generator: np.random.Generator, size: int) -> Tensor:
        """Crop a random square of a frame, resized to ``(3, size, size)`` float32 in 0..255."""
        reader = open_frames(self._choose(generator))
        try:
            image = reader.read(reader.frames[int(generator.integers(len(reader.frames)))], size)
        finally:
            reader.close()
        side = max(int(min(image.shape[1:]) * generator.uniform(0.2, 1)), 1)
        top, left = (int(generator.integers(length - side + 1)) for length in image.shape[1:])
        return _square(image[:, top : top + side, left : left + side], size)

    def _choose(self, generator: np.random.Generator) -> Path:
        return self.videos[int(generator.integers(len(self.videos)))]


def find_footage(paths: Sequence[PathLike]) -> tuple[Path, ...]:
    """Collect videos.

    Args:
        paths: Video files, folders of images, or folders that contain any of these.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If a folder contains neither images nor videos.
    """
    videos: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such video or folder")
        if not path.is_dir() or files_of(path, IMAGE_SUFFIXES):
            videos.append(path)
            continue
        inside = [Path(e.path) for e in visible_entries(path) if e.is_dir() or is_file_name(e.name, VIDEO_SUFFIXES)]
        if not inside:
            raise ValueError(f"{path}: neither images nor videos in this folder")
        videos += inside
    return tuple(videos)


def find_cutouts(folder: PathLike | None) -> tuple[Path, ...]:
    """List the label images of a folder of cut-outs; ``None`` has none.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If it holds no cut-outs.
    """
    if folder is None:
        return ()
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of cut-outs")
    paths = (Path(entry.path) for entry in visible_entries(folder) if entry.name.endswith(".png"))
    found = tuple(path for path in paths if path.with_suffix(".jpg").exists())
    if not found:
        raise ValueError(f"{folder}: no pairs of NAME.png and NAME.jpg in this folder")
    return found


def bounds(mask: Tensor) -> tuple[int, int, int, int]:
    """Bounding box of a non-empty mask ``(H, W)``: top, bottom, left, right, ends exclusive."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _square(image: Tensor, size: int) -> Tensor:
    """Resize an image ``(C, H, W)`` uint8 or float32 to ``(C, size, size)`` float32."""
    resized = F.interpolate(image[None], (size, size), mode="bilinear", antialias=True, align_corners=False)
    return resized[0].float()
