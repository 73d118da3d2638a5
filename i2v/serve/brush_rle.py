"""Label Studio's run lengths of brush masks: a stream of bits with runs of bytes."""

from __future__ import annotations

import numpy as np

from i2v.results.rle import Mask

_CHANNELS = 4  # values per pixel: red, green, blue and alpha, all the same
_VALUE_BITS = 8
_COUNT_BITS = (3, 4, 8, 16)  # widths that the length of a run can have
_LONGEST = 1 << _COUNT_BITS[-1]


def encode_brush(mask: Mask) -> list[int]:
    """Encode a mask as Label Studio's brush tool stores it.

    The stream begins with the number of values (32 bits), the bits of a value less one (5) and of the four widths of
    counts less one (4 each). A run follows as 1 (one bit), the number of its width (2), its length less one, and its
    value, 0 or 255. Values are those of the pixels in rows, four for each.

    Args:
        mask: ``(H, W)``.

    Returns:
        The bytes of the stream.
    """
    values = np.asarray(mask, dtype=bool).ravel()
    fields = [_bits(values.size * _CHANNELS, 32), _bits(_VALUE_BITS - 1, 5)]
    fields += [_bits(width - 1, 4) for width in _COUNT_BITS]
    starts = np.concatenate(([0], np.flatnonzero(np.diff(values)) + 1))
    lengths = np.diff(np.concatenate((starts, [values.size]))) * _CHANNELS
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = _bits(255 if values[start] else 0, _VALUE_BITS)
        while length > 0:
            piece = min(length, _LONGEST)
            fields.append(_run(piece) + value)
            length -= piece
    stream = "".join(fields)
    stream += "0" * (-len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8, "big"))


def _run(length: int) -> str:
    number = next(i for i, width in enumerate(_COUNT_BITS) if length <= 1 << width)
    return "1" + _bits(number, 2) + _bits(length - 1, _COUNT_BITS[number])


def _bits(value: int, width: int) -> str:
    return f"{value:0{width}b}"
