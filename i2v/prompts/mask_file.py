"""Masks in picture files: label maps, black and white or soft masks, and cut-outs."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from i2v.errors import StrPath, brief, listed, locating
from i2v.prompts.mask_values import (
    VOID,
    Mask,
    Meaning,
    flat_values,
    foreground,
    has_grey_levels,
    is_ramp,
    meaning_of,
    whole_numbers,
)
from i2v.utils.image_file import FRAME_FORMATS, MAX_BYTES, decode_image
from i2v.utils.input_file import read_input

_MOST_SHOWN = 12  # labels or colours in a message
HALF_OPAQUE = 128  # of 255
_NEARLY_BLACK = 25
_MOST_LABELS = 64  # of a cut-out that is a label map; a photo has more values
_FEWEST_SURE = 0.5  # of a soft mask is black or white
_SHADE = 48  # by which a pixel may be off a shade of the colour, as JPEG's blocks of colour are
_MOST_OFF = 0.3  # of the object's pixels are
_EXPECTED = (
    "expected a label map, black and white or a single colour, or a cut-out that is transparent around the object"
)
_PLAIN = 0.9  # of what is visible is in areas of one colour where several objects are painted


def read_mask_file(path: StrPath, obj_id: Hashable, size: tuple[int, int], where: str) -> Mask:
    """Read an object's mask from a picture.

    - Where a part is transparent (RGBA, LA, transparent colours of a palette), what is visible is the object: a
      cut-out. Several labels, or black and white, remain what they are on a transparent ground.
    - A palette picture, and a grey one of few labels, is a label map: the pixels whose value is the object's id.
    - A grey or coloured picture of black and one value is the mask; a soft one, such as a JPEG, counts from half of its
      range.

    Args:
        path: The file.
        obj_id: The object's id, which is its label in a label map.
        size: (height, width) that the picture has to have.
        where: Names the object and the file in messages.

    Returns:
        ``(H, W)``, true on the object.

    Raises:
        OSError: If the file cannot be read.
        InvalidFileError: If it is no picture of the size, has several objects but not this one, or no object at all.
    """
    image = decode_image(read_input(path, MAX_BYTES), where, FRAME_FORMATS, size)
    with locating(where):
        mask = _mask_of(image, obj_id)
        if not mask.any():
            raise ValueError("every pixel is zero, expected the object non-zero")
    return mask


def _mask_of(image: Image.Image, obj_id: Hashable) -> Mask:
    visible = _visible(image)
    if visible is not None:
        return _cut_out(image, visible, obj_id)
    if image.mode in ("P", "PA"):
        values = np.asarray(image if image.mode == "P" else image.getchannel("P"))
        is_binary = set(np.unique(values).tolist()) <= {0, VOID}
        return np.asarray(values != 0) if is_binary else _indexed(image, values, obj_id)
    if image.mode == "1":
        return np.asarray(image)
    if image.mode == "F":
        values = np.asarray(image)
        numbers = whole_numbers(values)
        return foreground(values, "its values") if numbers is None else _grey(numbers, obj_id, is_lossy=False)
    is_lossy = image.format in ("JPEG", "MPO")
    if image.mode != "L" and not image.mode.startswith("I"):
        colours = np.asarray(image.convert("RGB"))
        if (colours.min(axis=2) != colours.max(axis=2)).any():
            return _coloured(colours, is_lossy)
        return _grey(colours[..., 0], obj_id, is_lossy)
    return _grey(np.asarray(image), obj_id, is_lossy)


def _grey(values: NDArray[Any], obj_id: Hashable, is_lossy: bool) -> Mask:
    top = VOID if values.max(initial=0) <= VOID else int(np.iinfo(np.uint16).max)
    meaning = Meaning.LEVELS if is_lossy else meaning_of(np.maximum(values, 0), top)
    if meaning is Meaning.LABELS:
        return _labelled(values, obj_id)
    if meaning is not Meaning.LEVELS:
        return np.asarray(values > 0)
    _check_no_photo(values, top)
    return _brighter(values, top // 2)


def _indexed(image: Image.Image, values: NDArray[np.uint8], obj_id: Hashable) -> Mask:
    """Of a palette picture: labels, or grey levels, which programs also save with a palette."""
    colours = np.asarray(image.convert("RGB"))
    is_grey = (colours.min(axis=2) == colours.max(axis=2)).all()
    if is_grey and has_grey_levels(colours[..., 0]):
        return _grey(colours[..., 0], obj_id, is_lossy=True)
    labels = np.unique(values)
    if obj_id in labels.tolist() and len(labels) > _MOST_LABELS and not len(flat_values(values)):
        raise ValueError(f"this looks like a photo: {_EXPECTED}")
    return _labelled(values, obj_id)


def _check_no_photo(values: NDArray[Any], top: int) -> None:
    """ValueError if few pixels are black or white, and the others do not blend these smoothly, as a soft mask does."""
    edge = top // 10
    sure = np.count_nonzero((values <= edge) | (values >= top - edge))
    if sure < _FEWEST_SURE * values.size and not is_ramp(values, len(np.unique(values))):
        raise ValueError(f"this looks like a photo, most of it is neither black nor white: {_EXPECTED}")


def _check_shades(colours: NDArray[np.uint8], is_object: Mask) -> None:
    """ValueError if the object of a picture (H,W,3) has further colours than shades of one."""
    inside = colours[is_object].astype(np.float64)
    if not len(inside):
        return
    usual = np.median(inside, axis=0)
    shade = inside.max(axis=1, keepdims=True) / max(usual.max(), 1)
    if np.count_nonzero(np.abs(inside - shade * usual).max(axis=1) > _SHADE) > _MOST_OFF * len(inside):
        raise ValueError(f"the picture has many colours, as photos have: {_EXPECTED}")


def _coloured(colours: NDArray[np.uint8], is_lossy: bool) -> Mask:
    """Pixels of the one colour of a picture (H,W,3); several objects in several colours have no numbers."""
    brightness = colours.max(axis=2)
    packed = _numbered(colours)
    # A lossy format leaves a little colour in black.
    black = _NEARLY_BLACK if brightness.max() > _NEARLY_BLACK else 0
    flat = [] if is_lossy else flat_values(np.where(brightness > black, packed, 0))
    if len(flat) > 1:
        raise ValueError(_several_colours(flat))
    highest = int(brightness.max())
    _check_shades(colours, brightness > max(black, _NEARLY_BLACK))
    _check_no_photo(brightness, highest)
    return _brighter(brightness, highest // 2)


def _brighter(values: NDArray[Any], limit: int) -> Mask:
    mask = np.asarray(values > limit)
    if values.any() and not mask.any():
        raise ValueError(f"no pixel is brighter than {limit}, half of the range, expected the object in white")
    return mask


def _visible(image: Image.Image) -> Mask | None:
    """What is at least half opaque (H,W), if that is a part of the picture; ``None`` where opacity says nothing."""
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return None
    if image.mode.startswith("I"):
        return None
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    if not alpha.any():
        raise ValueError("the picture is transparent everywhere, so it shows no object")
    visible = np.asarray(alpha >= HALF_OPAQUE)
    if not visible.any() and alpha.min() != alpha.max():
        raise ValueError(
            f"no pixel is half opaque, expected the object to be: the highest opacity is {alpha.max()} of 255"
        )
    return None if visible.all() or not visible.any() else visible


def _cut_out(image: Image.Image, visible: Mask, obj_id: Hashable) -> Mask:
    """The object of a picture that is transparent around it, or that happens to be transparent somewhere.

    What is visible is the object, unless it is itself a label map, or a mask in black and white.
    """
    if image.mode in ("P", "PA", "L", "LA", "La"):
        values = np.asarray(image.getchannel(0))
    else:
        colours = np.asarray(image.convert("RGB"))
        if (colours.min(axis=2) != colours.max(axis=2)).any():
            _check_one_colour(np.where(visible, _numbered(colours) + 1, 0))
            return visible
        values = colours[..., 0]
    shown = np.unique(values[visible])
    if len(shown) == 1:
        return visible
    if len(shown) == 2 and shown[0] == 0 and shown[1] in (1, VOID) and image.mode not in ("P", "PA"):
        return np.asarray(visible & (values > 0))
    # One more, so that visible black is a value like any other.
    is_label_map = (
        len(shown) <= _MOST_LABELS and len(flat_values(np.where(visible, values.astype(np.int64) + 1, 0))) > 1
    )
    return _labelled(np.where(visible, values, 0), obj_id) if is_label_map else visible


def _check_one_colour(packed: NDArray[np.int64]) -> None:
    """Check that what is visible, numbered from 1, is not painted in several colours: a photo has no plain areas."""
    flat = flat_values(packed)
    if len(flat) > 1 and np.isin(packed, flat).sum() >= _PLAIN * np.count_nonzero(packed):
        raise ValueError(_several_colours([colour - 1 for colour in flat]))


def _numbered(colours: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Colours (H,W,3) as numbers (H,W), 0xRRGGBB."""
    packed: NDArray[np.int64] = (colours.astype(np.int64) << np.array([16, 8, 0])).sum(axis=2)
    return packed


def _several_colours(colours: list[int]) -> str:
    found = listed([f"#{colour:06x}" for colour in colours], _MOST_SHOWN)
    return f"the picture has several colours, {found}: expected a label map or a single colour"


def _labelled(values: NDArray[Any], obj_id: Hashable) -> Mask:
    labels = [int(label) for label in np.unique(values) if label > 0]
    if not labels:
        return np.zeros(values.shape, np.bool_)
    if obj_id not in labels:
        raise ValueError(
            f"the picture is a label map without label {brief(obj_id)}: it has {listed(labels, _MOST_SHOWN)}"
        )
    return np.asarray(values == obj_id)
