"""Masks of other tools: PNG label maps and run-length JSON, checked and brought into a session."""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image
from pydantic import BaseModel, ValidationError

from i2v.utils.frame_source import IMAGE_ERRORS
from i2v.web.masks import Size, StoredMask, encode
from i2v.web.session_file import FrameEntry, first_problem

Masks = dict[int, dict[int, StoredMask]]


class _MaskFile(BaseModel):
    frames: list[FrameEntry]


def read_masks(name: str, data: bytes, size: Size, selected: int) -> Masks:
    """The masks of a file by object and frame.

    A PNG belongs to the frame whose number ends its name. Its values are object numbers; one without a palette that
    has a single value beside 0 is the mask of the `selected` object. JSON is what `i2v track` and the export write.
    Raises ValueError, naming the file, for anything else.
    """
    try:
        if name.lower().endswith(".json"):
            return _read_json(data, size)
        if name.lower().endswith(".png"):
            return _read_png(name, data, size, selected)
    except ValidationError as error:
        raise ValueError(f"{name}: not a file of masks: {first_problem(error)}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    raise ValueError(f"{name}: expected masks as PNG or JSON")


def _read_json(data: bytes, size: Size) -> Masks:
    masks: Masks = {}
    for entry in _MaskFile.model_validate_json(data).frames:
        for mask in entry.objects:
            masks.setdefault(mask.id, {})[entry.frame] = mask.stored(size)
    if not masks:
        raise ValueError("there is no mask in it")
    return masks


def _read_png(name: str, data: bytes, size: Size, selected: int) -> Masks:
    digits = re.search(r"(\d+)\D*\.png$", name, re.IGNORECASE)
    if digits is None or len(digits[1]) > 9:
        raise ValueError("expected the number of its frame in the name")
    frame = int(digits[1])
    labels, has_palette = _pixels(data, size)
    values = [int(value) for value in np.unique(labels) if value]
    if len(values) == 1 and not has_palette:
        return {selected: {frame: StoredMask(encode(labels > 0))}}
    if not values:
        raise ValueError("every pixel is 0, so it marks no object")
    return {value: {frame: StoredMask(encode(labels == value))} for value in values}


def _pixels(data: bytes, size: Size) -> tuple[np.ndarray, bool]:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            # Asked before the pixels are unpacked: a small file may hold a huge picture.
            if image.size != (size[1], size[0]):
                raise ValueError(f"it is {image.width}x{image.height}, wanted {size[1]}x{size[0]} like the video")
            if image.mode not in ("P", "L", "1"):
                raise ValueError(f"expected 8-bit labels or a black and white mask, got mode {image.mode}")
            return np.asarray(image, dtype=np.uint8), image.mode == "P"
    except IMAGE_ERRORS as error:
        raise ValueError(f"cannot be read: {error}" if not isinstance(error, ValueError) else str(error)) from error
