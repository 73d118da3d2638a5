"""Extract the annotated frames of SA-V's mp4 files as JPEGs: one folder per video, named by frame number.

    python -m train.scripts.extract_sav_frames --input /data/sav_train --output /data/sav_train_jpg --workers 8

A folder appears once it is complete, so that an interrupted run can be resumed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from i2v.cli.numbers import count, percent
from i2v.errors import USER_ERRORS, describe_error
from i2v.utils.command import as_command
from i2v.utils.output_folder import child, new_folder
from i2v.utils.picture_file import write_picture
from i2v.utils.terminal import log_to_stderr
from i2v.utils.worker_pool import worker_pool
from i2v.video.video_file import VideoFile
from train.dataset.frame_reader import VIDEO_SUFFIXES
from train.dataset.vos_raw_dataset import find_files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extraction:
    """What to write for every video.

    Attributes:
        every: Frames of the video per extracted frame; SA-V is annotated on every fourth.
        quality: JPEG quality, 1 to 95.
        short_side: Short side in pixels to which larger frames are reduced; ``None`` keeps their size.
    """

    every: int = 4
    quality: int = 95
    short_side: int | None = None


def extract(video: Path, folder: Path, extraction: Extraction) -> int:
    """Write the frames of a video to a new folder, which does not appear if this fails.

    Args:
        video: The video file.
        folder: The folder to create.
        extraction: What to write.

    Returns:
        The number of frames.

    Raises:
        FileExistsError: If the folder exists already.
        OSError: If a file cannot be read or written.
        ValueError: If the video is damaged.
    """
    with new_folder(folder.parent, folder.name, one_of_many=True) as hidden, VideoFile(video) as source:
        numbers = range(0, source.num_frames, extraction.every)
        for number in numbers:
            picture = _reduced(Image.fromarray(source.read(number)), extraction.short_side)
            write_picture(hidden / f"{number:05d}.jpg", picture, "JPEG", quality=extraction.quality)
    return len(numbers)


@as_command("extract_sav_frames", "the same command resumes from here")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 0 done, 1 if a video could not be extracted."""
    args = _parser().parse_args(arguments)
    log_to_stderr(logging.INFO, "%(message)s")
    try:
        videos = find_files(args.input, VIDEO_SUFFIXES)
        todo = {name: path for name, path in videos.items() if not child(args.output, name).is_dir()}
    except USER_ERRORS as error:
        raise SystemExit(describe_error(error)) from error
    if not videos:
        raise SystemExit(f"no videos in {args.input} or its sub-folders: expected {' '.join(VIDEO_SUFFIXES)}")
    log.info("%d videos, %d left to extract", len(videos), len(todo))
    failed = _extract_all(todo, args.output, Extraction(args.every, args.quality, args.short_side), args.workers)
    for name, reason in failed.items():
        log.error("%s was not extracted: %s", name, reason)
    return 1 if failed else 0


def _extract_all(videos: dict[str, Path], output: Path, extraction: Extraction, workers: int) -> dict[str, str]:
    """Extract videos in parallel. Returns the error by name of each video that failed."""
    failed: dict[str, str] = {}
    parents = {(output / name).parent for name in videos}
    with worker_pool(workers, parents) as pool:
        run = functools.partial(extract, extraction=extraction)
        running = {pool.submit(run, path, output / name): name for name, path in videos.items()}
        done = concurrent.futures.as_completed(running)
        for future in tqdm(done, total=len(running), unit="video", disable=not sys.stderr.isatty()):
            error = future.exception()
            if isinstance(error, USER_ERRORS):
                failed[running[future]] = describe_error(error)
            elif error is not None:
                raise error
    return failed


def _reduced(picture: Image.Image, short_side: int | None) -> Image.Image:
    if short_side is None or min(picture.size) <= short_side:
        return picture
    scale = short_side / min(picture.size)
    width, height = (max(round(length * scale), 1) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train.scripts.extract_sav_frames", description=__doc__.split("\n")[0])
    parser.add_argument("--input", type=Path, required=True, help="folder with videos, or with folders of videos")
    parser.add_argument("--output", type=Path, required=True, help="folder in which a folder per video is written")
    parser.add_argument("--every", type=count, default=4, help="extract every n-th frame (default: 4, as SA-V)")
    parser.add_argument("--quality", type=percent, default=95, help="JPEG quality (default: 95)")
    parser.add_argument(
        "--short-side", type=count, help="short side in pixels to which larger frames are reduced (default: keep)"
    )
    parser.add_argument("--workers", type=count, default=1, help="processes (default: 1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
