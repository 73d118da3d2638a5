"""Writing images atomically."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from i2v.utils.files import replacing


def write_picture(path: str | Path, picture: Image.Image, form: str, **options: Any) -> None:
    """Write an image atomically, as one of many in its folder (see ``i2v.utils.files.replacing``).

    Args:
        path: Path of the file.
        picture: The image.
        form: One of Pillow's formats, such as "PNG".
        **options: Pillow's options of that format.

    Raises:
        OSError: If the file cannot be written, for example a DiskFullError.
    """
    # Encode in memory: Pillow does not notice when a nearly full disk takes only a part of a JPEG.
    encoded = io.BytesIO()
    picture.save(encoded, format=form, **options)
    with replacing(path, one_of_many=True) as temporary:
        temporary.write_bytes(encoded.getbuffer())
