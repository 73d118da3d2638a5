"""Colours, overlay pictures, the overlay video and the contact sheet."""

from __future__ import annotations

import logging
import signal
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from export_support import (
    Array,
    decode,
)
from PIL import Image

from i2v.results.overlay import PALETTE, ContactSheet, UserPrompt, VideoWriter, blend_overlay, spread_frames


def plain(value: int, height: int = 48, width: int = 64) -> Array:
    return np.full((height, width, 3), value, np.uint8)


def square(value: int, top: int = 8, left: int = 16, side: int = 16) -> Array:
    labels = np.zeros((48, 64), np.uint8)
    labels[top : top + side, left : left + side] = value
    return labels


def test_palette_has_distinct_colours_and_starts_with_colour_blind_safe_ones() -> None:
    assert PALETTE.shape == (256, 3)
    assert len({tuple(colour) for colour in PALETTE.tolist()}) == 256
    assert PALETTE[0].tolist() == [0, 0, 0]
    okabe_ito = {"e69f00", "56b4e9", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7"}
    assert {bytes(colour).hex() for colour in PALETTE[1:8]} == okabe_ito


def test_overlay_blends_inside_draws_an_outline_and_leaves_the_rest() -> None:
    picture = plain(100)
    labels = square(2)
    labels[:, 60:] = 5
    painted = blend_overlay(picture, labels, opacity=0.5)
    sky_blue, half = PALETTE[2], (PALETTE[2].astype(float) + 100) / 2
    np.testing.assert_allclose(painted[12:20, 20:28], np.broadcast_to(half, (8, 8, 3)), atol=0.5)
    for row, column in ((8, 16), (23, 31), (8, 24), (15, 16)):
        np.testing.assert_array_equal(painted[row, column], sky_blue)
    np.testing.assert_array_equal(painted[labels == 0], picture[labels == 0])
    # Where an object leaves the frame there is no outline, towards the background there is.
    np.testing.assert_allclose(painted[0, 63], (PALETTE[5].astype(float) + 100) / 2, atol=0.5)
    np.testing.assert_array_equal(painted[20, 60], PALETTE[5])
    assert (picture == 100).all()
    with pytest.raises(ValueError, match="64x48 pixels like the frame, got 48x64"):
        blend_overlay(picture, labels.T)


def test_outlines_are_as_thick_on_large_pictures_as_they_look_on_small_ones() -> None:
    labels = np.zeros((720, 960), np.uint8)
    labels[100:300, 200:500] = 1
    painted = blend_overlay(np.zeros((720, 960, 3), np.uint8), labels)
    opaque = (painted[200] == PALETTE[1]).all(axis=1)
    assert np.flatnonzero(opaque).tolist() == [200, 201, 202, 497, 498, 499]


def test_video_keeps_colours_geometry_and_frame_rate(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, frame_rate=30000 / 1001) as writer:
        for value in (0, 60, 120, 180, 240):
            picture = plain(value)
            picture[12:36, 16:48] = PALETTE[1]
            writer.write(picture)
            assert not path.exists()
    frames = decode(path)
    assert len(frames) == 5
    for frame, value in zip(frames, (0, 60, 120, 180, 240), strict=True):
        np.testing.assert_allclose(frame[16:32, 20:44].mean((0, 1)), PALETTE[1], atol=4)
        np.testing.assert_allclose(frame[:8].mean((0, 1)), value, atol=3)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.average_rate, stream.codec_context.colorspace) == (Fraction(30000, 1001), 1)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # a browser starts before it has all
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_odd_sizes_are_padded_by_one_pixel(tmp_path: Path) -> None:
    picture = plain(40, 33, 47)
    picture[:, 40:] = 220
    with VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(picture)
    (frame,) = decode(tmp_path / "a.mp4")
    assert frame.shape == (34, 48, 3)
    np.testing.assert_allclose(frame[:, 47], 220, atol=8)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == 24


