"""Masks as COCO RLE: encoded by pycocotools, decoded here with checks.

pycocotools decodes in C without checking sizes and run lengths: runs that end early make it return uninitialized
memory. So untrusted RLE never reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from i2v.errors import brief, shortened
from i2v.utils.picture_size import check_size

Mask = NDArray[np.bool_]
Size = tuple[int, int]  # height, width

MAX_CODE = 8_000_000  # characters of compressed run lengths, or length of a list; typical masks have a few hundred
_MAX_DIGITS = 7  # of one run length: 35 bits
_SHORT = 64  # characters of a code that are decompressed one by one


def encode_mask(mask: NDArray[Any]) -> bytes:
    """Encode a mask ``(H, W)``, bool or 0 and 1, as COCO's compressed run lengths."""
    counts: bytes = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return counts


@dataclass(frozen=True)
class RunLengths:
    """A mask as validated run lengths. Created by ``of_coco``, ``of_counts`` or ``of_runs``.

    Attributes:
        size: (height, width).
        runs: ``(R,)`` int64, lengths of alternating background and object runs in column-major order. They cover the
            size exactly.
    """

    size: Size
    runs: NDArray[np.int64]

    @staticmethod
    def of_coco(rle: Any, size: Size | None = None) -> RunLengths:
        """Read an RLE dictionary as in COCO, SA-V and SA-1B.

        Args:
            rle: A dictionary with "size" and "counts"; counts are compressed or a list.
            size: Expected (height, width), if any.

        Raises:
            ValueError: If the dictionary is malformed, has another size, or its runs do not cover the size exactly.
        """
        own = read_size(rle)
        if size is not None and own != size:
            raise ValueError(f"the mask is {own[1]}x{own[0]}, expected {size[1]}x{size[0]}")
        counts = rle.get("counts")
        if isinstance(counts, str | bytes):
            return RunLengths.of_counts(counts, own)
        if isinstance(counts, list):
            return RunLengths.of_runs(counts, own)
        raise ValueError(f"the run lengths of a mask: expected a text or integers, got {brief(counts)}")

    @staticmethod
    def of_counts(counts: str | bytes, size: Size) -> RunLengths:
        """Read COCO's compressed run lengths.

        Args:
            counts: The run lengths.
            size: (height, width) that they must cover.

        Raises:
            ValueError: If they are malformed or do not cover the size exactly.
        """
        try:
            code = counts.encode("ascii") if isinstance(counts, str) else counts
        except UnicodeEncodeError:
            raise ValueError("the run lengths of a mask: expected ASCII characters") from None
        _check_length(len(code))
        return RunLengths(size, _checked(_decompressed(code), size))

    @staticmethod
    def of_runs(runs: Sequence[int], size: Size) -> RunLengths:
        """Read a list of run lengths.

        Args:
            runs: Lengths of background and object in turn, in column-major order.
            size: (height, width) that they must cover.

        Raises:
            ValueError: If they are malformed or do not cover the size exactly.
        """
        _check_length(len(runs))
        most = size[0] * size[1]
        for run in runs:
            if type(run) is not int or not 0 <= run <= most:
                expected = f"expected whole numbers that cover {size[1]}x{size[0]} pixels"
                raise ValueError(f"the run lengths of a mask: {expected}, got {brief(run)}")
        return RunLengths(size, _checked(np.array(runs, np.int64), size))

    @property
    def area(self) -> int:
        """Number of object pixels."""
        return int(self.runs[1::2].sum())

    def mask(self) -> Mask:
        """Decode to a mask ``(H, W)``."""
        height, width = self.size
        return np.repeat(np.arange(len(self.runs)) % 2 == 1, self.runs).reshape(width, height).T


def read_size(rle: Any) -> Size:
    """Read the (height, width) of an RLE dictionary.

    Raises:
        ValueError: If there is no valid size, or it exceeds ``MAX_PIXELS``.
    """
    size = rle.get("size") if isinstance(rle, dict) else None
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(_is_whole(side) for side in size)):
        raise ValueError(f"the run lengths of a mask: expected a size of two numbers beside them, got {brief(rle)}")
    height, width = int(size[0]), int(size[1])
    check_size(width, height)
    return height, width


def _is_whole(value: Any) -> bool:
    # Some files store sizes as floats, such as 48.0.
    return type(value) is int or (isinstance(value, float) and value.is_integer())


def _check_length(length: int) -> None:
    if length > MAX_CODE:
        raise ValueError(f"the run lengths of a mask: {length:,} characters or numbers, expected at most {MAX_CODE:,}")


def _decompressed(code: bytes) -> NDArray[np.int64]:
    # A variable-length code: 5 bits per character, lowest first. 32 flags that another character follows; 16 in the
    # last one is the sign. From the fourth number on, each is the difference to the one two places before.
    if 0 < len(code) <= _SHORT and min(code) >= 48 and max(code) <= 111 and not (code[-1] - 48) & 32:
        return _decompressed_short(code)
    digits = np.frombuffer(code, np.uint8).astype(np.int64) - 48
    if len(digits) == 0 or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        shown = shortened(repr(code[:40]), 40)
        raise ValueError(f"the run lengths of a mask: expected COCO's compressed form, got {shown}")
    last = np.flatnonzero(digits & 32 == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    if (last - first).max() >= _MAX_DIGITS:
        raise ValueError("the run lengths of a mask: one is too long")
    places = np.arange(len(digits)) - np.repeat(first, last - first + 1)
    values = np.add.reduceat((digits & 31) << (5 * places), first)
    values -= np.where(digits[last] & 16, np.int64(1) << (5 * (last - first + 1)), 0)
    for start in (1, 2):
        values[start::2] = np.cumsum(values[start::2])
    return values


def _decompressed_short(code: bytes) -> NDArray[np.int64]:
    """Decompress valid characters one by one: for a tiny mask, NumPy's calls take longer than its characters."""
    values: list[int] = []
    value, place = 0, 0
    for character in code:
        digit = character - 48
        value |= (digit & 31) << place
        place += 5
        if digit & 32:
            continue
        if place > 5 * _MAX_DIGITS:
            raise ValueError("the run lengths of a mask: one is too long")
        if digit & 16:
            value -= 1 << place
        values.append(value + values[-2] if len(values) > 2 else value)
        value, place = 0, 0
    return np.array(values, np.int64)


def _checked(lengths: NDArray[np.int64], size: Size) -> NDArray[np.int64]:
    pixels = size[0] * size[1]
    if len(lengths) == 0 or lengths.min() < 0 or lengths.max() > pixels or int(lengths.sum()) != pixels:
        raise ValueError(f"the run lengths of a mask: expected them to cover {size[1]}x{size[0]} pixels")
    return lengths
