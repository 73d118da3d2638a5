"""Results of segmented images: label maps, overlays and a COCO file. torch is not imported."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from pycocotools import mask as coco_mask

from i2v.results.export import write_label_png
from i2v.results.frame_names import FrameNames, clear_masks, own_masks
from i2v.results.overlay import PALETTE, Pixels, UserPrompt, blend_overlay, draw_prompt
from i2v.results.streamed_json import compact_json
from i2v.utils.files import replacing
from i2v.utils.output_folder import check_results_folder, clear_files, own_folder
from i2v.utils.picture_file import write_picture
from i2v.utils.signals import interrupts_deferred
from i2v.utils.temporary import remove_leftovers

COCO_NAME = "annotations.json"
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class ImageMask:
    """A mask of an object in an image.

    Attributes:
        label: Its value in the label map, 1 to 255.
        segmentation: The whole mask in COCO RLE, also where another object covers it in the label map.
        predicted_iou: The model's estimate of the mask's quality.
        details: What else the COCO file says of it, such as its stability score.
    """

    label: int
    segmentation: dict[str, Any]
    predicted_iou: float
    details: dict[str, Any]


class PictureList:
    """Picture files as ``FrameNames`` takes them: their names and order."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        """Name pictures by their paths."""
        self._paths = [os.fspath(path) for path in paths]
        self.name = os.path.commonpath([os.path.abspath(path) for path in self._paths])

    @property
    def num_frames(self) -> int:
        return len(self._paths)

    def frame_name(self, index: int, /) -> str:
        return os.path.basename(self._paths[index])

    def frame_time(self, index: int, /) -> None:
        del index

    def file_names(self) -> list[str]:
        """What COCO calls the files: their names, or their paths where two have the same name."""
        names = [os.path.basename(path) for path in self._paths]
        return names if len(set(names)) == len(names) else self._paths


class ImageResultFolder:
    """The results of segmenting images: masks/NAME.png, overlays/NAME.jpg and annotations.json.

    NAME is that of the picture; pictures are numbered if two have the same name.

    Attributes:
        folder: The folder.
    """

    def __init__(self, folder: Path, paths: Sequence[str | os.PathLike[str]], overwrite: bool = False) -> None:
        """Check the folder. Nothing is created yet.

        Args:
            folder: The folder.
            paths: The pictures.
            overwrite: Whether to replace earlier results in the folder.

        Raises:
            FileExistsError: If the folder is a file, or not empty and ``overwrite`` is false.
            ValueError: If the folder or one of its own is a symbolic link, or a picture lies in the folder.
        """
        self.folder = folder
        self._pictures = PictureList(paths)
        self._names = FrameNames(self._pictures)
        self._file_names = self._pictures.file_names()
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        for path in paths:
            if folder.resolve() in Path(path).resolve().parents:
                raise ValueError(f"{os.fspath(path)} is in the output folder, {folder}: use another --out")
        check_results_folder(folder, (self._masks.name, self._overlays.name), overwrite)

    @property
    def num_masks(self) -> int:
        """Masks that were written so far."""
        return len(self._annotations)

    @property
    def num_images(self) -> int:
        """Images that were written so far."""
        return len(self._images)

    def add(
        self,
        number: int,
        picture: Pixels,
        labels: Pixels,
        masks: Sequence[ImageMask],
        prompts: Sequence[tuple[UserPrompt, int]] = (),
    ) -> None:
        """Write the results of an image.

        Args:
            number: Its place in the list of pictures.
            picture: ``(H, W, 3)`` uint8 RGB.
            labels: Label map ``(H, W)`` uint8.
            masks: Its masks.
            prompts: Prompts that the overlay shows, each with its object's label.

        Raises:
            OSError: If a file cannot be written.
        """
        overlay = Image.fromarray(blend_overlay(picture, labels))
        for prompt, label in prompts:
            draw_prompt(overlay, prompt, 1.0, tuple(PALETTE[label].tolist()))
        mask_name = self._names.mask_name(number)
        # An interrupt must not leave files of an image that the COCO file does not have.
        with interrupts_deferred():
            if not self._images:
                self._begin()
            write_label_png(self._masks / mask_name, labels)
            try:
                overlay_path = self._overlays / f"{mask_name.removesuffix('.png')}.jpg"
                write_picture(overlay_path, overlay, "JPEG", quality=_JPEG_QUALITY)
            except BaseException:  # a second Ctrl-C is not deferred
                (self._masks / mask_name).unlink(missing_ok=True)
                raise
            self._record(number, picture, mask_name, masks)

    def finish(self) -> None:
        """Write the COCO file of the images so far, if there are any.

        Raises:
            OSError: If it cannot be written.
        """
        if not self._images:
            return
        content = {
            "info": {"description": "masks of i2v segment"},
            "images": self._images,
            "annotations": self._annotations,
            "categories": [{"id": 1, "name": "object"}],
        }
        with replacing(self.folder / COCO_NAME) as temporary:
            temporary.write_text(compact_json(content), encoding="ascii")

    @property
    def _masks(self) -> Path:
        return self.folder / "masks"

    @property
    def _overlays(self) -> Path:
        return self.folder / "overlays"

    def _begin(self) -> None:
        # The folder is the user's: only remove files that have our names. An overlay is one beside a mask of ours.
        own_folder(self.folder)
        for folder in (self.folder, own_folder(self._masks), own_folder(self._overlays)):
            remove_leftovers(folder)
        stems = [name.removesuffix(".png") for name in own_masks(self._masks)]
        clear_files(self.folder, re.escape(COCO_NAME))
        clear_files(self._overlays, "|".join(re.escape(f"{stem}.jpg") for stem in stems) or "(?!)")
        clear_masks(self._masks)

    def _record(self, number: int, picture: Pixels, mask_name: str, masks: Sequence[ImageMask]) -> None:
        height, width = picture.shape[:2]
        file_name = self._file_names[number]
        image = {"id": number + 1, "file_name": file_name, "width": width, "height": height, "mask": mask_name}
        self._images.append(image)
        for mask in masks:
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": number + 1,
                    "category_id": 1,
                    "segmentation": mask.segmentation,
                    "area": int(coco_mask.area(mask.segmentation)),
                    "bbox": [int(value) for value in coco_mask.toBbox(mask.segmentation)],
                    "iscrowd": 0,
                    "score": round(mask.predicted_iou, 4),
                    "label": mask.label,
                    **mask.details,
                }
            )
