"""``mask_info``: the ground truth of one object in a small file, which the test script reads.

``tools/save_gt_mask_multiprocess.py`` writes one JSON file per object with masks as COCO RLE. The published files of
the same name and purpose, pickled dictionaries in ``.npy`` files, are read by ``published_masks``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from i2v.errors import InvalidFileError, StrPath, locating
from i2v.results.rle import Mask, RunLengths, Size, encode_mask
from i2v.utils.files import replacing
from i2v.utils.json_file import JsonValue, read_json
from i2v.utils.listing import visible_entries
from i2v.utils.output_folder import component
from i2v.utils.picture_size import check_size
from sav_dataset.utils.published_masks import load_published

SUFFIXES = (".json", ".npy")
MAX_SIDE = 1 << 16
MAX_FRAME = 10**9


@dataclass(frozen=True)
class MaskInfo:
    """Ground truth of an object.

    Attributes:
        video: Name of the video.
        name: Name of the object: its folder or label.
        size: Height and width.
        annotated: Numbers of all annotated frames, ascending.
        counts: Compressed COCO run lengths by frame number, for the frames where the object has pixels.
        source: File that it was read from, for messages.
    """

    video: str
    name: str
    size: Size
    annotated: tuple[int, ...]
    counts: Mapping[int, bytes] = field(repr=False)
    source: str = field(default="", compare=False)

    def mask(self, frame: int) -> Mask:
        """Decode the mask ``(H, W)`` on an annotated frame.

        Raises:
            KeyError: If the frame is not annotated.
            InvalidFileError: If the run lengths are damaged.
        """
        if frame not in self.annotated:
            raise KeyError(f"{self.video}, object {self.name}: frame {frame} has no annotation")
        counts = self.counts.get(frame)
        if counts is None:
            return np.zeros(self.size, np.bool_)
        with locating(self.source or f"{self.video}, object {self.name}", f"counts.{frame}"):
            return RunLengths.of_counts(counts, self.size).mask()

    @property
    def first_frame(self) -> int | None:
        """First frame with the object, or ``None`` if there is none."""
        return min(self.counts, default=None)


def mask_info_files(folder: StrPath) -> list[Path]:
    """List the files of a video's objects, sorted; JSON takes precedence over ``.npy``."""
    paths = (Path(entry.path) for entry in visible_entries(folder))
    files = [path for path in paths if path.suffix in SUFFIXES]
    by_stem = {path.stem: path for path in sorted(files, key=lambda path: path.suffix, reverse=True)}
    return [by_stem[stem] for stem in sorted(by_stem)]


def write_mask_info(path: StrPath, info: MaskInfo) -> None:
    """Write a file, atomically."""
    content = {
        "video": info.video,
        "object": info.name,
        "size": info.size,
        "annotated": info.annotated,
        "counts": {str(frame): counts.decode("ascii") for frame, counts in sorted(info.counts.items())},
    }
    with replacing(Path(path)) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="ascii")


def read_mask_info(path: StrPath) -> MaskInfo:
    """Read a JSON file or a published ``.npy`` file.

    The run lengths are checked later, by :meth:`MaskInfo.mask`.

    Raises:
        OSError: If the file cannot be read.
        InvalidFileError: If it has another format or an invalid value, naming the place in the file.
    """
    path = Path(path)
    return _from_masks(path, load_published(path)) if path.suffix == ".npy" else _from_json(read_json(path))


def _from_json(content: JsonValue) -> MaskInfo:
    annotated = [frame.integer(most=MAX_FRAME) for frame in content.member("annotated").elements()]
    if annotated != sorted(set(annotated)):
        content.member("annotated").fail("expected frame numbers in ascending order")
    counts = {_frame_number(key, value): _code(value) for key, value in content.member("counts").members()}
    strange = counts.keys() - set(annotated)
    if strange:
        content.member("counts").fail(f"frame {min(strange)} is not listed under annotated")
    return MaskInfo(
        video=_name(content.member("video")),
        name=_name(content.member("object")),
        size=_size(content.member("size")),
        annotated=tuple(annotated),
        counts=counts,
        source=str(content.path),
    )


def _name(value: JsonValue) -> str:
    # The name becomes that of a folder of results.
    with locating(value.path, value.place):
        return component(value.text())


def _size(value: JsonValue) -> Size:
    sides = [side.integer(1, MAX_SIDE) for side in value.elements()]
    if len(sides) != 2:
        value.fail(f"expected height and width, got {len(sides)} numbers")
    with locating(value.path, value.place):
        check_size(width=sides[1], height=sides[0])
    return sides[0], sides[1]


def _frame_number(key: str, value: JsonValue) -> int:
    # Only the canonical form: with two spellings of a number, a frame could have two masks.
    if not (key.isascii() and key.isdigit() and len(key) < 10 and str(int(key)) == key):
        value.fail("expected a frame number as the key")
    return int(key)


def _code(value: JsonValue) -> bytes:
    text = value.text()
    if not text.isascii():
        value.fail("expected run lengths in ASCII")
    return text.encode("ascii")


def _from_masks(path: Path, masks: Mapping[int, Mask]) -> MaskInfo:
    shapes = sorted({mask.shape for mask in masks.values()})
    if len(shapes) != 1:
        raise InvalidFileError(path, f"expected masks of one size, got {shapes[:4] or 'no mask at all'}")
    height, width = shapes[0]
    return MaskInfo(
        video=path.parent.name,
        name=path.stem,
        size=(height, width),
        annotated=tuple(sorted(masks)),
        counts={frame: encode_mask(mask) for frame, mask in masks.items() if mask.any()},
        source=str(path),
    )
