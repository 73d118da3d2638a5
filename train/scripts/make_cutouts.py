"""Cut things out of unlabelled pictures along image edges, for rendered clips.

    python -m train.scripts.make_cutouts --input FOOTAGE --output CUTOUTS --every 12

Pictures are split into regions of similar colour (Felzenszwalb and Huttenlocher, IJCV 2004), and neighbouring regions
are merged at random until they have the size of a thing. Every picture is written as a JPEG with a PNG of labels of the
same name: 0 is background, each other value one thing. The input is a folder of videos, or of folders of frames.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from i2v.cli.numbers import amount, count
from i2v.errors import USER_ERRORS, describe_error
from i2v.utils.command import as_command
from i2v.utils.output_folder import child
from i2v.utils.picture_file import write_picture
from i2v.utils.temporary import remove_leftovers
from train.dataset.frame_reader import open_frames
from train.dataset.synthetic_footage import find_footage

_SCALES = (100, 200, 400, 800)  # of regions; larger is coarser
_TOLERANCE = 30.0  # mean of the random cost that is added to colour distance when regions are merged


@dataclass(frozen=True)
class CutoutSettings:
    """What counts as a thing.

    Attributes:
        min_area: Smallest area, as a fraction (0..1) of the picture.
        max_area: Largest area, as a fraction (0..1) of the picture.
        min_fill: Smallest fraction (0..1) of its bounding box that it fills.
        max_border: Largest length on the picture's border, as a fraction (0..1) of the perimeter of its bounding box.
        max_things: Most things per picture.
        short_side: Short side in pixels to which pictures are resized.
    """

    min_area: float = 0.006
    max_area: float = 0.3
    min_fill: float = 0.35
    max_border: float = 0.25
    max_things: int = 6
    short_side: int = 288


@as_command("make_cutouts")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 done, 1 if there is nothing to cut out."""
    args = _parse(arguments)
    settings = CutoutSettings()
    try:
        count = _cut_out_all(args, settings)
    except USER_ERRORS as error:
        print(f"error: {describe_error(error)}", file=sys.stderr)
        return 1
    print(f"{count} things in {args.output}")
    return 0


def _cut_out_all(args: argparse.Namespace, settings: CutoutSettings) -> int:
    """Write the things of all videos. Returns their number."""
    videos = find_footage([args.input])
    args.output.mkdir(parents=True, exist_ok=True)
    remove_leftovers(args.output)
    count = 0
    for number, video in enumerate(tqdm(videos, desc="cutting out", unit=" videos")):
        rng = np.random.default_rng((args.seed, number))
        for name, picture in _pictures(video, args.every, settings.short_side):
            things = cut_out(picture, rng, settings)
            if things.any():
                _write(child(args.output, f"{video.stem}_{name}"), picture, things)
                count += int(things.max())
    return count


def cut_out(picture: NDArray[np.uint8], rng: np.random.Generator, settings: CutoutSettings) -> NDArray[np.uint8]:
    """Find things in a picture.

    Args:
        picture: RGB ``(H, W, 3)`` uint8.
        rng: Source of randomness.
        settings: What counts as a thing.

    Returns:
        Labels ``(H, W)`` uint8: 1, 2, ... for the things, 0 for the rest.
    """
    regions = _split(picture, rng)
    graph = _describe(picture, regions)
    things, count = np.zeros(regions.shape, np.uint8), 0
    for seed in rng.permutation(len(graph.areas)):
        if count == settings.max_things:
            break
        target = np.exp(rng.uniform(np.log(settings.min_area), np.log(settings.max_area))) * regions.size
        mask = np.isin(regions, _grow(int(seed), target, graph, rng))
        if _is_thing(mask, settings) and not things[mask].any():
            count += 1
            things[mask] = count
    return things


@dataclass(frozen=True)
class _Regions:
    """Regions of a picture by number.

    Attributes:
        areas: ``(R,)`` in pixels.
        colours: Mean colour ``(R, 3)``.
        neighbours: Adjacent regions of each region.
    """

    areas: NDArray[np.int64]
    colours: NDArray[np.float64]
    neighbours: dict[int, set[int]]


def _split(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.int64]:
    """Split a picture into regions of similar colour, numbered from 0."""
    from skimage.segmentation import felzenszwalb

    return felzenszwalb(picture, scale=float(rng.choice(_SCALES)), sigma=0.8, min_size=60)


def _describe(picture: NDArray[np.uint8], regions: NDArray[np.int64]) -> _Regions:
    flat = regions.ravel()
    areas = np.bincount(flat)
    sums = [np.bincount(flat, picture[..., c].ravel()) for c in range(3)]
    neighbours: dict[int, set[int]] = {number: set() for number in range(len(areas))}
    for one, other in ((regions[1:], regions[:-1]), (regions[:, 1:], regions[:, :-1])):
        pairs = np.unique(np.stack([one[one != other], other[one != other]]), axis=1)
        for a, b in pairs.T.tolist():
            neighbours[a].add(b)
            neighbours[b].add(a)
    return _Regions(areas, np.stack(sums, axis=1) / areas[:, None], neighbours)


def _grow(seed: int, target: float, regions: _Regions, rng: np.random.Generator) -> list[int]:
    """Merge a region with neighbours, preferring similar colours, until they cover ``target`` pixels."""
    members, around = [seed], set(regions.neighbours[seed])
    area = regions.areas[seed]
    while area < target:
        candidates = sorted(n for n in around if area + regions.areas[n] < 1.5 * target)
        if not candidates:
            break
        mean = np.average(regions.colours[members], axis=0, weights=regions.areas[members])
        unlike = np.linalg.norm(regions.colours[candidates] - mean, axis=1)
        chosen = candidates[int(np.argmin(unlike + rng.exponential(_TOLERANCE, len(candidates))))]
        members.append(chosen)
        around = (around | regions.neighbours[chosen]) - set(members)
        area += regions.areas[chosen]
    return members


def _is_thing(mask: NDArray[np.bool_], settings: CutoutSettings) -> bool:
    share = mask.mean()
    if not settings.min_area <= share <= settings.max_area:
        return False
    ys, xs = np.nonzero(mask)
    height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
    if mask.sum() < settings.min_fill * height * width or max(height, width) > 6 * min(height, width):
        return False
    border = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    return border < settings.max_border * 2 * (height + width)


def _pictures(video: Path, every: int, short_side: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    reader = open_frames(video)
    try:
        for frame in reader.frames[::every]:
            image = reader.read(frame, short_side).permute(1, 2, 0).numpy()
            scale = short_side / min(image.shape[:2])
            size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
            yield f"{frame:05d}", np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    finally:
        reader.close()


def _write(path: Path, picture: NDArray[np.uint8], things: NDArray[np.uint8]) -> None:
    """Write the labels last: readers ignore a picture without them."""
    write_picture(path.with_suffix(".jpg"), Image.fromarray(picture), "JPEG", quality=92)
    write_picture(path.with_suffix(".png"), Image.fromarray(things), "PNG")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m train.scripts.make_cutouts", description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, required=True, metavar="FOLDER", help="videos, or folders of frames")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--every", type=count, default=12, metavar="N", help="use every n-th frame")
    parser.add_argument("--seed", type=amount, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
