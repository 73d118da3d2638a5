"""Frames from folders, arrays and live streams; what is taken for a video; the window."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from i2v.video.frame_source import natural_key
from i2v.video.sources import FrameArray, FrameSource, ImageFolder, LiveFrames, open_source, window_indices


def picture(value: int, height: int = 6, width: int = 8) -> np.ndarray:
    """A frame that no two values share, and whose rows, columns and channels differ."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0] = value
    frame[..., 1] = np.arange(height)[:, None] * 10
    frame[..., 2] = np.arange(width) * 10
    return frame


def save(path: Path, value: int, **size: int) -> None:
    Image.fromarray(picture(value, **size)).save(path)


def values(source: FrameSource) -> list[int]:
    return [int(source.read(i)[0, 0, 0]) for i in range(source.num_frames or 0)]


# Image folders


def test_names_sort_by_all_their_numbers() -> None:
    names = ["cam10_1.png", "cam2_10.png", "CAM2_9.png", "b.png", "cam2_1.png", "7.png", "0012.png"]
    ordered = ["7.png", "0012.png", "b.png", "cam2_1.png", "CAM2_9.png", "cam2_10.png", "cam10_1.png"]
    assert sorted(names, key=natural_key) == ordered


def test_stems_that_tie_keep_a_fixed_order() -> None:
    for names in itertools.permutations(["1.png", "01.png", "1.jpg"]):
        assert sorted(names, key=natural_key) == ["01.png", "1.jpg", "1.png"]


