"""Pictures to disk, whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from i2v.utils.files import replacing


def write_picture(path: str | Path, picture: Image.Image, form: str, **options: Any) -> None:
    """Write a picture in one of Pillow's formats, with the options of that, atomically. Raises OSError.

    It is one of many: whoever begins its folder clears that of what killed processes have left.
    """
    # Pillow itself does not notice when a disk that is nearly full takes a part of a JPEG.
    encoded = io.BytesIO()
    picture.save(encoded, format=form, **options)
    with replacing(path, one_of_many=True) as temporary:
        temporary.write_bytes(encoded.getbuffer())
