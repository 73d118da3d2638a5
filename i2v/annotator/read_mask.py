"""A mask as it is read from a file, and the frame that a file's name tells."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from i2v.annotator.masks import StoredMask


@dataclass(frozen=True)
class ReadMask:
    """A mask that was read from a file.

    Attributes:
        number: Number of its object.
        frame: Index of its frame.
        stored: The mask.
        name: Name of the object, if the file has one.
    """

    number: int
    frame: int
    stored: StoredMask
    name: str | None = None


def frame_in_name(name: str) -> int:
    """Return the number that ends a file's name, not counting its suffix.

    Raises:
        ValueError: If there is none.
    """
    digits = re.search(r"(\d+)\D*$", PurePosixPath(name).stem)
    if digits is None or len(digits[1]) > 9:
        raise ValueError("expected the number of its frame in the name")
    return int(digits[1])
