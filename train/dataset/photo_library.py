"""Photos with object masks in one packed file, decoded once and kept as tensors.

A pack is a zip archive of ``photos/N.webp`` (square, squeezed), ``labels/N.png`` (label images of the same size),
``backgrounds/N.webp`` and ``index.json``; ``python -m train.scripts.pack_photos`` writes one.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

INDEX = "index.json"
MAX_SIDE = 1024  # of packed pictures


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A photo (RGB) with a label image of its size: 0 is background, 255 void, other values are objects."""

    name: str
    pixels: Image.Image
    labels: Image.Image

    def masks(self) -> dict[int, NDArray[np.bool_]]:
        """The mask (H,W) of every object, by label."""
        values = np.array(self.labels)
        return {int(label): values == label for label in np.unique(values) if label not in (0, 255)}


def annotated_photos(folder: Path) -> Iterator[AnnotatedPhoto]:
    """The photos JPEGImages/NAME.jpg of a folder with Annotations/NAME.png. Raises ValueError, naming the file."""
    paths = sorted((folder / "JPEGImages").glob("*.jpg"))
    if not paths:
        raise ValueError(f"{folder}: expected photos in JPEGImages/*.jpg, got none")
    for path in paths:
        with Image.open(path) as photo, Image.open(folder / "Annotations" / f"{path.stem}.png") as labels:
            if photo.size != labels.size or labels.mode not in ("P", "L"):
                raise ValueError(f"{path}: the label image has size {labels.size} and mode {labels.mode}")
            yield AnnotatedPhoto(path.stem, photo.convert("RGB"), labels.copy())


@dataclass(frozen=True)
class PhotoLibrary:
    """P photos and Q backgrounds of side S as uint8, with O objects on the photos.

    ``photos`` (P,3,S,S), ``labels`` (P,S,S), ``backgrounds`` (Q,3,S,S); ``aspects`` (P,) and ``background_aspects``
    (Q,): width over height before pictures were made square. Of each object: ``photo_of`` and ``label_of`` (O,),
    ``centers`` (O,2) of its box in -1..1, ``areas`` (O,) as a part of the photo, ``categories`` (O,), ``weights`` (O,):
    chances to be drawn, the same for every photo.
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
        """Decode a pack. Objects of less or more than a part of their photo are not drawn.

        Raises FileNotFoundError, or ValueError for a file that is no pack.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such pack of photos; train.scripts.pack_photos makes one")
        try:
            with zipfile.ZipFile(path) as archive:
                index = json.loads(archive.read(INDEX))
                content = {name: archive.read(name) for name in archive.namelist() if name != INDEX}
            return cls._decode(index, content, min_area, max_area)
        except (zipfile.BadZipFile, KeyError, TypeError, IndexError, json.JSONDecodeError, OSError) as error:
            raise ValueError(f"{path}: not a pack of train.scripts.pack_photos: {error!r}") from error

    @classmethod
    def _decode(
        cls, index: dict[str, Any], content: dict[str, bytes], min_area: float, max_area: float
    ) -> PhotoLibrary:
        photos, backgrounds = index["photos"], index["backgrounds"]
        drawable = [
            (number, entry)
            for number, photo in enumerate(photos)
            for entry in photo["objects"]
            if min_area <= entry["area"] <= max_area
        ]
        if not drawable:
            raise ValueError(f"the pack has no object of {min_area} to {max_area} of its photo")
        owners = torch.tensor([number for number, _ in drawable])
        categories = sorted({entry["category"] for _, entry in drawable})
        return cls(
            photos=_stack([content[f"photos/{n}.webp"] for n in range(len(photos))], "RGB"),
            labels=_stack([content[f"labels/{n}.png"] for n in range(len(photos))], "P"),
            aspects=torch.tensor([photo["aspect"] for photo in photos]),
            backgrounds=_stack([content[f"backgrounds/{n}.webp"] for n in range(len(backgrounds))], "RGB"),
            background_aspects=torch.tensor([background["aspect"] for background in backgrounds]),
            photo_of=owners,
            label_of=torch.tensor([entry["label"] for _, entry in drawable]),
            centers=torch.tensor([entry["center"] for _, entry in drawable]),
            areas=torch.tensor([entry["area"] for _, entry in drawable]),
            categories=torch.tensor([categories.index(entry["category"]) for _, entry in drawable]),
            weights=1 / torch.bincount(owners, minlength=len(photos))[owners].float(),
        )

    def to(self, device: torch.device) -> PhotoLibrary:
        """The same with all tensors on a device."""
        return PhotoLibrary(**{name: value.to(device) for name, value in vars(self).items()})


def _stack(files: Sequence[bytes], mode: str) -> Tensor:
    with ThreadPoolExecutor() as threads:
        pictures = list(threads.map(lambda data: _picture(data, mode), files))
    stacked = torch.from_numpy(np.stack(pictures))
    return stacked.movedim(-1, 1).contiguous() if mode == "RGB" else stacked


def _picture(data: bytes, mode: str) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        if max(picture.size) > MAX_SIDE:
            raise ValueError(f"a picture of {picture.size} pixels, expected at most {MAX_SIDE} on a side")
        if mode == "P" and picture.mode not in ("P", "L"):
            raise ValueError(f"a label image of mode {picture.mode}, expected P or L")
        return np.array(picture if mode == "P" else picture.convert(mode))
