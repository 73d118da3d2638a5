"""What the numbers of a mask mean: labels, black and white, grey levels, or probabilities."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

VOID = 255
"""The label that benchmarks give to pixels of which nobody says what they are. Alone in a picture, it is white."""

_MOST_LABELS = 64  # that are told apart by where they lie; a label below half the range is one in any case
_SOFT_EDGE = 0.1  # of the range: nearer to black or white, values are the noise of a lossy format
_SLACK = 0.5  # of the range, by which levels and probabilities may leave it, as bicubic interpolation does


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
        ``LABELS`` where no value but ``top`` reaches half of it, or where the values between black and white fill
        areas. ``LEVELS`` where these only lie along edges, as they do around soft masks and in JPEGs.
    """
    found = np.unique(values)
    between = found[(found != 0) & (found != top)]
    if len(between) == 0 or (len(between) == 1 and len(found) <= 2 and between[0] in (1, VOID)):
        return Meaning.BINARY
    if between[-1] < (top + 1) // 2:
        return Meaning.LABELS
    edge = round(_SOFT_EDGE * top)
    is_middle = (values > edge) & (values < top - edge)
    num_middle = np.count_nonzero(is_middle)
    flat = np.count_nonzero(_fills_area(values) & is_middle)
    is_labels = len(between) <= _MOST_LABELS and num_middle > 0 and 2 * flat >= num_middle
    return Meaning.LABELS if is_labels else Meaning.LEVELS


def foreground(values: NDArray[Any], where: str) -> Mask:
    """Read a mask given as an array.

    Args:
        values: ``(H, W)`` of booleans or numbers of any type and byte order. Label maps count from 1, grey levels from
            half of their range (see ``meaning_of``), probabilities in 0..1 from 0.5. What is negative is no object.
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
    if highest <= top and meaning_of(np.maximum(values, 0), top) is Meaning.LEVELS:
        return np.asarray(values > top // 2)
    return np.asarray(values > 0)


def _foreground_of_floats(values: NDArray[Any], where: str) -> Mask:
    if not np.isfinite(values).all():
        raise ValueError(f"{where}: the mask has values that are not finite (NaN or infinity)")
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if (values == np.rint(values)).all() and abs(low) < 2**31 and high < 2**31:
        return _foreground_of_integers(values.astype(np.int64))
    if low >= -_SLACK and high <= 1 + _SLACK:
        return np.asarray(values >= 0.5)
    if low >= -_SLACK * VOID and VOID / 2 <= high <= (1 + _SLACK) * VOID:
        return np.asarray(values >= VOID / 2)
    raise ValueError(
        f"{where}: the mask has values from {low:g} to {high:g}, expected booleans, labels, 0..1 or 0..255; of logits, "
        "give mask > 0"
    )


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
