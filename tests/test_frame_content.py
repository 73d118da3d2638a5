"""Masks and cut-outs among the frames of a video, under names that fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from i2v.errors import InvalidFileError
from i2v.video.sources import FrameSource, open_source

SIZE = (64, 48)


def frame(seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(20, 200, (6, 8, 3), np.uint8)
    return Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC)


def mask(*colours: object, mode: str = "RGB") -> Image.Image:
    image = Image.new(mode, SIZE)
    for place, colour in enumerate(colours):
        left = 2 + 5 * place
        ImageDraw.Draw(image).rectangle((left, 8, left + 3, 30), fill=colour)  # type: ignore[arg-type]
    return image


def clip(folder: Path, odd: Image.Image, place: int, suffix: str = "png") -> FrameSource:
    folder.mkdir(exist_ok=True)
    for number in range(5):
        image = odd if number == place else frame(number)
        image.save(folder / f"{number}.{suffix}")
    return open_source(folder)


def read_all(source: FrameSource) -> int:
    return len([source.read(index) for index in range(source.num_frames or 0)])


@pytest.mark.parametrize("place", [0, 1, 4])
@pytest.mark.parametrize(
    "odd",
    [
        mask("white"),
        mask("maroon", "green"),
        mask("maroon").convert("RGBA"),
        mask(*(f"#{level:02x}4040" for level in range(16, 236, 20))),
    ],
)
def test_a_mask_in_colours_among_photos_is_an_error(tmp_path: Path, odd: Image.Image, place: int) -> None:
    with pytest.raises(InvalidFileError, match=rf"{place}\.png: this looks like a mask among pictures in colour"):
        read_all(clip(tmp_path, odd, place))


def test_a_cut_out_among_opaque_pictures_is_an_error(tmp_path: Path) -> None:
    odd = frame()
    odd.putalpha(mask(255, mode="L"))
    with pytest.raises(InvalidFileError, match=r"3\.png: this looks like a cut-out, transparent around an object"):
        read_all(clip(tmp_path, odd, 3))


def test_of_a_soft_mask_a_warning_tells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soft = Image.new("RGB", SIZE)
    soft.paste((255, 255, 255), (10, 10, 51, 39))
    assert read_all(clip(tmp_path, soft.filter(ImageFilter.GaussianBlur(0.5)), 3, "jpg")) == 5
    assert "3.jpg: this black and white picture among others may be a mask" in caplog.text


def test_frames_are_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dark = Image.merge("RGB", [Image.linear_gradient("L").resize(SIZE).point(lambda level: level // 50)] * 3)
    fades = [Image.new("RGB", SIZE), Image.new("RGB", SIZE, "white"), frame().point(lambda level: level // 40), dark]
    for place, odd in enumerate(fades):
        assert read_all(clip(tmp_path / str(place), odd, 3)) == 5
    cartoon = tmp_path / "cartoon"
    cartoon.mkdir()
    for number in range(3):
        mask("red", "blue", *["white"] * number).save(cartoon / f"{number}.png")
    assert read_all(open_source(cartoon)) == 3
    assert not caplog.text
