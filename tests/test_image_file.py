"""Pictures from files: what a small one may cost, which kinds are read, and how broken ones are told."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz_files import png_chunk
from PIL import Image

from i2v.errors import InvalidFileError
from i2v.results.export import read_label_png, write_label_png
from i2v.utils.image_file import MAX_BYTES, decode_image, load_image, read_image_size
from i2v.utils.picture_size import MAX_PIXELS
from i2v.video.sources import open_source
from i2v.video.video_file import VideoFile

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG with next to no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0"))


def flat_png(width: int, height: int) -> bytes:
    """A grey PNG of one value: a thousandth of its pixels in bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(b"\0" * (width + 1)) for _ in range(height)) + packer.flush()
    return SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def jpeg_of_size(width: int, height: int) -> bytes:
    """A JPEG that claims another size than it has, in the frame header."""
    data = saved(Image.new("RGB", (64, 48)), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def rle_bmp() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 7000, 4000, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 40 + 1024) + header + bytes(1024) + b"\0\0" * 1000


LARGE = f"expected at most {MAX_PIXELS:,} in all"
SMALL_JPEG = saved(Image.new("RGB", (64, 48)), "JPEG", progressive=True)
LAST_SCAN = SMALL_JPEG[SMALL_JPEG.rindex(b"\xff\xda") : -2]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (flat_png(6000, 6000), f"a picture of 6000x6000 pixels, {LARGE}"),
        (jpeg_of_size(12_000, 12_000), f"a picture of 12000x12000 pixels, {LARGE}"),
        (png_header(30_000, 30_000), "this image cannot be read: Image size .900000000 pixels. exceeds limit"),
        (png_header(13_000, 13_000), "a picture of 13000x13000 pixels"),
        (png_header(2**31 - 1, 1), "cannot be read: Image size"),
        (SMALL_JPEG[:-2] + LAST_SCAN * 100 + b"\xff\xd9", "more than 64 scans"),
        (SMALL_JPEG[:2] + b"\xff\xfe\0\2" * 100_001 + SMALL_JPEG[2:], "more than 100,000 parts"),
        (SIGNATURE + png_chunk(b"abCd", b"") * 100_001, "more than 100,000 parts"),
        (rle_bmp(), "a BMP with run lengths"),
        (saved(Image.new("P", (4, 4)), "GIF"), "it is none of JPEG, PNG, WEBP, BMP, or damaged"),
        (saved(Image.new("RGB", (4, 4)), "TIFF"), "it is none of"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "it is none of"),
        (b"", "it is none of"),
        (saved(Image.effect_noise((64, 64), 50), "JPEG")[:-500], "this image cannot be read: image file is truncated"),
        (saved(Image.effect_noise((64, 64), 50), "PNG")[:-500], "this image cannot be read"),
    ],
)  # fmt: skip
def test_what_is_too_much_or_no_picture_is_refused_at_once(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    start = time.monotonic()
    with pytest.raises(InvalidFileError, match=message) as caught:
        load_image(path)
    assert str(caught.value).startswith(f"{path}: ") and "BytesIO" not in str(caught.value)
    assert time.monotonic() - start < 15
    with pytest.raises(InvalidFileError, match=message):
        decode_image(data, "upload")


def test_the_largest_picture_is_read() -> None:
    assert load_flat(7680, 4320) == (7680, 4320)
    with pytest.raises(InvalidFileError, match="a picture of 8193x4096 pixels"):
        load_flat(8193, 4096)


def load_flat(width: int, height: int) -> tuple[int, int]:
    return decode_image(flat_png(width, height), "a.png").size


def test_a_picture_behind_a_jpeg_is_not_counted() -> None:
    """As cameras append a video to a photo, whose bytes look like scans by chance."""
    assert decode_image(SMALL_JPEG + b"\xff\xda" * 1000, "a.jpg").size == (64, 48)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK", "I;16"])
def test_every_picture_is_as_pillow_gives_it(tmp_path: Path, form: str, mode: str) -> None:
    image = Image.effect_noise((40, 30), 60).convert("L" if mode == "I;16" else mode)
    try:
        data = saved(image.convert("I;16") if mode == "I;16" else image, form)
    except (OSError, KeyError):
        pytest.skip(f"Pillow writes no {form} of mode {mode}")
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    expected = Image.open(io.BytesIO(data))
    found = load_image(path)
    assert (found.mode, found.size) == (expected.mode, expected.size)
    assert np.array_equal(np.asarray(found.convert("RGB")), np.asarray(expected.convert("RGB")))
    assert read_image_size(path) == (30, 40)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_of_an_animation_the_first_picture_counts(form: str) -> None:
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = saved(pictures[0], form, save_all=True, append_images=pictures[1:], lossless=True)
    assert decode_image(data, "a").convert("RGB").getpixel((3, 3)) == (255, 0, 0)


def test_another_size_than_the_one_wanted_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="upload: the image is 64x48, expected 48x64"):
        decode_image(SMALL_JPEG, "upload", size=(64, 48))
    assert decode_image(SMALL_JPEG, "upload", size=(48, 64)).size == (64, 48)


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InvalidFileError, match="expected at most"):
        load_image(path)


def test_label_images_are_read_back_and_others_refused(tmp_path: Path) -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write_label_png(tmp_path / "a.png", labels)
    assert np.array_equal(read_label_png(tmp_path / "a.png"), labels)
    Image.fromarray(labels).convert("RGB").save(tmp_path / "b.png")
    with pytest.raises(InvalidFileError, match=r"b\.png: expected a palette PNG, got one of mode RGB"):
        read_label_png(tmp_path / "b.png")


def test_folders_of_frames_are_bounded_like_single_pictures(tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_bytes(jpeg_of_size(12_000, 12_000))
    with pytest.raises(InvalidFileError, match=rf"0\.jpg: a picture of 12000x12000 pixels, {LARGE}"):
        open_source(tmp_path)
    (tmp_path / "0.jpg").write_bytes(SMALL_JPEG)
    (tmp_path / "1.jpg").write_bytes(jpeg_of_size(12_000, 12_000))
    with open_source(tmp_path) as source:
        assert source.read(0).shape == (48, 64, 3)
        with pytest.raises(InvalidFileError, match=r"1\.jpg: a picture of 12000x12000"):
            source.read(1)


def test_videos_of_larger_frames_are_refused(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mov"
    with av.open(path, "w") as container:
        stream = container.add_stream("png", rate=24)
        stream.width, stream.height, stream.pix_fmt = 12_000, 12_000, "gray"
        packet = av.Packet(flat_png(12_000, 12_000))
        packet.stream, packet.pts, packet.dts = stream, 0, 0
        container.mux(packet)
    assert os.path.getsize(path) < 10**6
    with pytest.raises(InvalidFileError, match=rf"a\.mov: its frames: a picture of 12000x12000 pixels, {LARGE}"):
        VideoFile(path)
