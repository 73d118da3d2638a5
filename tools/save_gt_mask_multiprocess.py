"""Convert mask PNGs to mask_info: one small file per object, which the test script reads.

python tools/save_gt_mask_multiprocess.py --data_root DIR [--workers N]

Reads DATA_ROOT/Annotations_6fps, which contains a folder of binary PNGs per video and object as in SA-V, or label
images as in DAVIS, and writes DATA_ROOT/mask_info/VIDEO/III.json. III numbers the non-empty objects from 000.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path

from tqdm import tqdm

if not __package__:
    # A script has only its own folder on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i2v.cli.numbers import count
from i2v.errors import USER_ERRORS, describe_error
from i2v.results.rle import encode_mask
from i2v.utils.command import as_command
from i2v.utils.output_folder import child, new_folder
from i2v.utils.terminal import printable
from i2v.utils.worker_pool import worker_pool
from sav_dataset.utils.datasets import read_video_list
from sav_dataset.utils.mask_files import MaskVideo, list_videos, natural_order
from sav_dataset.utils.mask_info import MaskInfo, write_mask_info

DEFAULT_ROOT = Path(__file__).resolve().parents[1] / "data" / "sav_test"


def make_parser() -> argparse.ArgumentParser:
    """Build the command line parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    root = Path(os.environ.get("DATA_ROOT") or DEFAULT_ROOT)
    add("--data_root", type=Path, default=root, help="default: DATA_ROOT from the environment, else %(default)s")
    add("--annotations", type=Path, help="default: DATA_ROOT/Annotations_6fps, else DATA_ROOT/Annotations")
    add("--output", type=Path, help="default: DATA_ROOT/mask_info")
    add("--workers", type=count, default=os.cpu_count(), help="processes (default: one per core)")
    add("--video_list", type=Path, help="only the videos of this list")
    add("--overwrite", action="store_true", help="convert finished videos again (default: skip them)")
    return parser


@as_command("save_gt_mask", "the same command resumes from here")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 done, 1 failed, 130 interrupted."""
    args = make_parser().parse_args(argv)
    try:
        annotations = args.annotations or _annotations(args.data_root)
        output = args.output or args.data_root / "mask_info"
        videos = read_video_list(args.video_list) if args.video_list else list_videos(annotations)
        pending = [video for video in videos if args.overwrite or not child(output, video).is_dir()]
        print(f"{annotations} -> {output}: {len(videos)} videos, {len(videos) - len(pending)} of them already finished")
        failures = convert_videos(annotations, output, pending, args.workers, args.overwrite)
    except USER_ERRORS as error:
        failures = [describe_error(error)]
    for failure in failures:
        print(f"save_gt_mask: error: {printable(failure)}", file=sys.stderr)
    return 1 if failures else 0


def _annotations(root: Path) -> Path:
    places = [root / name for name in ("Annotations_6fps", "Annotations")]
    for place in places:
        if place.is_dir():
            return place
    tried = " and ".join(map(str, places))
    raise FileNotFoundError(f"no annotations: tried {tried}; give --data_root or --annotations")


def convert_videos(
    annotations: Path, output: Path, videos: Iterable[str], workers: int, overwrite: bool = False
) -> list[str]:
    """Convert videos in parallel.

    Args:
        annotations: Tree of mask PNGs.
        output: Where the videos' folders are created.
        videos: Names of the videos.
        workers: Number of processes.
        overwrite: Whether to replace existing folders.

    Returns:
        A sentence per video that failed.

    Raises:
        ValueError: If ``workers`` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    failures = []
    convert = partial(convert_video, annotations, output, overwrite=overwrite)
    with worker_pool(workers, [output]) as pool:
        jobs = {pool.submit(convert, video): video for video in videos}
        for job in tqdm(as_completed(jobs), total=len(jobs), desc="mask_info", unit=" videos"):
            error = job.exception()
            if error is not None:
                failures.append(f"video {jobs[job]}: {describe_error(error)}")
    return sorted(failures)


def convert_video(annotations: Path, output: Path, video: str, overwrite: bool = False) -> int:
    """Write the files of a video to a folder, which appears once it is complete.

    Args:
        annotations: Tree of mask PNGs.
        output: Where the folder is created.
        video: Name of the video.
        overwrite: Whether to replace an existing folder.

    Returns:
        The number of objects.

    Raises:
        ValueError: As :func:`collect_objects`, and if the name leads out of ``output`` or is that of a link.
        FileExistsError: If the folder exists and ``overwrite`` is false, or it contains other files.
    """
    with new_folder(output, video, made=r"\d{3,}\.json", overwrite=overwrite, one_of_many=True) as folder:
        infos = collect_objects(MaskVideo.open(annotations / video))
        for number, info in enumerate(infos):
            write_mask_info(folder / f"{number:03d}.json", info)
    return len(infos)


def collect_objects(video: MaskVideo) -> list[MaskInfo]:
    """Collect the non-empty objects of a video, in the order of their folders or labels.

    As in the published files, ``annotated`` are the frames for which any object has a file.

    Raises:
        ValueError: If a file is not a mask or not named by frame number, sizes differ, or there are no objects.
    """
    annotated: set[int] = set()
    counts: dict[str, dict[int, bytes]] = {}
    sizes: dict[tuple[int, int], str] = {}
    folders: list[str | None] = [*video.objects()] or [None]
    for obj in folders:
        for name in video.frames(obj):
            frame = _frame_number(video, name)
            annotated.add(frame)
            masks = video.read(name, obj)
            sizes.setdefault(masks.size, name)
            for found in masks.values:
                mask = masks.mask(found)
                if mask.any():
                    counts.setdefault(found, {})[frame] = encode_mask(mask)
    if len(sizes) > 1:
        examples = ", ".join(f"{name}: {size[1]}x{size[0]}" for size, name in sizes.items())
        raise ValueError(f"{video.folder}: expected masks of one size, got {examples}")
    frames = tuple(sorted(annotated))
    if not counts:
        raise ValueError(f"{video.folder}: expected masks, got {len(annotated)} files without any object")
    size = next(iter(sizes))
    return [MaskInfo(video.folder.name, obj, size, frames, counts[obj]) for obj in natural_order(counts)]


def _frame_number(video: MaskVideo, name: str) -> int:
    stem = Path(name).stem
    if not stem.isdecimal():
        raise ValueError(f"{video.folder}: expected files named by frame number, as 00000.png, got {name}")
    return int(stem)


if __name__ == "__main__":
    sys.exit(main())
