"""Importing masks of other tools: PNG label maps and RLE JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from i2v.annotator.checked_json import CHECKED, validate_json
from i2v.annotator.masks import Masks, StoredMask
from i2v.annotator.session_file import FrameEntry, check_places, masks_by_object
from i2v.errors import InvalidFileError, locating
from i2v.prompts.mask_values import VOID, Meaning, meaning_of
from i2v.results.rle import Size, encode_mask
from i2v.utils.image_file import decode_image


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class _MaskFile:
    frames: Annotated[list[FrameEntry], Field(fail_fast=True)]


_FILE = TypeAdapter(_MaskFile)


@dataclass(frozen=True)
class Target:
    """Where masks are imported to.

    Attributes:
        size: (height, width) of the video.
        num_frames: Number of frames.
        selected: Number of the selected object.
    """

    size: Size
    num_frames: int
    selected: int


def read_masks(name: str, data: bytes, target: Target) -> Masks:
    """Read masks from a file.

    A PNG belongs to the frame whose number ends its name. Its values are object numbers, but without a palette, a
    single nonzero value, or grey levels, are the mask of the selected object. JSON has the format of ``i2v track`` and
    of exports.

    Args:
        name: Name of the file.
        data: Its contents.
        target: The video and the selected object.

    Returns:
        Masks by object and frame.

    Raises:
        InvalidFileError: If the file is anything else, does not match the video's size, or has frames beyond its end.
    """
    with locating(name):
        if name.lower().endswith(".json"):
            return _read_json(name, data, target)
        if name.lower().endswith(".png"):
            return _read_png(name, data, target)
    raise InvalidFileError(name, "expected masks as PNG or JSON")


def _read_json(name: str, data: bytes, target: Target) -> Masks:
    content = validate_json(_FILE, data, name, "a file of masks")
    masks = masks_by_object(content.frames, target.size, target.num_frames)
    if not masks:
        raise ValueError("there is no mask in it")
    return masks


def _read_png(name: str, data: bytes, target: Target) -> Masks:
    digits = re.search(r"(\d+)\D*\.png$", name, re.IGNORECASE)
    if digits is None or len(digits[1]) > 9:
        raise ValueError("expected the number of its frame in the name")
    frame = int(digits[1])
    check_places([(target.selected, frame)], target.num_frames)
    image = decode_image(data, name, formats=("PNG",), size=target.size)
    if image.mode not in ("P", "L", "1"):
        raise ValueError(f"expected 8-bit labels or a black and white mask, got mode {image.mode}")
    labels = np.asarray(image, dtype=np.uint8)
    values = [int(value) for value in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)) if value]
    if image.mode == "L" and meaning_of(labels, VOID) is Meaning.LEVELS:  # soft edges are no objects
        return {target.selected: {frame: StoredMask(encode_mask(labels > VOID // 2))}}
    if len(values) == 1 and image.mode != "P":
        return {target.selected: {frame: StoredMask(encode_mask(labels > 0))}}
    if not values:
        raise ValueError("every pixel is 0, so it marks no object")
    return {value: {frame: StoredMask(encode_mask(labels == value))} for value in values}
