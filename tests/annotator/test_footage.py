"""The video as the page sees it."""

from __future__ import annotations

import contextlib
import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support import render_video

from i2v.annotator import footage as module
from i2v.annotator.footage import VideoFootage

PICTURES = render_video(12, 96, 128)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(24))
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        for picture in PICTURES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_frames_of_a_file_come_in_any_order(video: Path) -> None:
    footage = VideoFootage(video)
    assert (footage.name, footage.num_available, footage.frame_rate, footage.live) == ("video.mp4", 12, 24, False)
    for frame in (7, 2, 11, 0):
        with Image.open(io.BytesIO(footage.jpeg(frame))) as image:
            assert np.abs(np.asarray(image).astype(int) - PICTURES[frame]).mean() < 8
    with pytest.raises(IndexError):
        footage.jpeg(12)
    footage.close()


def test_a_bounded_number_of_pictures_is_kept(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(VideoFootage(video)) as other:
        sizes = [len(other.jpeg(frame)) for frame in range(12)]
    monkeypatch.setattr(module, "CACHE_BYTES", sum(sizes) // 2)
    footage = VideoFootage(video)
    for frame in (*range(12), 11, 10):
        footage.jpeg(frame)
    assert 0 < footage._num_bytes <= sum(sizes) // 2
    assert footage._num_bytes == sum(map(len, footage._kept.values()))
    # Those shown last.
    assert list(footage._kept)[-2:] == [11, 10]
    assert 0 not in footage._kept
    footage.close()
