"""Pack photos with object masks, and backgrounds, into one file for training.

python -m train.scripts.pack_photos --photos DIR [DIR ...] --backgrounds PATH [PATH ...] --output photos.zip

A folder of photos contains JPEGImages/NAME.jpg and Annotations/NAME.png (label images), and optionally meta.jsonl with
lines of {"file", "objects": [{"index", "category"}]}. Backgrounds are pictures, videos, or folders of these.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from i2v.cli.numbers import count, percent
from i2v.errors import USER_ERRORS, describe_error
from i2v.utils.command import as_command
from i2v.utils.files import replacing
from i2v.utils.image_file import load_image
from i2v.utils.input_file import read_text
from i2v.utils.json_file import parse_json
from i2v.utils.listing import visible_entries
from i2v.video.sources import open_source
from train.dataset.photo_library import INDEX, MAX_SIDE, AnnotatedPhoto, annotated_photos

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")


def read_photos(folder: Path, min_pixels: int = 16) -> Iterator[tuple[AnnotatedPhoto, list[dict[str, Any]]]]:
    """Iterate over the photos of a folder that have objects.

    Args:
        folder: The folder.
        min_pixels: Smaller objects are ignored.

    Yields:
        The photo, and the entries of its objects in the index.

    Raises:
        ValueError: If there are no photos, or a file is invalid, naming the file.
    """
    categories = read_categories(folder / "meta.jsonl")
    for photo in annotated_photos(folder):
        objects = [
            describe_object(mask, label, categories.get((photo.name, label), folder.name))
            for label, mask in photo.masks().items()
            if mask.sum() >= min_pixels
        ]
        if objects:
            yield photo, objects


def read_categories(path: Path) -> dict[tuple[str, int], str]:
    """Read the categories of objects, by photo and label; there are none if the file is missing."""
    if not path.exists():
        return {}
    categories = {}
    for number, text in enumerate(read_text(path).splitlines(), start=1):
        if text.strip():
            line = parse_json(text.encode(), f"{path}: line {number}")
            objects = line.get("objects")
            for entry in () if objects is None else objects.elements():
                key = line.member("file").text(), entry.member("index").integer()
                categories[key] = entry.member("category").text()
    return categories


def describe_object(mask: np.ndarray, label: int, category: str) -> dict[str, Any]:
    """Make the entry of an object in the index: label, category, center of its box (-1..1), area (0..1)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    center = [
        float(columns[0] + columns[-1] + 1) / width - 1,
        float(rows[0] + rows[-1] + 1) / height - 1,
    ]
    return {"label": label, "category": category, "center": center, "area": float(mask.mean())}


def read_backgrounds(paths: Sequence[Path], every: int) -> Iterator[Image.Image]:
    """Iterate over pictures, and over every n-th frame of videos."""
    for path in paths:
        if path.is_dir():
            yield from read_backgrounds([Path(entry.path) for entry in visible_entries(path)], every)
        elif path.suffix.lower() in PICTURES:
            yield load_image(path).convert("RGB")
        elif path.suffix.lower() in VIDEOS:
            with open_source(path) as source:
                for number in range(0, source.num_frames or 0, every):
                    yield Image.fromarray(source.read(number))


def write_pack(args: argparse.Namespace) -> tuple[int, int]:
    """Write the pack. Returns the numbers of photos and backgrounds in it."""
    index: dict[str, list[dict[str, Any]]] = {"photos": [], "backgrounds": []}
    size = (args.size, args.size)
    with replacing(args.output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        found = (entry for folder in args.photos for entry in read_photos(folder))
        for number, (photo, objects) in enumerate(tqdm(found, unit=" photos", disable=None)):
            archive.writestr(f"photos/{number}.webp", encode(photo.pixels.resize(size, Image.Resampling.LANCZOS), args))
            data = io.BytesIO()
            photo.labels.resize(size, Image.Resampling.NEAREST).save(data, "PNG", optimize=True)
            archive.writestr(f"labels/{number}.png", data.getvalue())
            index["photos"].append({"aspect": photo.pixels.width / photo.pixels.height, "objects": objects})
        for number, picture in enumerate(read_backgrounds(args.backgrounds, args.every)):
            archive.writestr(f"backgrounds/{number}.webp", encode(picture.resize(size, Image.Resampling.LANCZOS), args))
            index["backgrounds"].append({"aspect": picture.width / picture.height})
        archive.writestr(INDEX, json.dumps(index))
    return len(index["photos"]), len(index["backgrounds"])


def encode(picture: Image.Image, args: argparse.Namespace) -> bytes:
    """Encode a picture as WebP."""
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=args.quality, method=4)
    return data.getvalue()


@as_command("pack_photos")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 done, 1 failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument("--backgrounds", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", type=count, default=320, help="side of the packed pictures (default: %(default)s)")
    parser.add_argument("--quality", type=percent, default=72, help="WebP quality, 1 to 100 (default: %(default)s)")
    parser.add_argument("--every", type=count, default=40, help="frames between backgrounds in a video")
    args = parser.parse_args(argv)
    if not 16 <= args.size <= MAX_SIDE:
        parser.error(f"--size: expected 16 to {MAX_SIDE}, got {args.size}")
    try:
        photos, backgrounds = write_pack(args)
    except USER_ERRORS as error:
        print(f"pack_photos: error: {describe_error(error)}", file=sys.stderr)
        return 1
    size = args.output.stat().st_size
    print(f"{args.output}: {photos} photos, {backgrounds} backgrounds, {size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
