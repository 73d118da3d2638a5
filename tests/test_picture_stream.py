"""Pictures one after another in one file, as `cat *.jpg` writes them: every one is a frame, or there is a sentence."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import render_video

from i2v.errors import InvalidFileError
from i2v.video.sources import PictureStream, VideoFile, open_source

VIDEO = render_video(5)


def encoded(form: str, pictures: Any = VIDEO, **options: Any) -> list[bytes]:
    files = []
    for pixels in pictures:
        target = io.BytesIO()
        Image.fromarray(pixels).save(target, form, **options)
        files.append(target.getvalue())
    return files


def with_thumbnail(picture: bytes) -> bytes:
    """A JPEG with another one in its EXIF data, as cameras write it."""
    (small,) = encoded("JPEG", [VIDEO[0][::4, ::4]])
    content = b"Exif\0\0" + small
    return picture[:2] + b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content + picture[2:]


@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"restart_marker_blocks": 2})],
)
def test_every_picture_is_a_frame(tmp_path: Path, form: str, options: dict[str, Any]) -> None:
    files = encoded(form, **options)
    if form == "JPEG":
        files[1] += b"\0\0"  # padding
        files[2] += b"\xff\xff\xff"
        files = list(map(with_thumbnail, files))
    path = tmp_path / "all.mjpeg"
    path.write_bytes(b"".join(files))
    for given in (path, b"".join(files), io.BytesIO(b"".join(files))):
        with open_source(given) as source:
            assert isinstance(source, PictureStream)
            assert (source.num_frames, source.width, source.height) == (5, 64, 48)
            for index in (4, 0, 2, 3, 1):
                own = np.asarray(Image.open(io.BytesIO(files[index])).convert("RGB"))
                np.testing.assert_array_equal(source.read(index), own)
            assert pickle.loads(pickle.dumps(source)).read(3).shape == (48, 64, 3)


def test_kinds_can_be_mixed() -> None:
    files = [*encoded("JPEG", VIDEO[:2]), *encoded("PNG", VIDEO[2:])]
    assert PictureStream(b"".join(files)).num_frames == 5


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_cut_streams_name_the_picture(form: str) -> None:
    files = encoded(form)
    source = open_source(b"".join(files)[: -len(files[-1]) // 2])
    assert source.num_frames == 5
    assert source.read(3).shape == (48, 64, 3)
    with pytest.raises(InvalidFileError, match="bytes: picture 4: this image cannot be read"):
        source.read(4)
    middle = PictureStream(b"".join([*files[:2], files[2][: len(files[2]) // 2], *files[3:]]))
    with pytest.raises(InvalidFileError, match="bytes: picture 2"):
        list(map(middle.read, range(middle.num_frames)))


def test_what_is_no_stream_of_frames() -> None:
    jpegs = encoded("JPEG")
    with pytest.raises(InvalidFileError, match=f"expected a JPEG or PNG picture after .* byte {2 * len(jpegs[0]):,}"):
        open_source(jpegs[0] * 2 + b"something else")
    other = encoded("JPEG", [VIDEO[0][:, :32]])
    with pytest.raises(InvalidFileError, match="picture 1: the image is 32x48, expected 64x48 like the first"):
        open_source(jpegs[0] + other[0]).read(1)
    several = io.BytesIO()
    small = Image.fromarray(VIDEO[0][::2, ::2])
    Image.fromarray(VIDEO[0]).save(several, "MPO", save_all=True, append_images=[small])
    with pytest.raises(InvalidFileError, match=r"picture 0: this JPEG holds further pictures, .* \(MPO\)"):
        open_source(several.getvalue())
    for single in (jpegs[0], *encoded("PNG", VIDEO[:1])):
        with pytest.raises(ValueError, match="this is no video"):
            open_source(single)
    for empty in (b"", b"no picture"):
        with pytest.raises(ValueError, match="bytes"):
            PictureStream(empty)


def test_what_ffmpeg_recognizes_is_still_a_video_file(tmp_path: Path) -> None:
    from test_video_file import Clip

    assert isinstance(open_source(Clip(4).encoded()), VideoFile)
