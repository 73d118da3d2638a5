"""Masks in picture files: label maps, black and white or soft masks, and cut-outs."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from i2v.errors import StrPath, brief, locating
from i2v.prompts.mask_values import VOID, Mask, Meaning, flat_values, foreground, meaning_of
from i2v.utils.image_file import FRAME_FORMATS, MAX_BYTES, decode_image
from i2v.utils.input_file import read_input

_MOST_SHOWN = 12  # labels or colours in a message
_HALF_OPAQUE = 128
_NEARLY_BLACK = 25


def read_mask_file(path: StrPath, obj_id: Hashable, size: tuple[int, int], where: str) -> Mask:
    """Read an object's mask from a picture.

    - Where opacity varies (RGBA, LA, transparent colours of a palette), what is opaque is the object: a cut-out. A
      palette whose label 0 alone is transparent stays a label map.
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
    alpha = _varying_alpha(image)
    if alpha is not None:
        return np.asarray(alpha >= _HALF_OPAQUE)
    if image.mode in ("P", "PA"):
        values = np.asarray(image if image.mode == "P" else image.getchannel("P"))
        is_binary = set(np.unique(values).tolist()) <= {0, VOID}
        return np.asarray(values != 0) if is_binary else _labelled(values, obj_id)
    if image.mode == "1":
        return np.asarray(image)
    if image.mode == "F":
        return foreground(np.asarray(image), "its values")
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
    return _brighter(values, top // 2) if meaning is Meaning.LEVELS else np.asarray(values > 0)


def _coloured(colours: NDArray[np.uint8], is_lossy: bool) -> Mask:
    """Pixels of the one colour of a picture (H,W,3); several objects in several colours have no numbers."""
    brightness = colours.max(axis=2)
    packed = (colours.astype(np.int64) << np.array([16, 8, 0])).sum(axis=2)
    # A lossy format leaves a little colour in black.
    flat = [] if is_lossy else flat_values(np.where(brightness > _NEARLY_BLACK, packed, 0))
    if len(flat) > 1:
        found = _listed([f"#{colour:06x}" for colour in flat])
        raise ValueError(f"the picture has several colours, {found}: expected a label map or a single colour")
    return _brighter(brightness, int(brightness.max()) // 2)


def _brighter(values: NDArray[Any], limit: int) -> Mask:
    mask = np.asarray(values > limit)
    if values.any() and not mask.any():
        raise ValueError(f"no pixel is brighter than {limit}, half of the range, expected the object in white")
    return mask


def _varying_alpha(image: Image.Image) -> NDArray[np.uint8] | None:
    """Opacity (H,W), 0 to 255, if it tells an object from its surroundings; ``None`` where it says nothing."""
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return None
    if image.mode.startswith("I") or (image.mode == "P" and _is_label_map_on_transparent(image)):
        return None
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    if not alpha.any():
        raise ValueError("the picture is transparent everywhere, so it shows no object")
    return None if alpha.min() == alpha.max() else alpha


def _is_label_map_on_transparent(image: Image.Image) -> bool:
    values = np.asarray(image)
    present = np.unique(values)
    opacity = image.info["transparency"]
    if isinstance(opacity, bytes):
        clear = [label for label in present.tolist() if label < len(opacity) and opacity[label] < VOID]
    else:
        clear = [opacity] if opacity in present else []
    labels = present[present != 0]
    return clear in ([0], []) and len(labels) > 1 and meaning_of(values, VOID) is Meaning.LABELS


def _labelled(values: NDArray[Any], obj_id: Hashable) -> Mask:
    labels = [int(label) for label in np.unique(values) if label > 0]
    if not labels:
        return np.zeros(values.shape, np.bool_)
    if obj_id not in labels:
        raise ValueError(f"the picture is a label map without label {brief(obj_id)}: it has {_listed(labels)}")
    return np.asarray(values == obj_id)


def _listed(names: list[Any]) -> str:
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(map(str, names[:_MOST_SHOWN])) + more
