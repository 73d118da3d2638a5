"""Reading images from files and uploads: size limits before decoding, and one error for whatever is wrong."""

from __future__ import annotations

import functools
import io
import mmap
import re
from collections.abc import Iterator

from PIL import Image, ImageFile, UnidentifiedImageError

from i2v.errors import InvalidFileError, StrPath, locating, reading
from i2v.utils.input_file import read_input
from i2v.utils.picture_size import check_size

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Accepted formats. Pillow supports more, but runs Ghostscript for one of them."""

FRAME_FORMATS = (*FORMATS, "TIFF", "JPEG2000", "PPM", "AVIF")
"""The formats of frames and masks on disk. Pillow decodes them by itself, AVIF from version 11.3 on."""

MAX_BYTES = 256 << 20

# Segments of a JPEG or chunks of a PNG. Pillow parses them in Python, so very many take minutes.
_MAX_PARTS = 100_000
# A JPEG is decoded once per scan. Real files have about ten; a hostile one can have thousands, at 50 bytes each.
_MAX_SCANS = 64

JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
"""What pictures begin with."""
JPEG_END, PNG_END = b"\xff\xd9", b"IEND"
"""Kinds of the parts that pictures end with, see ``picture_parts``."""
# Other bytes after 0xff belong to the data of a scan.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SCAN, _NO_LENGTH = b"\xff\xda", (b"\xff\x01", JPEG, JPEG_END)


def load_image(
    path: StrPath,
    formats: tuple[str, ...] = FORMATS,
    size: tuple[int, int] | None = None,
    at_least: int | None = None,
) -> Image.Image:
    """Read an image file as stored; of an animation, the first frame.

    Args:
        path: Path of the file.
        formats: Accepted formats, whatever the file's suffix.
        size: Expected (height, width), if any.
        at_least: If given, a JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, in RGB, with no side below this many
            pixels. That is much faster.

    Returns:
        The decoded image.

    Raises:
        OSError: If the file cannot be read.
        InvalidFileError: If it is not such an image, is damaged, or has more than ``MAX_PIXELS`` pixels.
    """
    return decode_image(read_input(path, MAX_BYTES), path, formats, size, at_least)


def decode_image(
    data: bytes,
    name: StrPath,
    formats: tuple[str, ...] = FORMATS,
    size: tuple[int, int] | None = None,
    at_least: int | None = None,
) -> Image.Image:
    """Decode an image from bytes, like ``load_image``.

    Args:
        data: Contents of the file.
        name: Name in messages.
        formats: See ``load_image``.
        size: See ``load_image``.
        at_least: See ``load_image``.

    Returns:
        The decoded image.

    Raises:
        InvalidFileError: See ``load_image``.
    """
    with open_picture(data, name, formats) as image:
        if size is not None and (image.height, image.width) != size:
            raise InvalidFileError(name, f"the image is {image.width}x{image.height}, expected {size[1]}x{size[0]}")
        with reading(name, "this image"):
            if at_least is not None:
                image.draft("RGB", (at_least, at_least))
            image.load()
        return image


def read_image_size(path: StrPath, formats: tuple[str, ...] = FORMATS) -> tuple[int, int]:
    """Read the (height, width) of an image file without decoding it. Raises the errors of ``load_image``."""
    with open_picture(read_input(path, MAX_BYTES), path, formats) as image:
        return image.height, image.width


def open_picture(data: bytes, name: StrPath, formats: tuple[str, ...]) -> ImageFile.ImageFile:
    """Open an image, reading only its header, and check everything that must hold before decoding.

    A small file can declare a huge image. Raises the errors of ``load_image``.
    """
    _check_parts(data, name)
    with reading(name, "this image"):
        try:
            image = Image.open(io.BytesIO(data), formats=[name for name in formats if name in _known_formats()])
        except UnidentifiedImageError:  # its message names a buffer
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
    """Raise InvalidFileError if a file has so many parts that reading it would take minutes."""
    scans = 0
    for parts, (part, *_) in enumerate(picture_parts(data), start=1):
        scans += part == _SCAN
        if parts > _MAX_PARTS or scans > _MAX_SCANS:
            what = f"{_MAX_SCANS} scans" if scans > _MAX_SCANS else f"{_MAX_PARTS:,} parts"
            raise InvalidFileError(name, f"this image has more than {what}")


def picture_parts(data: bytes | mmap.mmap, start: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Walk through a JPEG or PNG without decoding it.

    Args:
        data: The file.
        start: Where in it the picture begins.

    Yields:
        Segments of a JPEG up to the end of its first image, or chunks of a PNG: the kind, which is the marker in a
        JPEG, where the content begins, and where the next part can begin at the earliest. The last one is ``JPEG_END``
        or ``PNG_END``, unless the picture is cut: then it may end beyond the data.
    """
    kind = b""
    if data[start : start + 2] == JPEG:
        at = start + len(JPEG)
        while kind != JPEG_END and (found := _MARKER.search(data, at)) is not None:
            kind, at = found[0], found.end()
            if kind in _NO_LENGTH:
                yield kind, at, at
                continue
            content, at = at + 2, at + int.from_bytes(data[at : at + 2], "big")
            yield kind, content, at
    elif data[start : start + len(PNG)] == PNG:
        at = start + len(PNG)
        while at < len(data) and kind != PNG_END:
            kind, content = data[at + 4 : at + 8], at + 8
            at = content + int.from_bytes(data[at : at + 4], "big") + 4  # the checksum
            yield kind, content, at