class InterruptedStream:
    """A video stream during whose encoding of frame 30 Ctrl-C is pressed."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def encode(self, image: av.VideoFrame | None) -> Any:
        packets = self.stream.encode(image)
        if image is not None and image.pts == 30:
            signal.raise_signal(signal.SIGINT)
        return packets


def test_an_interrupt_while_encoding_loses_no_frame(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4") as writer:
        for value in range(100):
            writer.write(plain(value))
            if value == 0:
                stream: Any = InterruptedStream(writer._stream)
                writer._stream = stream
    frames = decode(tmp_path / "a.mp4")
    assert writer.num_frames == 31
    assert [float(frame.mean()) for frame in frames] == pytest.approx(range(31), abs=2)


def test_without_x264_the_video_is_mpeg4_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    with caplog.at_level(logging.WARNING), VideoWriter(tmp_path / "a.mp4", frame_rate=119.876) as writer:
        for _ in range(3):
            writer.write(plain(90))
    assert "no libx264" in caplog.text
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    frames = decode(tmp_path / "a.mp4")
    assert len(frames) == 3
    np.testing.assert_allclose(frames[2], 90, atol=4)


def test_video_refuses_other_sizes_and_rates(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(plain(1))
        with pytest.raises(ValueError, match=r"a\.mp4: frame 1 has shape \(10, 10, 3\)"):
            writer.write(plain(1, 10, 10))
    assert len(decode(tmp_path / "a.mp4")) == 1
    for rate in (0.0, -5.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a frame rate above 0"):
            VideoWriter(tmp_path / "b.mp4", frame_rate=rate)


def test_frames_are_spread_evenly_and_kept_ones_are_among_them() -> None:
    assert spread_frames(range(5)) == [0, 1, 2, 3, 4]
    assert spread_frames(range(10, 111), count=5) == [10, 35, 60, 85, 110]
    assert spread_frames(range(101), count=5, keep=[0, 52, 400]) == [0, 25, 52, 75, 100]
    assert spread_frames(range(101), count=3, keep=[5, 6, 7, 8]) == [5, 6, 7]


@pytest.mark.parametrize(("height", "width", "columns"), [(90, 160, 4), (160, 90, 6), (40, 400, 2)])
def test_contact_sheet_suits_the_shape_of_the_video(tmp_path: Path, height: int, width: int, columns: int) -> None:
    sheet = ContactSheet(range(0, 36, 3), (), {})
    for frame in range(36):
        sheet.add(frame, plain(5 * frame, height, width))
    sheet.save(tmp_path / "sheet.png")
    page = np.asarray(Image.open(tmp_path / "sheet.png"))
    scale = 320 / max(height, width)
    cell_width, cell_height = round(width * scale) + 6, round(height * scale) + 26
    assert page.shape == (12 // columns * cell_height + 6, columns * cell_width + 6, 3)
    for cell in range(12):
        row, column = divmod(cell, columns)
        top, left = row * cell_height + 6, column * cell_width + 6
        middle = page[top + 20 + cell_height // 3, left + cell_width // 2]
        assert middle.tolist() == [15 * cell] * 3
        assert page[top : top + 20, left : left + 60].max() > 200  # its number


def test_contact_sheet_shows_prompts_on_their_frame_alone(tmp_path: Path) -> None:
    clicks = ((40.0, 30.0, 1), (120.0, 60.0, 0))
    prompt = UserPrompt(obj_id=8, frame=1, clicks=clicks, box=(20.0, 10.0, 60.0, 70.0))
    sheet = ContactSheet([0, 1], [prompt], {8: 3})
    for frame in range(2):
        sheet.add(frame, plain(50, 90, 160))
    sheet.save(tmp_path / "sheet.png")
    page = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    first, second = page[26:206, 6:326], page[26:206, 332:652]
    assert (first == 50).all()
    yellow, white = PALETTE[3].tolist(), [255, 255, 255]
    # Shown at twice the size: the object click is a yellow disc with a white plus, the other a white disc.
    assert second[61 - 5, 81 + 4].tolist() == yellow
    assert second[61, 81].tolist() == white
    assert second[61 - 3, 81].tolist() == white
    assert second[121 - 5, 241].tolist() == white
    assert second[121, 241].tolist() == [0, 0, 0]
    assert second[20, 60].tolist() == yellow
    assert second[100, 40].tolist() == yellow
    assert second[170, 300].tolist() == [50, 50, 50]


def test_a_very_narrow_picture_leaves_room_for_its_number(tmp_path: Path) -> None:
    sheet = ContactSheet([0], (), {})
    sheet.add(0, plain(80, 400, 20))
    sheet.save(tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == (130 + 12, 320 + 32)


def test_frames_that_the_encoder_does_not_take_are_told(tmp_path: Path) -> None:
    message = r"v\.mp4: the encoder takes no frames of 20000x16 pixels"
    with pytest.raises(ValueError, match=message), VideoWriter(tmp_path / "v.mp4") as video:
        video.write(np.zeros((16, 20_000, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_large_frames_are_encoded_without_looking_ahead(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4") as video:
        for level in (0, 128, 255):
            video.write(np.full((2400, 4096, 3), level, np.uint8))
    with av.open(tmp_path / "v.mp4") as container:
        levels = [float(frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0)]
        assert container.streams.video[0].codec_context.has_b_frames == 0
    assert levels == sorted(levels) and len(levels) == 3
