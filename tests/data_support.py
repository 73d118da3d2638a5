"""Small data sets on disk in the layouts that training reads: a disc that moves to the right, and one at rest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from i2v.results.overlay import VideoWriter
from train.dataset.structures import FrameObjects, VideoClip

HEIGHT, WIDTH = 36, 64
Mask = NDArray[np.bool_]


def disc(x: float, y: float = 18, radius: float = 6, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Mask:
    """Mask of a disc."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def moving(frame: int) -> Mask:
    """The moving disc on a frame."""
    return disc(10 + frame)


def resting() -> Mask:
    """The disc at rest."""
    return disc(50, 8, 5)


def picture(frame: int) -> NDArray[np.uint8]:
    """RGB picture (H,W,3): red level tells the frame, discs are blue and green."""
    image = np.full((HEIGHT, WIDTH, 3), (4 * frame, 60, 60), np.uint8)
    image[moving(frame)] = (4 * frame, 60, 250)
    image[resting()] = (4 * frame, 250, 60)
    return image


def rle(mask: Mask) -> dict[str, Any]:
    """A mask as SA-V's files hold it."""
    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def write_jpegs(folder: Path, frames: Sequence[int]) -> None:
    """Frames as %05d.jpg."""
    folder.mkdir(parents=True)
    for frame in frames:
        Image.fromarray(picture(frame)).save(folder / f"{frame:05d}.jpg", quality=95)


def write_mp4(path: Path, num_frames: int) -> None:
    """The frames as a video file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path) as writer:
        for frame in range(num_frames):
            writer.write(picture(frame))


def write_sav_json(path: Path, num_frames: int) -> None:
    """Masks of every fourth frame: object 0 moves, 1 is never there, 2 rests and is gone on frame 4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    empty = rle(np.zeros((HEIGHT, WIDTH), bool))
    entries = [[rle(moving(f)), None, empty if f == 4 else rle(resting())] for f in range(0, num_frames, 4)]
    path.write_text(json.dumps({"video_id": path.stem, "masklet": entries}))


def write_sav(root: Path, names: Sequence[str], num_frames: int = 20) -> None:
    """root/jpg/NAME/*.jpg of annotated frames, root/json/NAME_manual.json."""
    for name in names:
        write_jpegs(root / "jpg" / name, range(0, num_frames, 4))
        write_sav_json(root / "json" / f"{name}_manual.json", num_frames)


def write_sa1b(root: Path, names: Sequence[str]) -> None:
    """root/jpg/NAME.jpg and root/json/NAME.json with masks of the disc, nothing, and most of the picture."""
    for folder in ("jpg", "json"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    masks = [moving(0), np.zeros((HEIGHT, WIDTH), bool), np.ones((HEIGHT, WIDTH), bool)]
    for name in names:
        Image.fromarray(picture(0)).save(root / "jpg" / f"{name}.jpg", quality=95)
        entries = [{"id": i, "segmentation": rle(mask), "area": int(mask.sum())} for i, mask in enumerate(masks)]
        (root / "json" / f"{name}.json").write_text(json.dumps({"image": {}, "annotations": entries}))


def write_davis(root: Path, names: Sequence[str], num_frames: int = 6) -> None:
    """root/JPEGImages/NAME/*.jpg, root/Annotations/NAME/*.png with a palette: 1 moves, 2 rests."""
    for name in names:
        write_jpegs(root / "JPEGImages" / name, range(num_frames))
        (root / "Annotations" / name).mkdir(parents=True)
        for frame in range(num_frames):
            labels = moving(frame).astype(np.uint8)
            labels[resting()] = 2
            image = Image.fromarray(labels)
            image.putpalette(bytes([0, 0, 0, 200, 0, 0, 0, 200, 0]))
            image.save(root / "Annotations" / name / f"{frame:05d}.png")


def found_frame(found: FrameObjects) -> int:
    """Which frame a picture made by `picture` shows."""
    return round(float(found.image[0].float().median()) / 4)


class Numbered:
    """Clips of one pixel that tell their number and what they drew; some cannot be read, some sets are only counted."""

    def __init__(self, length: int, broken: Sequence[int] = (), base: int = 0) -> None:
        self._length, self._broken, self._base = length, frozenset(broken), base

    def __len__(self) -> int:
        return self._length

    def clip(self, index: int, generator: np.random.Generator) -> VideoClip:
        """Frame values: the number, a draw from the generator, and 0."""
        if index in self._broken:
            raise ValueError(f"/data/{self._base + index}.jpg: broken")
        values = torch.tensor([self._base + index, generator.random(), 0.0])
        masks = torch.ones(1, 1, 1, 1, dtype=torch.bool)
        return VideoClip(values.view(1, 3, 1, 1), masks, f"clip {self._base + index}", (0,))
