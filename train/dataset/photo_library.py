"""Photos with object masks from one packed file, decoded once and kept as tensors.

A pack is a zip archive of ``photos/N.webp`` (resized to a square), ``labels/N.png`` (label images of the same size),
``backgrounds/N.webp`` and ``index.json``; ``python -m train.scripts.pack_photos`` writes one.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from i2v.errors import reading
from i2v.utils.image_file import decode_image, load_image
from i2v.utils.input_file import open_input
from i2v.utils.json_file import JsonValue, parse_json
from i2v.utils.listing import is_visible

INDEX = "index.json"
MAX_SIDE = 1024  # of packed pictures
MAX_BYTES = 64 << 30  # of a pack
# Decoded pictures take about 30 times the size of the pack; those of a decompression bomb take thousands of times it.
_MAX_GROWTH, _MIN_ROOM = 200, 64 << 20
_MAX_LABEL = 254
_MAX_ASPECT = 100


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A photo with object masks.

    Attributes:
        name: Name of the photo.
        pixels: RGB image.
        labels: Label image of the same size: 0 is background, 255 void, other values are objects.
    """

    name: str
    pixels: Image.Image
    labels: Image.Image

    def masks(self) -> dict[int, NDArray[np.bool_]]:
        """Masks ``(H, W)`` of the objects by label."""
        values = np.array(self.labels)
        return {int(label): values == label for label in np.unique(values) if label not in (0, 255)}


def annotated_photos(folder: Path) -> Iterator[AnnotatedPhoto]:
    """Iterate over the photos ``JPEGImages/NAME.jpg`` of a folder with their labels ``Annotations/NAME.png``.

    Raises:
        ValueError: If there are no photos, or a label image has another size or mode, naming the file.
    """
    paths = sorted(path for path in (folder / "JPEGImages").glob("*.jpg") if is_visible(path.name))
    if not paths:
        raise ValueError(f"{folder}: expected photos in JPEGImages/*.jpg, got none")
    for path in paths:
        photo = load_image(path)
        labels = load_image(folder / "Annotations" / f"{path.stem}.png", formats=("PNG",))
        if photo.size != labels.size or labels.mode not in ("P", "L"):
            raise ValueError(
                f"{path}: expected a label image of size {photo.size} and mode P or L, "
                f"got {labels.size} and {labels.mode}"
            )
        yield AnnotatedPhoto(path.stem, photo.convert("RGB"), labels)


