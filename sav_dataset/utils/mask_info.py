"""``mask_info``: the ground truth of one object in one small file, as the test script wants it.

Written by ``tools/save_gt_mask_multiprocess.py``, one JSON per object, masks as COCO run lengths. The published files
of the same name and purpose, pickled dictionaries in ``.npy`` files, are read too, by a reader that builds nothing but
numbers, strings, containers and masks, whatever a file asks for.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from i2v.utils.files import replacing

Mask = NDArray[np.bool_]

SUFFIXES = (".json", ".npy")

# What pickle raises on damaged or hostile files is nowhere said; these are what its opcodes run into.
_DAMAGE = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class MaskInfo:
    """An object's ground truth: its ``name`` (that of its folder or label), and masks on annotated frames.

    ``size`` is (height, width). ``counts`` holds COCO's compressed run lengths by frame number for the frames where
    the object has pixels; ``annotated`` are the numbers of all frames with an annotation, ascending.
    """

    video: str
    name: str
    size: tuple[int, int]
    annotated: tuple[int, ...]
    counts: Mapping[int, str] = field(repr=False)

    def mask(self, frame: int) -> Mask:
        """Mask (H,W) on an annotated frame. Raises KeyError for another one."""
        if frame not in self.annotated:
            raise KeyError(f"{self.video}, object {self.name}: frame {frame} has no annotation")
        counts = self.counts.get(frame)
        if counts is None:
            return np.zeros(self.size, np.bool_)
        return coco_mask.decode({"size": list(self.size), "counts": counts}).astype(np.bool_)

    @property
    def first_frame(self) -> int | None:
        """The first frame where the object is seen; None if there is none."""
        return min(self.counts, default=None)


def encode_mask(mask: Mask) -> str:
    """COCO's compressed run lengths of a mask (H,W)."""
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode("ascii")


def mask_info_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The files of a video's objects, in order. Of an object that has both kinds, the JSON counts."""
    files = [path for path in Path(folder).iterdir() if path.suffix in SUFFIXES and path.name[0] != "."]
    by_stem = {path.stem: path for path in sorted(files, key=lambda path: path.suffix, reverse=True)}
    return [by_stem[stem] for stem in sorted(by_stem)]


def write_mask_info(path: str | os.PathLike[str], info: MaskInfo) -> None:
    """Write a file, atomically."""
    content = {
        "video": info.video,
        "object": info.name,
        "size": info.size,
        "annotated": info.annotated,
        "counts": {str(frame): counts for frame, counts in sorted(info.counts.items())},
    }
    with replacing(Path(path)) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="ascii")


def read_mask_info(path: str | os.PathLike[str]) -> MaskInfo:
    """Read a JSON file or a published ``.npy`` file. Raises ValueError, with the path, for anything else."""
    path = Path(path)
    if path.suffix == ".npy":
        return _from_masks(path, load_published(path))
    try:
        return _from_json(json.loads(path.read_text(encoding="ascii")))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: not a mask_info file: {type(error).__name__}: {error}") from error


def _from_json(content: dict[str, Any]) -> MaskInfo:
    height, width = content["size"]
    return MaskInfo(
        video=str(content["video"]),
        name=str(content["object"]),
        size=(int(height), int(width)),
        annotated=tuple(int(frame) for frame in content["annotated"]),
        counts={int(frame): str(counts) for frame, counts in content["counts"].items()},
    )


def _from_masks(path: Path, masks: Mapping[int, Mask]) -> MaskInfo:
    shapes = sorted({mask.shape for mask in masks.values()})
    if len(shapes) != 1:
        raise ValueError(f"{path}: wanted masks of one size, got {shapes or 'no mask at all'}")
    height, width = shapes[0]
    return MaskInfo(
        video=path.parent.name,
        name=path.stem,
        size=(height, width),
        annotated=tuple(sorted(masks)),
        counts={frame: encode_mask(mask) for frame, mask in masks.items() if mask.any()},
    )


def load_published(path: str | os.PathLike[str]) -> dict[int, Mask]:
    """Masks (H,W) by frame number of a published ``.npy`` file, a pickled ``{frame: {0: mask}}``.

    Nothing in the file is executed, nor handed to NumPy's own unpickling: only plain values and the raw bytes of
    Boolean arrays are taken. Raises ValueError if there is anything else.
    """
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            if shape != () or dtype != np.dtype(object):
                raise ValueError(f"wanted one pickled dictionary, got an array {shape} of {dtype}")
            content = _InertUnpickler(file).load()
            return _masks_of(content)
        except _DAMAGE as error:
            raise ValueError(f"{path}: not a published mask_info file: {error}") from error


class _Array:
    """Stands for a pickled array: remembers what it was to be made of."""

    __slots__ = ("state",)

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _DType:
    """Stands for a pickled dtype: remembers its name."""

    __slots__ = ("name",)

    def __init__(self, name: str = "", *_: object) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and the like: of no meaning for bytes


class _Marker:
    """Stands for the class ``numpy.ndarray``, which pickles only mention."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


_STAND_INS = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    ("numpy", "ndarray"): _Marker,
    ("numpy", "dtype"): _DType,
}


class _InertUnpickler(pickle.Unpickler):
    """Knows no class but the stand-ins, so a file has nothing that it could call."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which masks do not need")
        return _STAND_INS[module, name]


def _masks_of(content: object) -> dict[int, Mask]:
    """Unwrap the 0-d object array, then the masks."""
    values = content.state[-1] if isinstance(content, _Array) else None
    frames = values[0] if isinstance(values, list) and len(values) == 1 else None
    if not isinstance(frames, dict):
        raise ValueError("wanted a dictionary of frames")
    return {_frame_number(frame): _mask_of(frame, objects) for frame, objects in frames.items()}


def _frame_number(key: object) -> int:
    if type(key) is not int:
        raise ValueError(f"wanted frame numbers as keys, got {key!r}")
    return key


def _mask_of(frame: int, objects: object) -> Mask:
    array = objects.get(0) if isinstance(objects, dict) else None
    if not isinstance(array, _Array):
        raise ValueError(f"frame {frame}: wanted {{0: mask}}, got {type(objects).__name__}")
    _, shape, dtype, is_fortran, raw = array.state
    if not isinstance(dtype, _DType) or dtype.name not in ("b1", "u1", "?") or not isinstance(raw, bytes):
        raise ValueError(f"frame {frame}: wanted a Boolean mask")
    height, width = shape
    if len(raw) != height * width:
        raise ValueError(f"frame {frame}: got {len(raw)} bytes for a mask of {shape}")
    values = np.frombuffer(raw, np.uint8) > 0
    return values.reshape(width, height).T if is_fortran else values.reshape(height, width)
