"""Limits on the size of images and masks."""

from __future__ import annotations

MAX_PIXELS = 1 << 25
"""Pixels of an image: 33.5 million, enough for 8K video (7680x4320), with a few copies below 2 GB."""


def check_size(width: int, height: int) -> None:
    """Check the size of an image in pixels.

    Raises:
        ValueError: If it is empty or has more than ``MAX_PIXELS`` pixels.
    """
    if width < 1 or height < 1:
        raise ValueError(f"an empty picture of {width}x{height} pixels")
    if width * height > MAX_PIXELS:
        raise ValueError(f"a picture of {width}x{height} pixels, expected at most {MAX_PIXELS:,} in all")