@dataclass(frozen=True)
class PhotoLibrary:
    """P photos and Q backgrounds of side S, with O objects on the photos.

    Attributes:
        photos: ``(P, 3, S, S)`` uint8.
        labels: ``(P, S, S)`` uint8.
        aspects: ``(P,)`` width over height of the photos before they were resized to a square.
        backgrounds: ``(Q, 3, S, S)`` uint8.
        background_aspects: ``(Q,)``, as ``aspects``.
        photo_of: ``(O,)`` photo of each object.
        label_of: ``(O,)`` label of each object on its photo.
        centers: ``(O, 2)`` center of the object's box in -1..1.
        areas: ``(O,)`` fraction (0..1) of the photo that the object covers.
        categories: ``(O,)`` number of the object's category.
        weights: ``(O,)`` sampling weights of the objects, which make all photos equally likely.
    """

    photos: Tensor
    labels: Tensor
    aspects: Tensor
    backgrounds: Tensor
    background_aspects: Tensor
    photo_of: Tensor
    label_of: Tensor
    centers: Tensor
    areas: Tensor
    categories: Tensor
    weights: Tensor

    @classmethod
    def open(cls, path: str | Path, min_area: float = 0.004, max_area: float = 0.8) -> PhotoLibrary:
        """Decode a pack.

        Args:
            path: The pack.
            min_area: Objects that cover a smaller fraction of their photo are not sampled.
            max_area: Objects that cover a larger fraction of their photo are not sampled.

        Raises:
            FileNotFoundError: If there is no such file.
            InvalidFileError: If it is not a pack.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such photo pack; train.scripts.pack_photos makes one")
        what = "this pack of train.scripts.pack_photos"
        with open_input(path, MAX_BYTES) as file, reading(path, what), zipfile.ZipFile(file) as archive:
            return cls._decode(_Pack(path, archive), min_area, max_area)

    @classmethod
    def _decode(cls, pack: _Pack, min_area: float, max_area: float) -> PhotoLibrary:
        index = parse_json(pack.read(INDEX), f"{pack.path}: {INDEX}")
        photos = list(index.member("photos").elements())
        backgrounds = list(index.member("backgrounds").elements())
        objects = [
            (number, _PackedObject.read(entry))
            for number, photo in enumerate(photos)
            for entry in photo.member("objects").elements()
        ]
        drawable = [(number, packed) for number, packed in objects if min_area <= packed.area <= max_area]
        if not drawable:
            raise ValueError(f"the pack has no object that covers {min_area} to {max_area} of its photo")
        owners = torch.tensor([number for number, _ in drawable])
        names = sorted({packed.category for _, packed in drawable})
        places = {name: place for place, name in enumerate(names)}
        pack.check_growth(len(photos), len(backgrounds))
        return cls(
            photos=pack.pictures("photos", ".webp", len(photos)),
            labels=pack.pictures("labels", ".png", len(photos)),
            aspects=torch.tensor([_aspect(photo) for photo in photos]),
            backgrounds=pack.pictures("backgrounds", ".webp", len(backgrounds)),
            background_aspects=torch.tensor([_aspect(background) for background in backgrounds]),
            photo_of=owners,
            label_of=torch.tensor([packed.label for _, packed in drawable]),
            centers=torch.tensor([packed.center for _, packed in drawable]),
            areas=torch.tensor([packed.area for _, packed in drawable]),
            categories=torch.tensor([places[packed.category] for _, packed in drawable]),
            weights=1 / torch.bincount(owners, minlength=len(photos))[owners].float(),
        )

    def to(self, device: torch.device) -> PhotoLibrary:
        """Copy with all tensors on a device."""
        return PhotoLibrary(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class _PackedObject:
    """Entry of an object in the index of a pack."""

    label: int
    category: str
    center: tuple[float, float]
    area: float

    @staticmethod
    def read(entry: JsonValue) -> _PackedObject:
        """Read an entry.

        Raises:
            InvalidFileError: If a value is missing or out of range.
        """
        center = [_number(side, -1, 1) for side in entry.member("center").elements()]
        if len(center) != 2:
            entry.fail(f"expected a center of two numbers, got {len(center)}")
        return _PackedObject(
            label=entry.member("label").integer(1, _MAX_LABEL),
            category=entry.member("category").text(),
            center=(center[0], center[1]),
            area=_number(entry.member("area"), 0, 1),
        )


def _aspect(entry: JsonValue) -> float:
    return _number(entry.member("aspect"), 1 / _MAX_ASPECT, _MAX_ASPECT)


def _number(value: JsonValue, least: float, most: float) -> float:
    number = value.number()
    if not least <= number <= most:
        value.fail(f"expected a number from {least} to {most}, got {number}")
    return number


class _Pack:
    """The files of a pack, with sizes checked against decompression bombs."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        """Check the archive.

        Raises:
            ValueError: If the archive is compressed, its files overlap, or the photos are not square or too large.
        """
        self.path = path
        self._archive = archive
        entries = archive.infolist()
        self._num_bytes = path.stat().st_size
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its files are compressed, expected them stored")
        if sum(entry.file_size for entry in entries) > self._num_bytes:
            raise ValueError("its files claim more bytes than the archive has")
        self._side = self._read_side()

    def read(self, name: str) -> bytes:
        """Read the bytes of a file.

        Raises:
            KeyError: If there is no such file in the pack.
        """
        return self._archive.read(name)

    def check_growth(self, num_photos: int, num_backgrounds: int) -> None:
        """Check how much memory the decoded pictures take.

        Raises:
            ValueError: If it is far more than the size of the pack.
        """
        # Bytes per pixel: 3 for RGB, and 1 for the labels of a photo.
        wanted = self._side**2 * (4 * num_photos + 3 * num_backgrounds)
        if wanted > _MAX_GROWTH * self._num_bytes + _MIN_ROOM:
            raise ValueError(f"its pictures would take {wanted:,} bytes, over {_MAX_GROWTH} times the size of the pack")

    def pictures(self, folder: str, suffix: str, count: int) -> Tensor:
        """Decode the pictures ``(N, 3, S, S)`` or label images ``(N, S, S)`` of a folder, uint8."""
        files = [self.read(f"{folder}/{number}{suffix}") for number in range(count)]
        load = self._labels if suffix == ".png" else self._pixels
        with ThreadPoolExecutor() as threads:
            loaded = list(threads.map(load, files, (f"{self.path}: {folder}/{n}{suffix}" for n in range(count))))
        stacked = torch.from_numpy(np.stack(loaded))
        return stacked if suffix == ".png" else stacked.movedim(-1, 1).contiguous()

    def _read_side(self) -> int:
        name = "photos/0.webp"
        width, height = decode_image(self.read(name), f"{self.path}: {name}", formats=("WEBP",)).size
        if width != height or width > MAX_SIDE:
            raise ValueError(f"{name} has {width}x{height} pixels, expected a square of at most {MAX_SIDE} on a side")
        return width

    def _pixels(self, data: bytes, name: str) -> NDArray[np.uint8]:
        return np.array(decode_image(data, name, formats=("WEBP",), size=(self._side, self._side)).convert("RGB"))

    def _labels(self, data: bytes, name: str) -> NDArray[np.uint8]:
        image = decode_image(data, name, formats=("PNG",), size=(self._side, self._side))
        if image.mode not in ("P", "L"):
            raise ValueError(f"{name}: a label image of mode {image.mode}, expected P or L")
        return np.array(image)
