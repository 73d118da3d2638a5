"""Pictures from files and uploads: bounded before they are unpacked, and one error for whatever is wrong with them."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterator

from PIL import Image, ImageFile, UnidentifiedImageError

from i2v.errors import InvalidFileError, StrPath, locating, reading
from i2v.utils.input_file import read_input
from i2v.utils.picture_size import check_size

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""The formats that are read, whatever a file is called. Pillow knows more, and calls Ghostscript for one."""

FRAME_FORMATS = (*FORMATS, "TIFF", "JPEG2000", "PPM", "AVIF")
"""The formats of frames and masks on disk. Pillow decodes them by itself, AVIF from version 11.3 on."""

MAX_BYTES = 256 << 20

# Segments of a JPEG or chunks of a PNG: Pillow goes through them in Python.
_MAX_PARTS = 100_000
# A JPEG is decoded once for each of its scans, of which a real one has ten and a hostile one, in 50 bytes each,
# thousands.
_MAX_SCANS = 64

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
# What is not among them belongs to the data of a scan.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_END, _SCAN, _NO_LENGTH = b"\xff\xd9", b"\xff\xda", (b"\xff\x01", _JPEG)


def load_image(
    path: StrPath,
    formats: tuple[str, ...] = FORMATS,
    size: tuple[int, int] | None = None,
    at_least: int | None = None,
) -> Image.Image:
    """The picture in a file, as it is stored there; of an animation the first.

    ``size``: (height, width) that it has to have. ``at_least``: a JPEG may come out smaller by 2, 4 or 8, in RGB, but
    with no side below this; a fraction of the work. The system's OSError for a file that is not there;
    InvalidFileError for anything that is no such picture, is damaged, or has more than `MAX_PIXELS` pixels.
    """
    return decode_image(read_input(path, MAX_BYTES), path, formats, size, at_least)


def decode_image(
    data: bytes,
    name: StrPath,
    formats: tuple[str, ...] = FORMATS,
    size: tuple[int, int] | None = None,
    at_least: int | None = None,
) -> Image.Image:
    """The picture that bytes hold, as `load_image` gives it; ``name`` stands for the path."""
    with open_picture(data, name, formats) as image:
        if size is not None and (image.height, image.width) != size:
            raise InvalidFileError(name, f"the image is {image.width}x{image.height}, expected {size[1]}x{size[0]}")
        with reading(name, "this image"):
            if at_least is not None:
                image.draft("RGB", (at_least, at_least))
            image.load()
        return image


def read_image_size(path: StrPath, formats: tuple[str, ...] = FORMATS) -> tuple[int, int]:
    """(height, width) of a picture, without its pixels; raises as `load_image` does."""
    with open_picture(read_input(path, MAX_BYTES), path, formats) as image:
        return image.height, image.width


def open_picture(data: bytes, name: StrPath, formats: tuple[str, ...]) -> ImageFile.ImageFile:
    """A picture of which only the header has been read; raises as `load_image` does.

    What is asked of it here has to be known before the pixels are unpacked: a small file may hold a huge picture.
    """
    _check_parts(data, name)
    with reading(name, "this image"):
        try:
            image = Image.open(io.BytesIO(data), formats=[name for name in formats if name in _known_formats()])
        except UnidentifiedImageError:  # which names a buffer
            raise ValueError(f"it is none of {', '.join(formats)}, or damaged") from None
    with locating(name):
        check_size(image.width, image.height)
    if any(tile[0] == "bmp_rle" for tile in image.tile):
        raise InvalidFileError(name, "a BMP with run lengths, which are not read: store it as PNG")
    return image


@functools.cache
def _known_formats() -> frozenset[str]:
    Image.init()
    return frozenset(Image.OPEN)


def _check_parts(data: bytes, name: StrPath) -> None:
    """InvalidFileError for a file of so many parts that it would take minutes to go through them."""
    scans = 0
    for parts, part in enumerate(_parts(data), start=1):
        scans += part == _SCAN
        if parts > _MAX_PARTS or scans > _MAX_SCANS:
            what = f"{_MAX_SCANS} scans" if scans > _MAX_SCANS else f"{_MAX_PARTS:,} parts"
            raise InvalidFileError(name, f"this image has more than {what}")


def _parts(data: bytes) -> Iterator[bytes]:
    """The kinds of a JPEG's segments, up to the end of its first picture, or of a PNG's chunks."""
    if data.startswith(_JPEG):
        at = len(_JPEG)
        while (found := _MARKER.search(data, at)) is not None and found[0] != _END:
            yield found[0]
            at = found.end()
            if found[0] not in _NO_LENGTH:
                at += int.from_bytes(data[at : at + 2], "big")
    elif data.startswith(_PNG):
        at = len(_PNG)
        while at < len(data) and (kind := data[at + 4 : at + 8]) != b"IEND":
            yield kind
            at += int.from_bytes(data[at : at + 4], "big") + 12  # with its length, kind and checksum
