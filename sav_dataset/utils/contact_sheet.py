"""Contact sheet of an object: some of its frames, with ground truth and prediction."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from i2v.results.overlay import blend_overlay
from i2v.utils.image_file import load_image
from sav_dataset.utils.mask_files import Mask, MaskVideo
from sav_dataset.utils.scores import FrameScore, ObjectScore

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
NUM_FRAMES = 5
SIDE, GAP, BAR = 320, 6, 20
GT_LABEL, PRED_LABEL = 4, 1  # green and red of the palette
ROWS = ("image", "ground truth", "prediction")


@dataclass(frozen=True)
class ObjectPictures:
    """Where the pictures come from.

    Attributes:
        gt_root: Annotations of all videos.
        pred_root: Predictions of all videos.
        images: Frames of all videos; ``None`` if not available.
        single_object: Whether all labels count as one object.
    """

    gt_root: Path
    pred_root: Path
    images: Path | None
    single_object: bool = False
    ignore_labels: tuple[int, ...] | None = None

    def mask(self, root: Path, score: ObjectScore, frame: str) -> Mask:
        """Read the mask ``(H, W)`` of an object on a frame from one of the two trees."""
        # Which labels the ground truth ignores matters only where all others are one object.
        video = MaskVideo.open(root / score.video, self.single_object, self.ignore_labels or ())
        return video.read(frame, score.obj if video.is_folder_per_object else None).mask(score.obj)

    def image(self, score: ObjectScore, frame: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read a frame ``(H, W, 3)`` uint8; grey if there is none of this size."""
        folder = self.images / score.video if self.images else None
        paths = [folder / (Path(frame).stem + suffix) for suffix in IMAGE_SUFFIXES] if folder else []
        for path in filter(Path.is_file, paths):
            picture = np.asarray(load_image(path).convert("RGB"))
            if picture.shape[:2] == size:
                return picture
        return np.full((*size, 3), 128, np.uint8)


def worst_frames(score: ObjectScore, count: int = NUM_FRAMES) -> list[FrameScore]:
    """Choose frames to show: the worst of each of ``count`` equally long parts of the object's frames."""
    cuts = np.linspace(0, len(score.frames), min(count, len(score.frames)) + 1).astype(int)
    stretches = [score.frames[start:stop] for start, stop in pairwise(cuts)]
    return [min(stretch, key=lambda frame: frame.j + frame.f) for stretch in stretches]


def draw_object(score: ObjectScore, pictures: ObjectPictures) -> Image.Image:
    """Draw a page with a column per chosen frame: image, ground truth, prediction."""
    frames = worst_frames(score)
    columns = [_column(score, frame.frame, pictures) for frame in frames]
    width, height = columns[0][0].size
    page = Image.new("RGB", (len(frames) * (width + GAP) + GAP, BAR * 2 + 3 * (height + BAR + GAP)), (24, 24, 24))
    title = f"{score.video}, object {score.obj}: J&F {score.jf:.1f}, J {score.j:.1f}, F {score.f:.1f}"
    _write(page, (GAP, 2), title)
    for i, (frame, column) in enumerate(zip(frames, columns, strict=True)):
        left = GAP + i * (width + GAP)
        _write(page, (left, BAR), f"{Path(frame.frame).stem}: J {100 * frame.j:.0f}, F {100 * frame.f:.0f}")
        for j, (name, picture) in enumerate(zip(ROWS, column, strict=True)):
            top = 2 * BAR + j * (height + BAR + GAP)
            _write(page, (left, top), name)
            page.paste(picture, (left, top + BAR))
    return page


def _column(score: ObjectScore, frame: str, pictures: ObjectPictures) -> list[Image.Image]:
    gt = pictures.mask(pictures.gt_root, score, frame)
    pred = pictures.mask(pictures.pred_root, score, frame)
    image = pictures.image(score, frame, (gt.shape[0], gt.shape[1]))
    painted = [blend_overlay(image, (m * label).astype(np.uint8)) for m, label in ((gt, GT_LABEL), (pred, PRED_LABEL))]
    scale = SIDE / max(gt.shape)
    size = max(1, round(gt.shape[1] * scale)), max(1, round(gt.shape[0] * scale))
    return [Image.fromarray(picture).resize(size) for picture in (image, *painted)]


def _write(page: Image.Image, place: tuple[int, int], text: str) -> None:
    ImageDraw.Draw(page).text(place, text, fill=(255, 255, 255), font=ImageFont.load_default(size=14))
