"""How large a picture or a mask may be."""

from __future__ import annotations

MAX_PIXELS = 1 << 25
"""Of a picture: 33.5 million, so that a frame of 8K video (7680x4320) fits, and a few copies of it into 2 GB."""


def check_size(width: int, height: int) -> None:
    """ValueError unless a picture has pixels, and no more than MAX_PIXELS."""
    if width < 1 or height < 1:
        raise ValueError(f"an empty picture of {width}x{height} pixels")
    if width * height > MAX_PIXELS:
        raise ValueError(f"a picture of {width}x{height} pixels, expected at most {MAX_PIXELS:,} in all")
