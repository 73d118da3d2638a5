"""What masks mean, in files and in arrays: labels, black and white, soft edges, cut-outs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from i2v.errors import InvalidFileError
from i2v.prompts.mask_file import read_mask_file
from i2v.prompts.mask_values import Meaning, foreground, meaning_of
from i2v.prompts.parsing import read_mask

HEIGHT, WIDTH = 120, 160


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


FIRST, SECOND, VOID = disc(40, 50, 20), disc(110, 70, 25), disc(20, 100, 9)


def label_map(first: int = 1, second: int = 2, void: int = 255) -> np.ndarray:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[VOID], labels[FIRST], labels[SECOND] = void, first, second
    return labels


def soft(mask: np.ndarray, radius: float = 3) -> np.ndarray:
    return np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(radius)))


def palette_image(labels: np.ndarray) -> Image.Image:
    image = Image.fromarray(labels)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    return image


def photo(mode: str) -> Image.Image:
    """A cut-out: noise that is opaque on the first disc only."""
    pixels = np.random.default_rng(1).integers(1, 256, (HEIGHT, WIDTH, 4)).astype(np.uint8)
    pixels[..., 3] = FIRST * np.uint8(255)
    return Image.fromarray(pixels, "RGBA").convert(mode)


def read(
    tmp_path: Path, image: Image.Image, obj_id: object = 1, name: str = "mask.png", **options: object
) -> np.ndarray:
    image.save(tmp_path / name, **options)
    return read_mask_file(tmp_path / name, obj_id, (HEIGHT, WIDTH), f"object {obj_id}, mask {name}")


@pytest.mark.parametrize("wrap", [palette_image, Image.fromarray, lambda v: Image.fromarray(v).convert("RGB")])
def test_the_object_of_a_label_map_is_its_id(tmp_path: Path, wrap: Callable[[np.ndarray], Image.Image]) -> None:
    image = wrap(label_map())
    np.testing.assert_array_equal(read(tmp_path, image, 1), FIRST)
    np.testing.assert_array_equal(read(tmp_path, image, 2), SECOND)
    with pytest.raises(InvalidFileError, match=r"object 7, mask mask.png: .* without label 7: it has 1, 2, 255"):
        read(tmp_path, image, 7)


@pytest.mark.parametrize(("first", "second", "void"), [(50, 200, 0), (120, 180, 240), (3, 3, 0), (90, 0, 255)])
def test_labels_of_any_size_are_told_from_levels(tmp_path: Path, first: int, second: int, void: int) -> None:
    labels = label_map(first, second, void)
    np.testing.assert_array_equal(read(tmp_path, Image.fromarray(labels), first), labels == first)
    with pytest.raises(InvalidFileError, match="without label 7"):
        read(tmp_path, Image.fromarray(labels), 7)


def test_labels_of_16_bits(tmp_path: Path) -> None:
    labels = label_map().astype(np.uint16) * 1000
    image = Image.fromarray(labels)
    np.testing.assert_array_equal(read(tmp_path, image, 2000), SECOND)
    with pytest.raises(InvalidFileError, match="it has 1000, 2000, 58392"):
        read(tmp_path, image, 2)
    levels = soft(FIRST).astype(np.uint16) * 257
    np.testing.assert_array_equal(read(tmp_path, Image.fromarray(levels), 7), soft(FIRST) >= 128)


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "LA"])
def test_black_and_white_is_the_mask_of_any_object(tmp_path: Path, value: int, mode: str) -> None:
    image = Image.fromarray(FIRST.astype(np.uint8) * (255 if mode == "1" else value)).convert(mode)
    np.testing.assert_array_equal(read(tmp_path, image, 7), FIRST)


def test_black_and_white_with_a_palette(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, palette_image(FIRST.astype(np.uint8) * 255), 7), FIRST)
    with pytest.raises(InvalidFileError, match="without label 7: it has 3"):
        read(tmp_path, palette_image(FIRST.astype(np.uint8) * 3), 7)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_cut_out_is_what_is_opaque(tmp_path: Path, mode: str) -> None:
    np.testing.assert_array_equal(read(tmp_path, photo(mode), 7), FIRST)
    np.testing.assert_array_equal(read(tmp_path, photo("RGBA"), 7, "mask.webp", lossless=True, exact=True), FIRST)


def test_a_cut_out_with_soft_opacity(tmp_path: Path) -> None:
    image = photo("RGBA")
    image.putalpha(Image.fromarray(soft(SECOND)))
    np.testing.assert_array_equal(read(tmp_path, image), soft(SECOND) >= 128)


def test_cut_outs_with_a_palette(tmp_path: Path) -> None:
    # As exported with few colours: one of them is transparent, and no index is the number of an object.
    indices = np.random.default_rng(2).integers(0, 255, (HEIGHT, WIDTH)).astype(np.uint8)
    indices[~FIRST] = 255
    np.testing.assert_array_equal(read(tmp_path, palette_image(indices), 7, transparency=255), FIRST)
    opacity = bytes([0] + 254 * [255])
    indices[~FIRST], indices[FIRST & (indices == 0)] = 0, 1
    np.testing.assert_array_equal(read(tmp_path, palette_image(indices), 1, transparency=opacity), FIRST)


def test_a_label_map_on_transparent_stays_one(tmp_path: Path) -> None:
    image = palette_image(label_map())
    np.testing.assert_array_equal(read(tmp_path, image, 2, transparency=0), SECOND)
    with pytest.raises(InvalidFileError, match="without label 7"):
        read(tmp_path, image, 7, transparency=bytes([0, 255]))


def test_opacity_that_does_not_vary_says_nothing(tmp_path: Path) -> None:
    image = Image.merge("LA", [Image.fromarray(FIRST.astype(np.uint8) * 255), Image.new("L", (WIDTH, HEIGHT), 255)])
    np.testing.assert_array_equal(read(tmp_path, image), FIRST)
    image.putalpha(0)
    with pytest.raises(InvalidFileError, match="transparent everywhere"):
        read(tmp_path, image)


@pytest.mark.parametrize(("name", "options"), [("m.png", {}), ("m.jpg", {"quality": 80}), ("m.webp", {"quality": 80})])
def test_soft_edges_do_not_grow_the_mask(tmp_path: Path, name: str, options: dict[str, int]) -> None:
    mask = read(tmp_path, Image.fromarray(soft(FIRST)), 7, name, **options)
    assert abs(int(mask.sum()) - int((soft(FIRST) >= 128).sum())) <= 12
    mask = read(tmp_path, Image.fromarray(FIRST.astype(np.uint8) * 255).convert("RGB"), 7, name, **options)
    assert abs(int(mask.sum()) - int(FIRST.sum())) <= 12


def test_a_mask_in_one_colour(tmp_path: Path) -> None:
    image = Image.new("RGB", (WIDTH, HEIGHT))
    ImageDraw.Draw(image).rectangle((20, 30, 59, 69), fill=(0, 0, 100))
    assert read(tmp_path, image, 7).sum() == 40 * 40
    ImageDraw.Draw(image).rectangle((90, 30, 99, 39), fill=(128, 0, 0))
    with pytest.raises(InvalidFileError, match=r"several colours, #000064, #800000: expected a label map"):
        read(tmp_path, image, 7)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
@pytest.mark.parametrize("name", ["m.png", "m.jpg"])
def test_a_photo_is_no_mask(tmp_path: Path, name: str, mode: str) -> None:
    # Of middle levels and blue to red, without plain areas.
    levels = np.random.default_rng(0).integers(40, 200, (HEIGHT // 4, WIDTH // 4, 3), np.uint8)
    levels[..., 2] = 255 - levels[..., 0]
    image = Image.fromarray(levels).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    with pytest.raises(InvalidFileError, match=r"m\.(png|jpg): (this looks like a photo|the picture)"):
        read(tmp_path, image.convert(mode).convert("RGB" if name == "m.jpg" and mode == "P" else mode), 1, name)


def test_a_soft_mask_with_a_grey_palette(tmp_path: Path) -> None:
    image = Image.fromarray(soft(FIRST)).convert("P")
    np.testing.assert_array_equal(read(tmp_path, image, 1), soft(FIRST) >= 128)
    np.testing.assert_array_equal(read(tmp_path, image.quantize(200), 1), read(tmp_path, image.convert("L"), 1))


def test_pictures_without_an_object_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="every pixel is zero"):
        read(tmp_path, Image.new("L", (WIDTH, HEIGHT)))
    with pytest.raises(InvalidFileError, match="no pixel is brighter than 127"):
        read(tmp_path, Image.fromarray(soft(FIRST) // 3), 7, "m.jpg")


@pytest.mark.parametrize(
    "values",
    [
        FIRST,
        FIRST.astype(np.uint8),
        FIRST.astype(np.uint8) * 255,
        FIRST.astype(np.int64) * 7,
        np.where(FIRST, 1, -1),
        np.where(FIRST, 1, np.where(VOID, -1, 0)).astype(np.int8),
        np.where(FIRST, 0.5, 0.49),
        np.where(FIRST, 1.0, -0.1).astype(np.float16),
        np.where(FIRST, 1.0, -1.0),
        FIRST.astype(">u2"),
        np.where(FIRST, 0.9, 0.0).astype(">f4"),
        FIRST.astype(object),
        np.where(FIRST, 1, 0).astype(object),
        np.where(FIRST, 40000, 0).astype(np.uint16),
    ],
)
def test_arrays_that_mean_the_same_mask(values: np.ndarray) -> None:
    np.testing.assert_array_equal(foreground(values, "mask"), FIRST)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.float32, ">u2"])
def test_grey_levels_count_from_half(dtype: type) -> None:
    np.testing.assert_array_equal(foreground(soft(FIRST).astype(dtype), "mask"), soft(FIRST) >= 128)
    np.testing.assert_array_equal(foreground(soft(FIRST) / 255, "mask"), soft(FIRST) >= 128)
    levels = soft(FIRST).astype(np.float32) + 0.25
    np.testing.assert_array_equal(foreground(levels, "mask"), levels >= 127.5)


@pytest.mark.parametrize("labels", [label_map(), label_map(50, 200, 0), label_map(1, 120, 7), label_map(100, 101, 255)])
def test_label_maps_stay_exact(labels: np.ndarray) -> None:
    assert meaning_of(labels, 255) is Meaning.LABELS
    for values in (labels, labels.astype(np.int64), labels.astype(np.float64)):
        np.testing.assert_array_equal(foreground(values, "mask"), (labels > 0) & (labels != 255))


def many_labels(highest: int) -> np.ndarray:
    """Squares of 8 x 8 pixels with the labels 1 to 200, as far as they go, in an order of their own."""
    numbers = np.random.default_rng(3).permutation(np.arange(1, 301)).reshape(15, 20)
    return np.kron(np.where(numbers <= highest, numbers, 0), np.ones((8, 8), int))


LABEL_MAPS = {
    "dark and bright": label_map(1, 240, 0).astype(np.int32),
    "nearly white": label_map(1, 2, 254).astype(np.int32),
    "dark beside void": label_map(3, 250, 255).astype(np.int32),
    "many": many_labels(150),
    "very many": many_labels(254),
    "neighbours": np.where(FIRST, 129, 0) + np.where(np.roll(FIRST, 40, axis=1) & ~FIRST, 130, 0),
    "16 bits": label_map(1, 200, 0).astype(np.int32) * 300,
    "32 bits": np.where(FIRST, 1, 0) + np.where(SECOND, 2_000_000_000, 0),
}


@pytest.mark.parametrize("name", LABEL_MAPS)
def test_no_label_map_is_taken_for_grey_levels(tmp_path: Path, name: str) -> None:
    labels = LABEL_MAPS[name]
    obj_id = int(labels[50, 40] if name not in ("many", "very many") else labels.max())
    dtype = np.uint8 if labels.max() <= 255 else np.uint16 if labels.max() <= 65535 else np.int32
    image = Image.fromarray(labels.astype(dtype))
    suffix = "mask.tif" if dtype == np.int32 else "mask.png"
    np.testing.assert_array_equal(read(tmp_path, image, obj_id, suffix), labels == obj_id)
    with pytest.raises(InvalidFileError, match="without label 77777"):
        read(tmp_path, image, 77777, suffix)
    np.testing.assert_array_equal(foreground(labels, "mask"), (labels > 0) & (labels != 255))


def test_small_labels_are_labels(tmp_path: Path) -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for i, label in enumerate((1, 2, 150, 160)):
        labels[50:53, 20 * i + 10 : 20 * i + 13] = label
    np.testing.assert_array_equal(read(tmp_path, Image.fromarray(labels), 1), labels == 1)


@pytest.mark.parametrize("radius", [1.5, 3, 10, 40])
def test_soft_masks_are_levels_however_soft(tmp_path: Path, radius: float) -> None:
    levels = soft(disc(80, 60, 50), radius)
    np.testing.assert_array_equal(read(tmp_path, Image.fromarray(levels), 1), levels > 127)
    np.testing.assert_array_equal(foreground(levels, "mask"), levels > 127)


def test_a_float_picture_of_whole_numbers_is_a_label_map(tmp_path: Path) -> None:
    image = Image.fromarray(label_map().astype(np.float32), "F")
    np.testing.assert_array_equal(read(tmp_path, image, 2, "mask.tif"), SECOND)
    with pytest.raises(InvalidFileError, match="without label 7"):
        read(tmp_path, image, 7, "mask.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("first", [1, 2])
def test_void_is_in_no_array_that_has_other_labels(dtype: type, first: int) -> None:
    labels = label_map(first, first, 255).astype(dtype)
    np.testing.assert_array_equal(foreground(labels, "mask"), FIRST | SECOND)


def test_several_objects_stay_apart_on_a_transparent_ground(tmp_path: Path) -> None:
    labels = label_map(1, 2, 0)
    alpha = Image.fromarray((labels > 0).astype(np.uint8) * 255)
    with_alpha = Image.merge("LA", [Image.fromarray(labels), alpha])
    np.testing.assert_array_equal(read(tmp_path, with_alpha, 2), SECOND)
    np.testing.assert_array_equal(read(tmp_path, Image.fromarray(labels), 1, transparency=0), FIRST)
    opacity = bytes([0, 128, 128, *([255] * 252), 0])
    np.testing.assert_array_equal(read(tmp_path, palette_image(label_map()), 1, transparency=opacity), FIRST)
    np.testing.assert_array_equal(read(tmp_path, palette_image(label_map()), 1, transparency=2), FIRST)
    painted = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    painted[FIRST], painted[SECOND] = (255, 0, 0, 255), (0, 255, 0, 255)
    with pytest.raises(InvalidFileError, match="several colours, #00ff00, #ff0000"):
        read(tmp_path, Image.fromarray(painted, "RGBA"))
    dark = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    dark[FIRST, 0], dark[SECOND, 0] = 1, 2
    with pytest.raises(InvalidFileError, match="several colours, #010000, #020000"):
        read(tmp_path, Image.fromarray(dark))


def test_a_stray_transparent_pixel_makes_no_cut_out(tmp_path: Path) -> None:
    image = Image.fromarray(FIRST.astype(np.uint8) * 255).convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 0))
    np.testing.assert_array_equal(read(tmp_path, image), FIRST)
    nearly = Image.fromarray(FIRST.astype(np.uint8) * 255).convert("RGBA")
    nearly.putpixel((0, 0), (0, 0, 0, 254))
    np.testing.assert_array_equal(read(tmp_path, nearly), FIRST)
    faint = photo("RGBA")
    faint.putalpha(Image.fromarray(FIRST.astype(np.uint8) * 100))
    with pytest.raises(InvalidFileError, match="no pixel is half opaque"):
        read(tmp_path, faint)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.where(FIRST, np.nan, 0), "not finite"),
        (np.where(FIRST, np.inf, 0), "not finite"),
        (np.where(FIRST, 9.5, -9.5), "from -9.5 to 9.5, .* of logits, give mask > 0"),
        (np.where(FIRST, 9.5, 0), "from 0 to 9.5"),
        (np.where(FIRST, "1", "0"), "booleans or numbers, got <U1"),
        (np.where(FIRST, None, 0), "got an array of NoneType, int"),
        (FIRST * 1j, "got complex128"),
    ],
)
def test_values_that_are_no_mask(values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=f"^frame 3: .*{message}"):
        foreground(values, "frame 3")


def test_masks_as_tensors_reach_the_model_with_the_same_meaning() -> None:
    size = (HEIGHT, WIDTH)
    wanted = read_mask(soft(FIRST) >= 128, size, 64, "mask")
    assert wanted.sum() > 100
    for mask in (torch.from_numpy(soft(FIRST).copy()), torch.from_numpy(soft(FIRST) / 255).bfloat16()):
        given = read_mask(mask, size, 64, "mask")
        assert (given != wanted).sum() <= 2  # bfloat16 rounds 127.5 / 255
    with pytest.raises(ValueError, match=r"mask: .*not finite"):
        read_mask(torch.full(size, float("nan")), size, 64, "mask")
    with pytest.raises(ValueError, match="mask: expected a mask of shape"):
        read_mask([[1, 0], [1]], size, 64, "mask")
    for nothing in (None, "mask.png"):
        with pytest.raises(ValueError, match="mask: expected a mask"):
            read_mask(nothing, size, 64, "mask")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_and_masked_arrays_keep_what_they_mean() -> None:
    size = (HEIGHT, WIDTH)
    wanted = read_mask(FIRST, size, 64, "mask")
    masked = np.ma.array(np.ones(size), mask=~FIRST)
    assert (read_mask(masked, size, 64, "mask") == wanted).all()
    rows = torch.nested.nested_tensor([torch.from_numpy(FIRST.astype(np.float32))[row] for row in range(HEIGHT)])
    assert (read_mask(rows, size, 64, "mask") == wanted).all()


def test_a_mask_below_half_of_its_range_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert not read_mask(FIRST * 0.4, (HEIGHT, WIDTH), 64, "mask").any()
    assert "mask: no value of the mask reaches half of its range" in caplog.text
    caplog.clear()
    read_mask(FIRST * 0.0, (HEIGHT, WIDTH), 64, "mask")
    assert not caplog.text