def test_folder_reads_images_of_any_suffix_case_and_skips_the_rest(tmp_path: Path) -> None:
    for value, name in enumerate(("f2.png", "f10.PNG", "f11.bmp")):
        save(tmp_path / name, value)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._f2.png").write_bytes(b"left by macOS")
    (tmp_path / "f3.png").mkdir()
    source = open_source(tmp_path)
    assert isinstance(source, ImageFolder)
    assert (source.num_frames, source.height, source.width, source.frame_rate) == (3, 6, 8, None)
    assert source.name == str(tmp_path)
    assert values(source) == [0, 1, 2]
    np.testing.assert_array_equal(source.read(1), picture(1))


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".WebP"])
def test_folder_reads_lossy_images(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(np.full((16, 16, 3), (200, 60, 30), np.uint8)).save(tmp_path / f"0{suffix}")
    np.testing.assert_allclose(ImageFolder(tmp_path).read(0)[8, 8], (200, 60, 30), atol=6)


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(picture(5, height=8, width=16)).save(tmp_path / "0.jpg", exif=exif)
    source = ImageFolder(tmp_path)
    assert (source.height, source.width) == (8, 16)
    assert source.read(0).shape == (8, 16, 3)


def test_images_of_every_mode_become_rgb(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    palette.putpalette([9, 8, 7, 200, 100, 50])
    images = {
        "grey16": Image.fromarray(np.array([[0, 256], [32768, 65535]], np.uint16)),
        "grey": Image.fromarray(np.array([[0, 1], [128, 255]], np.uint8)),
        "alpha": Image.fromarray(np.full((2, 2, 4), (10, 20, 30, 0), np.uint8)),
        "palette": palette,
    }
    frames = {}
    for name, image in images.items():
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "0.png")
        frames[name] = ImageFolder(tmp_path / name).read(0)
    expected = np.array([[0, 1], [128, 255]], np.uint8)
    for name in ("grey16", "grey"):
        np.testing.assert_array_equal(frames[name], np.repeat(expected[..., None], 3, axis=2))
    assert (frames["alpha"] == (10, 20, 30)).all()
    np.testing.assert_array_equal(frames["palette"][0], [[9, 8, 7], [200, 100, 50]])


def test_image_of_another_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    save(tmp_path / "0.png", 0)
    save(tmp_path / "1.png", 1, height=7)
    with pytest.raises(ValueError, match=r"1\.png: the image is 8x7, expected 8x6 .*0\.png"):
        ImageFolder(tmp_path).read(1)


def test_broken_images_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2.png").write_bytes(b"")
    source = ImageFolder(tmp_path)
    for index in (1, 2):
        with pytest.raises(ValueError, match=rf"{index}\.png: this image cannot be read"):
            source.read(index)
    (tmp_path / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0\.png: this image cannot be read"):
        ImageFolder(tmp_path)


@pytest.mark.parametrize("index", [-1, 2])
def test_frames_that_are_not_there(tmp_path: Path, index: int) -> None:
    save(tmp_path / "0.png", 0)
    save(tmp_path / "1.png", 1)
    for source in (ImageFolder(tmp_path), FrameArray([picture(0), picture(1)])):
        with pytest.raises(IndexError, match=f"frame {index}"):
            source.read(index)


# Arrays

FRAMES = np.stack([picture(v) for v in (3, 4, 5)])


@pytest.mark.parametrize(
    "frames",
    [
        FRAMES,
        FRAMES.transpose(0, 3, 1, 2),
        torch.from_numpy(FRAMES),
        torch.from_numpy(FRAMES).permute(0, 3, 1, 2),
        (FRAMES / 255).astype(np.float32),
        torch.from_numpy(FRAMES).permute(0, 3, 1, 2).float() / 255,
        (torch.from_numpy(FRAMES).double() / 255).requires_grad_(),
        list(FRAMES),
        tuple(torch.from_numpy(FRAMES).permute(0, 3, 1, 2)),
        [Image.fromarray(frame) for frame in FRAMES],
    ],
    ids=lambda frames: type(frames).__name__,
)
def test_arrays_in_every_layout_give_the_same_frames(frames: object) -> None:
    source = open_source(frames)
    assert isinstance(source, FrameArray)
    assert (source.num_frames, source.height, source.width, source.name) == (3, 6, 8, "array")
    for index in range(3):
        frame = source.read(index)
        assert frame.dtype == np.uint8
        np.testing.assert_array_equal(frame, FRAMES[index])


def test_colours_last_wins_where_both_layouts_fit() -> None:
    frames = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    np.testing.assert_array_equal(FrameArray(frames).read(1), frames[1])


def test_floats_are_rounded_not_cut() -> None:
    frames = np.full((1, 2, 2, 3), 0.999, np.float16)
    assert (FrameArray(frames).read(0) == 255).all()


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (np.zeros((0, 4, 4, 3), np.uint8), ValueError, "no frames"),
        ([], ValueError, "no frames"),
        (np.zeros((2, 0, 4, 3), np.uint8), ValueError, "empty picture"),
        (np.zeros((4, 4, 3), np.uint8), ValueError, r"expected shape \(T,H,W,3\) .*, got \(4, 4, 3\)"),
        (np.zeros((2, 4, 4, 4), np.uint8), ValueError, r"expected shape \(H,W,3\) .*, got \(4, 4, 4\)"),
        (np.zeros((2, 4, 4, 3), np.int64), TypeError, "expected uint8 .*, got int64"),
        (np.full((2, 4, 4, 3), 200.0), ValueError, r"expected floats in \[0,1\], got values from 200 to 200"),
        (np.full((2, 4, 4, 3), np.nan), ValueError, r"expected floats in \[0,1\]"),
        ([picture(0), picture(1, height=7)], ValueError, "frame 1: the picture is 8x7, expected 8x6"),
        ([picture(0), "1.png"], TypeError, "frame 1: expected an array, .*, got str"),
    ],
)
def test_arrays_that_are_no_video(frames: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_source(frames)


def test_float_frame_out_of_range_is_named() -> None:
    frames = np.zeros((3, 2, 2, 3), np.float32)
    frames[2] = -0.5
    with pytest.raises(ValueError, match=r"frame 2: expected floats in .*, got values from -0\.5"):
        FrameArray(frames).read(2)


# Live frames


class Camera:
    """An iterator that counts what was taken from it."""

    def __init__(self, count: int) -> None:
        self.pulled = 0
        self.count = count

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        if self.pulled == self.count:
            raise StopIteration
        self.pulled += 1
        return picture(self.pulled - 1)


def test_live_frames_are_pulled_only_when_read() -> None:
    camera = Camera(4)
    source = open_source(camera)
    assert isinstance(source, LiveFrames)
    assert camera.pulled == 0
    assert (source.height, source.width, source.name) == (6, 8, "live")
    assert camera.pulled == 1
    assert source.read(2)[0, 0, 0] == 2
    assert camera.pulled == 3
    assert source.read(1)[0, 0, 0] == 1
    assert (camera.pulled, source.num_frames, source.finished) == (3, None, False)


def test_live_frames_know_their_number_after_the_end() -> None:
    source = LiveFrames(Camera(2))
    with pytest.raises(IndexError, match="frame 2 is beyond the end: there are 2 frames"):
        source.read(2)
    assert (source.num_frames, source.finished) == (2, True)
    assert source.read(1)[0, 0, 0] == 1


def test_live_frames_keep_the_latest() -> None:
    source = LiveFrames(Camera(9), keep=3)
    assert source.read(6)[0, 0, 0] == 6
    assert [int(source.read(i)[0, 0, 0]) for i in (4, 5, 6)] == [4, 5, 6]
    with pytest.raises(IndexError, match="frame 3 is no longer kept: the oldest one is 4"):
        source.read(3)


def test_live_frames_can_be_appended() -> None:
    source = LiveFrames(keep=2, frame_rate=30)
    with pytest.raises(RuntimeError, match="no frame has arrived"):
        _ = source.height
    buffer = picture(1)
    source.append(buffer)
    buffer[:] = 0  # the camera uses it again
    source.append(Image.fromarray(picture(2)))
    assert (source.height, source.frame_rate, source.num_frames) == (6, 30, None)
    assert [int(source.read(i)[0, 0, 0]) for i in (0, 1)] == [1, 2]
    with pytest.raises(IndexError, match="frame 2 has not arrived: 2 frames so far"):
        source.read(2)
    with pytest.raises(ValueError, match="frame 2: the picture is 8x9, expected 8x6"):
        source.append(picture(3, height=9))
    source.finish()
    assert source.num_frames == 2
    with pytest.raises(RuntimeError, match="frame 2 came after the end"):
        source.append(picture(3))


def test_live_errors_reach_the_reader() -> None:
    def camera() -> Iterator[np.ndarray]:
        yield picture(0)
        raise OSError("unplugged")

    source = LiveFrames(camera())
    assert source.read(0)[0, 0, 0] == 0
    with pytest.raises(OSError, match="unplugged"):
        source.read(1)
    with pytest.raises(ValueError, match="keep: expected at least 1 frame, got 0"):
        LiveFrames(keep=0)


# What is taken for a video


def test_sources_are_returned_as_they_are() -> None:
    source = FrameArray(FRAMES)
    assert open_source(source) is source
    with source as opened:
        assert opened is source


def test_paths_that_are_no_video(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        open_source(tmp_path / "gone.mp4")
    with pytest.raises(ValueError, match="no images in this folder"):
        open_source(os.fspath(tmp_path))
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="no images in this folder"):
        open_source(tmp_path)


def audio() -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream: Any = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def image() -> bytes:
    target = io.BytesIO()
    Image.fromarray(picture(0)).save(target, format="PNG")
    return target.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.mp4", b"", "the file is empty"),
        ("noise.mp4", b"hello\n" * 99, "this is no video that can be read"),
        ("zeros.mp4", b"\0\0\0\x14ftypisom" + bytes(5000), "this is no video that can be read"),
        ("image.png", image(), "this is no video: FFmpeg reads it as png_pipe"),
        ("sound.m4a", audio(), "there is no video in this file, only audio"),
    ],
)
def test_files_that_are_no_video(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        open_source(path)
    assert str(caught.value).startswith(str(path))
    with pytest.raises(ValueError, match=f"^bytes: {message}"):
        open_source(content)


def test_text_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello\n" * 99)
    with pytest.raises(ValueError, match="this is no video: FFmpeg reads it as tty"):
        open_source(path)


@pytest.mark.parametrize("video", [None, 7, {"frames": FRAMES}, object()])
def test_things_that_are_no_video(video: object) -> None:
    with pytest.raises(TypeError, match=f"expected a path, .*, got {type(video).__name__}"):
        open_source(video)


# The window


@pytest.mark.parametrize(
    ("frame", "window"),
    [
        (0, [0, 0, 0, 0, 0]),
        (1, [0, 1, 1, 1, 1]),
        (2, [0, 1, 2, 2, 2]),
        (3, [0, 1, 2, 3, 3]),
        (4, [0, 1, 2, 3, 4]),
        (9, [5, 6, 7, 8, 9]),
    ],
)
def test_window_ends_with_copies_of_the_frame(frame: int, window: list[int]) -> None:
    assert window_indices(frame) == window


def test_window_of_other_lengths() -> None:
    assert window_indices(1, 3) == [0, 1, 1]
    assert window_indices(5, 1) == [5]
    with pytest.raises(IndexError, match="frame -1"):
        window_indices(-1)
    with pytest.raises(ValueError, match="length: expected at least 1, got 0"):
        window_indices(3, 0)
