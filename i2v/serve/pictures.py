"""Images that clients send or name, as pixels."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from i2v.errors import InvalidFileError, reading
from i2v.utils.image_file import FORMATS, FRAME_FORMATS, MAX_BYTES, decode_image
from i2v.utils.input_file import read_input
from i2v.video.frame_source import picture_to_rgb

Picture = NDArray[np.uint8]  # (H, W, 3), RGB
_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,", re.ASCII)


def decode_picture(text: str, upright: bool = False) -> Picture:
    """Decode an image from base64 or a data URI.

    Args:
        text: The text.
        upright: Whether to turn it as its EXIF orientation says, as browsers show it.

    Returns:
        ``(H, W, 3)`` uint8 RGB.

    Raises:
        InvalidFileError: If it is no image, or too large.
    """
    start = _DATA_URI.match(text)
    try:
        data = base64.b64decode(text[start.end() if start else 0 :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidFileError("image", f"expected an image file in base64: {error}") from error
    return _decoded(data, "image", FORMATS, upright)


def read_picture(path: Path, upright: bool = False) -> Picture:
    """Read an image file, see ``decode_picture``. Raises OSError if it cannot be read."""
    return _decoded(read_input(path, MAX_BYTES), path.name, FRAME_FORMATS, upright)


def _decoded(data: bytes, name: str, formats: tuple[str, ...], upright: bool) -> Picture:
    image = decode_image(data, name, formats)
    if upright:
        with reading(name, "the orientation of this image"):
            image = ImageOps.exif_transpose(image)
    return picture_to_rgb(image)
