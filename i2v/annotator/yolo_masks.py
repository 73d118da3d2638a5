"""Masks in YOLO's text files: a line per instance, with its category and a polygon in parts of the frame's size."""

from __future__ import annotations

import numpy as np

from i2v.annotator.masks import StoredMask
from i2v.annotator.read_mask import ReadMask, frame_in_name
from i2v.annotator.session_file import check_places
from i2v.results.polygons import fill_polygons
from i2v.results.rle import Size, encode_mask
from i2v.utils.input_file import as_text

_MOST_LINES, _MOST_NUMBERS = 255, 200_000


def masks_in_yolo(name: str, data: bytes, size: Size, num_frames: int) -> list[ReadMask]:
    """Read the masks of a frame. The format does not say which object is which, so there is one of each category.

    Args:
        name: Name of the file; the number at its end is the frame.
        data: Its contents.
        size: (height, width) of the video.
        num_frames: Number of frames of the video.

    Returns:
        The masks; the object of category n has the number n + 1.

    Raises:
        ValueError: If the file is malformed or does not fit, or has two instances of a category.
    """
    frame = frame_in_name(name)
    lines = [line.split() for line in as_text(data, name).splitlines() if line.strip()]
    if len(lines) > _MOST_LINES or any(len(line) > _MOST_NUMBERS for line in lines):
        raise ValueError(f"expected at most {_MOST_LINES} instances")
    masks = [_mask(line, place, frame, size) for place, line in enumerate(lines, start=1)]
    check_places([(mask.number, frame) for mask in masks], num_frames)
    return masks


def _mask(line: list[str], place: int, frame: int, size: Size) -> ReadMask:
    try:
        category, numbers = int(line[0]), np.array(line[1:], dtype=np.float64)
    except ValueError:
        raise ValueError(f"line {place}: expected a category and the corners of a polygon") from None
    if not 0 <= category < 254 or len(numbers) % 2 or len(numbers) < 6 or not ((numbers >= 0) & (numbers <= 1)).all():
        raise ValueError(f"line {place}: expected a category from 0 and at least three corners in 0..1")
    height, width = size
    polygon = numbers.reshape(-1, 2) * (width, height)
    stored = StoredMask(encode_mask(fill_polygons([polygon], size)))
    return ReadMask(category + 1, frame, stored, f"class {category}")
