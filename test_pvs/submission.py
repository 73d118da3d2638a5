"""Pack label images into a zip file for the evaluation server of a benchmark with withheld ground truth.

python -m test_pvs.submission --dataset mose --data_root DIR --pred_root RUN --output mose.zip
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from i2v.errors import USER_ERRORS, describe_error, listed
from i2v.utils.command import as_command
from i2v.utils.files import replacing
from i2v.utils.output_folder import child, component
from sav_dataset.utils.datasets import LAYOUTS, Dataset, open_dataset, wanted_frames
from test_pvs.targets import list_frames

LABEL_DATASETS = tuple(name for name, layout in LAYOUTS.items() if not layout.object_folders)


def make_parser() -> argparse.ArgumentParser:
    """Build the command line parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", choices=LABEL_DATASETS, required=True)
    add("--data_root", type=Path, required=True, help="folder of the benchmark")
    add("--split", help="split (default: the usual one)")
    add("--video_list", type=Path, help="only the videos of this list")
    add("--pred_root", type=Path, required=True, help="folder of the run, with a folder per video")
    add("--output", type=Path, required=True, help="the zip file")
    add("--folder", help="folder inside the zip (default: what the server expects)")
    return parser


@as_command("submission")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 done, 1 failed."""
    args = make_parser().parse_args(argv)
    try:
        dataset = open_dataset(args.dataset, args.data_root, args.split, video_list=args.video_list)
        files = submission_files(dataset, args.pred_root)
        folder = dataset.layout.submission_folder if args.folder is None else args.folder
        write_zip(args.output, args.pred_root, files, folder)
    except USER_ERRORS as error:
        print(f"submission: error: {describe_error(error)}", file=sys.stderr)
        return 1
    print(f"{args.output}: {len(files)} masks of {len(dataset.videos)} videos")
    return 0


def submission_files(dataset: Dataset, pred_root: Path) -> list[Path]:
    """List the files to submit: a mask for every frame, or for the frames that the benchmark's meta.json lists.

    A submission is uploaded, so it must contain nothing but the masks of the run.

    Args:
        dataset: The benchmark.
        pred_root: Folder of the run.

    Returns:
        Paths relative to ``pred_root``.

    Raises:
        FileNotFoundError: If masks are missing, naming the videos.
        ValueError: If a name leads out of the folder, or a file is a symbolic link.
    """
    wanted = wanted_frames(dataset.meta) if dataset.meta else {}
    files, missing = [], []
    for video in dataset.videos:
        frames = wanted.get(video) or list_frames(dataset.frames(video)).names
        paths = [child(child(pred_root, video), f"{frame}.png") for frame in frames]
        lost = sum(not path.is_file() for path in paths)
        if lost:
            missing.append(f"{video} ({lost} of {len(paths)})")
        files += [path.relative_to(pred_root) for path in paths]
    if missing:
        raise FileNotFoundError(f"{pred_root}: masks missing of {listed(missing, 5)}")
    return files


def write_zip(path: Path, pred_root: Path, files: Sequence[Path], folder: str = "") -> None:
    """Write a zip file atomically; the same files give the same bytes.

    Args:
        path: The zip file.
        pred_root: Folder of the run.
        files: Paths relative to ``pred_root``.
        folder: Folder inside the zip file.

    Raises:
        ValueError: If ``folder`` leads out of the zip file.
    """
    inside = PurePosixPath(*(component(part) for part in PurePosixPath(folder).parts))
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(files):
            # A fixed date: with the files' own dates, archives of the same masks would differ.
            entry = zipfile.ZipInfo((inside / file).as_posix(), date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, (pred_root / file).read_bytes())


if __name__ == "__main__":
    sys.exit(main())
