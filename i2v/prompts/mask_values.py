"""What the numbers of a mask mean: labels, black and white, grey levels, or probabilities."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

VOID = 255
"""The label that benchmarks give to pixels of which nobody says what they are. Alone in a picture, it is white."""

_FEWEST_LEVELS = 32  # of a ramp from black to white; fewer values are labels, even if neighbours differ by one
_FEWEST_GREYS = 8  # of a picture of soft edges; fewer values are labels in any case, where labels are expected
_STEP = 3  # by which neighbours on a ramp differ at most
_SOFT_EDGE = 0.1  # of the range: nearer to black or white, values are the noise of a lossy format
_SLACK = 0.5  # of the range, by which levels and probabilities may leave it, as bicubic interpolation does


GREY_LEVELS = "grey levels (soft edges?), expected labels, or black and white: 0 and 255"
"""What is wrong with a picture for which ``has_grey_levels``."""


class Meaning(Enum):
    """What the whole numbers of a picture are."""

    BINARY = auto()  # 0 and one value for the object: 1, 255 or the largest of the type
    LABELS = auto()  # numbers of objects, 0 for none
    LEVELS = auto()  # how much of a pixel belongs to the object, up to the largest number of the type


def meaning_of(values: NDArray[Any], top: int) -> Meaning:
    """Tell labels from grey levels, both of which pictures and arrays hold.

    Args:
        values: ``(H, W)`` whole numbers, not negative.
        top: The value of white: 255 for 8 bits, 65535 for 16 bits.

    Returns:
        ``LABELS`` where the values between black and white fill areas, without being a ramp, or where none of them
        reaches half of ``top``. ``LEVELS`` where they only lie along edges, as they do around soft masks and in JPEGs.
    """
    found = np.unique(values)
    between = found[(found != 0) & (found != top)]
    if len(between) == 0 or (len(between) == 1 and len(found) <= 2 and between[0] in (1, VOID)):
        return Meaning.BINARY
    if between[-1] > top:
        return Meaning.LABELS
    if between[-1] < (top + 1) // 2:
        return Meaning.LABELS if found[-1] != top or _fills_blocks(values, values > 0) else Meaning.LEVELS
    edge = round(_SOFT_EDGE * top)
    # Lossy formats turn white into one or two other values in whole areas, but black areas stay black.
    is_dark = (values > 0) & (values <= edge)
    is_middle = (values > edge) & (values < top - edge)
    if found[0] == 0 and _fills_blocks(values, is_dark):
        return Meaning.LEVELS if is_ramp(values, len(between)) else Meaning.LABELS
    if _fills_blocks(values, is_middle) and not is_ramp(values, len(between)):
        return Meaning.LABELS
    return Meaning.LEVELS


def has_grey_levels(values: NDArray[np.uint8]) -> bool:
    """Whether a picture ``(H, W)`` that should have labels has grey levels instead, of soft edges or a lossy format."""
    num_values = int(np.count_nonzero(np.bincount(values.ravel(), minlength=256)))
    return num_values >= _FEWEST_GREYS and meaning_of(values, VOID) is Meaning.LEVELS


def foreground(values: NDArray[Any], where: str) -> Mask:
    """Read a mask given as an array.

    Args:
        values: ``(H, W)`` of booleans or numbers of any type and byte order. Label maps count from 1, grey levels from
            half of their range (see ``meaning_of``), probabilities in 0..1 from 0.5. What is negative is no object, nor
            is 255 beside other labels, which is void.
        where: Prefix of error messages.

    Returns:
        ``(H, W)``, true on the object.

    Raises:
        ValueError: If the values are no numbers, not finite, or neither labels, levels nor probabilities.
    """
    if values.dtype.kind == "O":
        values = _numbers(values, where)
    if values.dtype.kind == "b":
        return values
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{where}: expected a mask of booleans or numbers, got {values.dtype}")
    if values.dtype.kind == "f":
        return _foreground_of_floats(values, where)
    return _foreground_of_integers(values)


def flat_values(values: NDArray[Any]) -> list[int]:
    """The values but 0 of a picture (H,W) that fill areas: at least half of their pixels equal all four neighbours."""
    flat = _fills_area(values)
    found, counts = np.unique(values, return_counts=True)
    inner, inner_counts = np.unique(values[flat], return_counts=True)
    inside = dict(zip(inner.tolist(), inner_counts.tolist(), strict=True))
    pairs = zip(found.tolist(), counts.tolist(), strict=True)
    return [value for value, count in pairs if value and 2 * inside.get(value, 0) >= count]


def whole_numbers(values: NDArray[Any]) -> NDArray[np.int64] | None:
    """Floats as integers if all of them are whole numbers of at most 31 bits; else ``None``."""
    if not np.isfinite(values).all() or (values != np.rint(values)).any() or np.abs(values).max(initial=0) >= 2**31:
        return None
    return values.astype(np.int64)


def _numbers(values: NDArray[Any], where: str) -> NDArray[Any]:
    kinds = {type(value) for value in values.flat}
    if kinds <= {bool, np.bool_}:
        return values.astype(bool)
    if not all(issubclass(kind, int | float | np.number) for kind in kinds):
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"{where}: expected a mask of booleans or numbers, got an array of {names}")
    return values.astype(np.float64)


def _foreground_of_integers(values: NDArray[Any]) -> Mask:
    # The range of wider types says nothing: what fits into 8 bits is taken for that.
    highest = int(values.max(initial=0))
    top = VOID if highest <= VOID or values.dtype.itemsize > 2 else int(np.iinfo(values.dtype).max)
    meaning = meaning_of(np.maximum(values, 0), top)
    if meaning is Meaning.LEVELS:
        return np.asarray(values > top // 2)
    is_void = (values == VOID) if meaning is Meaning.LABELS else np.zeros(values.shape, np.bool_)
    return np.asarray((values > 0) & ~is_void)


def _foreground_of_floats(values: NDArray[Any], where: str) -> Mask:
    if not np.isfinite(values).all():
        raise ValueError(f"{where}: the mask has values that are not finite (NaN or infinity)")
    numbers = whole_numbers(values)
    if numbers is not None:
        return _foreground_of_integers(numbers)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if low >= -_SLACK and high <= 1 + _SLACK:
        return np.asarray(values >= 0.5)
    if low >= -_SLACK * VOID and VOID / 2 <= high <= (1 + _SLACK) * VOID:
        return np.asarray(values >= VOID / 2)
    raise ValueError(
        f"{where}: the mask has values from {low:g} to {high:g}, expected booleans, labels, 0..1 or 0..255; of logits, "
        "give mask > 0"
    )


def _fills_blocks(values: NDArray[Any], where: Mask) -> bool:
    """Whether most of the pixels ``where`` are in blocks of 2 x 2 pixels of one value.

    Soft edges have no such blocks, even where they are straight.
    """
    same = (
        (values[1:, 1:] == values[:-1, :-1])
        & (values[1:, :-1] == values[:-1, 1:])
        & (values[1:, 1:] == values[1:, :-1])
    )
    in_block = np.zeros(values.shape, np.bool_)
    for rows in (slice(1, None), slice(None, -1)):
        for columns in (slice(1, None), slice(None, -1)):
            in_block[rows, columns] |= same
    total = np.count_nonzero(where)
    return bool(total > 0 and 2 * np.count_nonzero(in_block & where) >= total)


def is_ramp(values: NDArray[Any], num_between: int) -> bool:
    """Whether the values run through many levels in small steps."""
    if num_between < _FEWEST_LEVELS:
        return False
    signed = values.astype(np.int64)
    steps = np.abs(np.concatenate((np.diff(signed, axis=0).ravel(), np.diff(signed, axis=1).ravel())))
    steps = steps[steps > 0]
    return bool(np.count_nonzero(steps <= _STEP) >= 0.9 * len(steps))


def _fills_area(values: NDArray[Any]) -> Mask:
    """Pixels that equal their four neighbours; the border continues outside."""
    padded = np.pad(values, 1, mode="edge")
    centre = padded[1:-1, 1:-1]
    return np.asarray(
        (padded[:-2, 1:-1] == centre)
        & (padded[2:, 1:-1] == centre)
        & (padded[1:-1, :-2] == centre)
        & (padded[1:-1, 2:] == centre)
    )
