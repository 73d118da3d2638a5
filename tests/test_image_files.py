"""Videos that are pictures: folders with more than the frames in them, patterns, lists, formats, animations."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from i2v.errors import InvalidFileError
from i2v.utils.image_file import MAX_BYTES
from i2v.video.sources import AnimatedImage, FrameSource, ImageFiles, VideoFile, open_source


def picture(value: int) -> Image.Image:
    pixels = np.full((24, 32, 3), (value, 40, 200), np.uint8)
    pixels[:, 16:] //= 2
    return Image.fromarray(pixels)


def save(folder: Path, *names: str) -> Path:
    """Pictures whose red tells their place among the names: 0, 10, 20, ..."""
    folder.mkdir(exist_ok=True, parents=True)
    for place, name in enumerate(names):
        picture(10 * place).save(folder / name)
    return folder


def reds(source: FrameSource) -> list[int]:
    return [int(source.read(i)[3, 3, 0]) for i in range(source.num_frames or 0)]


# One clear sequence


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["00000.jpg", "00000.png", "00001.jpg", "00001.png"], "00000.jpg and 00000.png have the same name"),
        (["00000.jpg", "00001.jpg", "00001.PNG"], "00001.PNG and 00001.jpg have the same name"),
        (["a.webp", "b.bmp", "B.png"], "B.png and b.bmp have the same name"),
        (["0001.jpg", "1.png"], "0001.jpg and 1.png have the same number"),
        (["1.png", "01.png", "2.png"], "01.png and 1.png have the same number"),
        (["0.jpg", "1.jpg", "mask_0.png", "mask_1.png"], "several kinds and names, such as 0.jpg and mask_0.png"),
        (["0.jpg", "1.jpg", "cover.png"], "several kinds and names, such as 0.jpg and cover.png"),
        (["0.png", "0_mask.png", "1.png", "1_mask.png"], "0.png and 0_mask.png both count as frame 0"),
        (["left1.png", "left2.png", "right1.png", "right2.png"], "left1.png and right1.png both count as frame 1"),
        # one picture that is no frame
        (["00000.png", "00000_mask.png", "00001.png"], "the name of 00000_mask.png extends that of 00000.png"),
        (["img_000.jpg", "img_000_gt.jpg", "img_001.jpg"], "the name of img_000_gt.jpg extends that of img_000.jpg"),
        (["0.png", "1.png", "overlay_1.png"], "the name of overlay_1.png extends that of 1.png"),
        (["cat.png", "cat copy.png"], "the name of cat copy.png extends that of cat.png"),
        (["00000.png", "mask.png"], "mask.png seems to be no frame"),
        (["a.png", "b.png", "GT-b2.png"], "GT-b2.png seems to be no frame"),
        (["shot.png", "shotMask.png"], "shotMask.png seems to be no frame"),
        (["f0.jpg", "f1.jpg", "f2.jpg", "cover.jpg"], "cover.jpg is not named like the others, such as f0.jpg"),
        (["f0.jpg", "f1.jpg", "f2.jpg", "last day 7.jpg"], "last day 7.jpg is not named like the others"),
        (["f0.jpg", "f1.jpg", "f2.jpg", "alpha1.jpg"], "alpha1.jpg is not named like the others"),
    ],
)
def test_a_folder_of_more_than_the_frames_is_an_error(tmp_path: Path, names: list[str], message: str) -> None:
    save(tmp_path / "clip", *names)
    with pytest.raises(ValueError, match="expected the frames of one video") as caught:
        open_source(tmp_path / "clip")
    assert str(caught.value).startswith(f"{tmp_path / 'clip'}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ["f2.jpg", "f3.JPEG", "f10.png", "f11.bmp"],
        ["00000.jpg", "00001.jpeg", "00002.JPG"],
        ["a.png", "b.png", "thumb.png"],
        ["cam1_0001.png", "cam1_0002.png", "cam2_0003.png", "cam2_0004.png"],
        ["2024-08-01T12:30:05.jpg", "2024-08-01T12:30:06.jpg"],
        ["IMG_2031.jpg", "IMG_2034.jpg", "IMG_2040.jpg"],
        ["DSC_0001.jpg", "IMG_2031.jpg", "IMG_2034.jpg"],
        ["0.5.png", "1.png", "1.5.png", "2.png"],
        ["2024-08-01 1.00 PM.png", "2024-08-01 9.59 AM.png", "2024-08-01 10.00 AM.png"],
        ["mask_0.png", "mask_1.png"],
        ["5f3c.png", "9a0e.png", "beef.png", "c0de.png"],
        ["frame (1).png", "frame (2).png"],
    ],
)
def test_a_folder_with_one_clear_sequence_is_read(tmp_path: Path, names: list[str]) -> None:
    source = open_source(save(tmp_path / "clip", *names))
    np.testing.assert_allclose(reds(source), np.arange(len(names)) * 10, atol=3)
    assert [source.frame_name(i) for i in range(len(names))] == names


def test_training_reads_no_masks_for_frames(tmp_path: Path) -> None:
    from train.dataset.frame_reader import open_frames

    with pytest.raises(ValueError, match=r"00000\.jpg and 00000\.png have the same name"):
        open_frames(save(tmp_path, "00000.jpg", "00000.png"))


def test_a_mask_among_pictures_in_colour_is_an_error(tmp_path: Path) -> None:
    labels = np.zeros((24, 32), np.uint8)
    labels[4:9, 5:11] = 1
    save(tmp_path, "0.png", "1.png", "2.png", "4.png", "5.png", "6.png")
    for mode in ("P", "L", "1"):
        for place in (0, 3, 6):
            save(tmp_path, *(f"{number}.png" for number in range(7)))
            Image.fromarray(labels * 255).convert(mode).save(tmp_path / f"{place}.png")
            with pytest.raises(
                InvalidFileError, match=rf"{place}\.png: this looks like a mask among pictures in colour"
            ):
                reds(open_source(tmp_path))


def test_grey_and_black_frames_among_coloured_ones_are_frames(tmp_path: Path) -> None:
    save(tmp_path, "0.png", "1.png")
    Image.new("L", (32, 24)).save(tmp_path / "2.png")
    Image.fromarray(np.arange(24 * 32, dtype=np.uint8).reshape(24, 32)).save(tmp_path / "3.png")
    assert reds(open_source(tmp_path)) == [0, 10, 0, 99]
    masks = [Image.fromarray(np.eye(24, 32, k=k, dtype=np.uint8) * 255) for k in range(3)]
    (tmp_path / "masks").mkdir()
    for number, mask in enumerate(masks):
        mask.save(tmp_path / "masks" / f"{number}.png")
    assert reds(open_source(tmp_path / "masks")) == [255, 0, 0]


# Patterns and lists


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("clip/*.jpg", [0, 20, 40]),
        ("clip/0000[01].jpg", [0, 20]),
        ("clip/0000?.png", [10, 30]),
        ("clip/%05d.jpg", [0, 20, 40]),
        ("clip/%d.png", [10, 30]),
        ("**/*.jpg", [0, 20, 40]),
        ("clip[1]/*.png", [0, 10]),
    ],
)
def test_patterns_choose_the_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, expected: list[int]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("clip"), "00000.jpg", "00000.png", "00001.jpg", "00001.png", "00010.jpg")
    save(Path("clip[1]"), "0.png", "1.png")
    source = open_source(pattern)
    assert isinstance(source, ImageFiles)
    assert source.name == pattern
    np.testing.assert_allclose(reds(source), expected, atol=3)


def test_patterns_without_frames(tmp_path: Path) -> None:
    save(tmp_path, "0.jpg", "0.png")
    (tmp_path / "notes.md").write_text("no picture")
    for pattern, error, message in (
        ("*.bmp", FileNotFoundError, "no file matches"),
        ("%03d.jpg", FileNotFoundError, "no file matches"),
        ("gone/*.jpg", FileNotFoundError, "no file matches"),
        ("0.*", ValueError, r"0\.jpg and 0\.png have the same name"),
        ("*.md", ValueError, r"notes\.md is no picture"),
        ("%d_%d.jpg", ValueError, "expected one number"),
    ):
        with pytest.raises(error, match=message):
            open_source(tmp_path / pattern)


@pytest.mark.parametrize("suffix", [".txt", ".ffconcat", ".lst"])
@pytest.mark.parametrize("line", ["{}", "file '{}'", "file {}"])
def test_a_list_names_the_frames_in_its_order(tmp_path: Path, suffix: str, line: str) -> None:
    save(tmp_path / "some frames", "a.png", "b.png")
    save(tmp_path / "other", "a.jpg")
    names = ["some frames/b.png", "other/a.jpg", str(tmp_path / "some frames" / "a.png")]
    text = "\ufeff# frames\r\n\n" + "\r\n".join(line.format(name) for name in names)
    (tmp_path / f"frames{suffix}").write_text(text, encoding="utf-8")
    source = open_source(tmp_path / f"frames{suffix}")
    np.testing.assert_allclose(reds(source), [10, 0, 0], atol=3)
    assert [source.frame_name(i) for i in range(3)] == ["b.png", "a.jpg", "a.png"]


def test_a_list_of_what_is_not_there(tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    (tmp_path / "frames.txt").write_text("a.png\n\ngone.png\n")
    with pytest.raises(InvalidFileError, match=r"frames\.txt: line 3: .*got 'gone\.png'"):
        open_source(tmp_path / "frames.txt")


# Formats


@pytest.mark.parametrize("name", ["0.tif", "0.TIFF", "0.jfif", "0.jpe", "0.jp2", "0.j2k", "0.avif", "0.ppm", "0.pnm"])
def test_frames_in_formats_that_pillow_decodes(tmp_path: Path, name: str) -> None:
    if name.endswith("avif"):
        pytest.importorskip("PIL.AvifImagePlugin")
    save(tmp_path / "clip", name)
    frame = open_source(tmp_path / "clip").read(0)
    np.testing.assert_allclose(frame, np.asarray(picture(0)), atol=40)
    from train.dataset.frame_reader import open_frames

    np.testing.assert_array_equal(open_frames(tmp_path / "clip").read(0, 24).permute(1, 2, 0), frame)


def test_grey_of_many_depths(tmp_path: Path) -> None:
    steps = np.array([[0.0, 0.25, 1.0]] * 2)
    for name, values in (
        ("0.pgm", np.rint(steps * 255).astype(np.uint8)),
        ("1.tif", np.rint(steps * 65535).astype(np.uint16)),
        ("2.tif", steps.astype(np.float32)),
    ):
        Image.fromarray(values).save(tmp_path / name)
    source = open_source(tmp_path / "[012].*")
    for frame in range(3):
        np.testing.assert_array_equal(source.read(frame)[0, :, 1], [0, 64, 255])
    Image.fromarray(steps.astype(np.float32) * 9).save(tmp_path / "3.tif")
    with pytest.raises(InvalidFileError, match=r"3\.tif.*values from 0 to 9"):
        open_source(tmp_path / "[0123].*").read(3)


# Animations

ANIMATIONS: dict[str, dict[str, Any]] = {
    "a.webp": {"lossless": True, "duration": [100, 200, 100, 50]},
    "a.png": {"duration": 40},
    "a.tif": {},
    "a.avif": {"quality": 95, "duration": 100},
}


def animation(name: str, count: int = 4) -> bytes:
    if name.endswith("avif"):
        pytest.importorskip("PIL.AvifImagePlugin")
    first, *others = [picture(30 * i) for i in range(count)]
    target = io.BytesIO()
    Image.init()
    first.save(target, Image.EXTENSION[name[1:]], save_all=True, append_images=others, **ANIMATIONS[name])
    return target.getvalue()


@pytest.mark.parametrize("name", ANIMATIONS)
def test_animations_are_videos(tmp_path: Path, name: str) -> None:
    data = animation(name)
    (tmp_path / name).write_bytes(data)
    for given in (tmp_path / name, data):
        with open_source(given) as source:
            assert isinstance(source, AnimatedImage)
            assert (source.num_frames, source.height, source.width) == (4, 24, 32)
            for frame in (3, 0, 2, 1, 3):
                np.testing.assert_allclose(source.read(frame), np.asarray(picture(30 * frame)), atol=40)
            with pytest.raises(IndexError, match="frame 4"):
                source.read(4)


def test_animations_know_their_times() -> None:
    source = AnimatedImage(animation("a.webp"))
    assert [source.frame_time(i) for i in range(4)] == pytest.approx([0, 0.1, 0.3, 0.4])
    assert source.frame_rate == pytest.approx(3 / 0.4)
    assert AnimatedImage(animation("a.png")).frame_time(3) == pytest.approx(0.12)
    assert AnimatedImage(animation("a.tif")).frame_time(3) is None


def test_animations_that_build_on_the_frame_before(tmp_path: Path) -> None:
    frames = [np.zeros((24, 32, 3), np.uint8) for _ in range(6)]
    for place, frame in enumerate(frames):
        frame[4 * place : 4 * place + 4, 5:9] = (200, 30 * place, 0)
    first, *others = map(Image.fromarray, frames)
    for name in ("a.png", "a.webp"):
        first.save(tmp_path / name, save_all=True, append_images=others, lossless=True, duration=50)
        source = open_source(tmp_path / name)
        for place in (5, 2, 4, 0):
            np.testing.assert_array_equal(source.read(place), frames[place])


def test_a_still_picture_is_no_video(tmp_path: Path) -> None:
    for name in ("a.png", "a.webp", "a.tif"):
        picture(0).save(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name}: this is no video"):
            open_source(tmp_path / name)


def test_a_cut_animation_is_named_with_its_frame(tmp_path: Path) -> None:
    data = animation("a.png", 6)
    (tmp_path / "a.png").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ValueError, match=r"a\.png"):
        reds(open_source(tmp_path / "a.png"))


# Open files


def test_open_files_are_read_like_their_paths(tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(animation("a.webp"))
    with open(tmp_path / "a.webp", "rb") as file:
        assert open_source(file).name == str(tmp_path / "a.webp")
    assert open_source(io.BytesIO(animation("a.webp"))).num_frames == 4
    with open(tmp_path / "a.webp", "rb") as whole:
        assert len(whole.read()) < MAX_BYTES
        with pytest.raises(ValueError, match="bytes: the file is empty"):
            open_source(whole)
    with pytest.raises(TypeError, match="a file that gives str, expected one that is open in binary mode"):
        open_source(io.StringIO("text"))


def test_names_of_bytes_are_paths(tmp_path: Path) -> None:
    class BytesPath:
        def __fspath__(self) -> bytes:
            return os.fsencode(save(tmp_path / "clip", "0.png", "1.png"))

    assert open_source(BytesPath()).num_frames == 2
    with pytest.raises(FileNotFoundError):
        VideoFile(tmp_path / "gone.mp4")


# GIF


def gif(path: Path, durations: list[int], **options: Any) -> list[np.ndarray]:
    frames = [np.asarray(picture(20 * place)) for place in range(len(durations))]
    first, *others = map(Image.fromarray, frames)
    first.save(path, save_all=True, append_images=others, duration=durations, **options)
    return frames


@pytest.mark.parametrize(
    ("durations", "times"),
    [
        ([0] * 6, [0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        ([40, 0, 40, 0, 0, 40], [0, 0.04, 0.14, 0.18, 0.28, 0.38]),
        ([40] * 6, [0, 0.04, 0.08, 0.12, 0.16, 0.2]),
        ([40, 40, 40, 40, 40, 0], [0, 0.04, 0.08, 0.12, 0.16, 0.2]),
    ],
)
def test_every_frame_of_a_gif_comes(tmp_path: Path, durations: list[int], times: list[float]) -> None:
    frames = gif(tmp_path / "a.gif", durations)
    for given in (tmp_path / "a.gif", (tmp_path / "a.gif").read_bytes()):
        with open_source(given) as source:
            assert source.num_frames == 6
            assert [source.frame_time(i) for i in range(6)] == pytest.approx(times)
            for place in (5, 0, 3, 1, 2, 4):
                np.testing.assert_allclose(source.read(place), frames[place], atol=8)
            assert isinstance(source, AnimatedImage if 0 in durations[:-1] else VideoFile)


@pytest.mark.parametrize("disposal", [0, 1, 2])
@pytest.mark.parametrize("alpha", [0, 255])
def test_gifs_look_alike_with_and_without_delays(tmp_path: Path, disposal: int, alpha: int) -> None:
    frames = []
    for place in range(5):
        pixels = np.full((48, 64, 4), (60, 60, 60, alpha), np.uint8)
        pixels[10:20, 5 + 3 * place : 20 + 3 * place] = (200, 30 * place, 10, 255)
        frames.append(Image.fromarray(pixels))
    for name, duration in (("slow.gif", 40), ("fast.gif", 0)):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=duration, disposal=disposal)
    slow, fast = (open_source(tmp_path / name) for name in ("slow.gif", "fast.gif"))
    for place in range(5):
        np.testing.assert_array_equal(fast.read(place), slow.read(place))
