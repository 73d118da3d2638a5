"""Score predicted masks: J, F and J&F per object, as a table, CSV and JSON, with pictures of the worst objects.

python sav_dataset/sav_evaluator.py --gt_root DIR --pred_root DIR
python sav_dataset/sav_evaluator.py --dataset davis2017 --data_root DIR --pred_root DIR
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:
    # A script has only its own folder on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i2v.cli.checkout import NAME_VARIABLE
from i2v.cli.numbers import amount, count
from i2v.errors import USER_ERRORS, describe_error
from i2v.utils.command import as_command
from i2v.utils.files import DiskFullError
from i2v.utils.output_folder import check_writable
from i2v.utils.terminal import printable
from sav_dataset.utils.contact_sheet import ObjectPictures
from sav_dataset.utils.datasets import LAYOUTS, open_dataset, read_seen_categories, read_video_list, unseen_objects
from sav_dataset.utils.report import ReportContents, group_table, published_table, write_report, write_text
from sav_dataset.utils.sav_benchmark import EvaluationError, EvaluationSettings, annotation_folder, evaluate
from sav_dataset.utils.scores import Scores
from sav_dataset.utils.void_labels import read_ignore_labels

_SKIP_NOTES = {
    "first-last": "Skipping the first and the last annotated frame of every object",
    "prompt": "Skipping the annotated frames up to the first one with the object",
    "none": "Not skipping the first and the last annotated frame",
}


def make_parser() -> argparse.ArgumentParser:
    """Build the command line parser; its first six options are those of SA-V's evaluator."""
    parser = argparse.ArgumentParser(
        prog=os.environ.get(NAME_VARIABLE), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--gt_root", type=Path, help="annotations, a folder per video")
    add("--pred_root", type=Path, required=True, help="predictions, laid out like the annotations")
    add("-n", "--num_processes", type=count, default=os.cpu_count(), help="worker processes (default: one per core)")
    add(
        "-s",
        "--strict",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="fail if a video is in only one of the trees (default); --no-strict: score those in both",
    )
    add("-q", "--quiet", action="store_true", help="print the averages only")
    add(
        "--do_not_skip_first_and_last_frame",
        action="store_true",
        help="score all annotated frames (default: all but an object's first and last)",
    )
    add("--dataset", choices=LAYOUTS, help="find annotations, frames and videos of a benchmark below --data_root")
    add("--data_root", type=Path, help="folder of the benchmark")
    add("--split", help="split, such as val or valid (default: the usual one)")
    add("--video_list", type=Path, help="score only the videos of this list")
    add("--images", type=Path, help="folder of the videos' frames, for the pictures")
    add("--single_object", action="store_true", help="treat all labels as one object (DAVIS 2016)")
    add("--ignore_labels", metavar="L,L", help="labels that are void, or none (default: 255 beside other labels)")
    add("--meta", type=Path, help="meta.json with the objects' categories (YouTube-VOS, LVOS)")
    add("--seen", type=Path, help="categories seen in training, a meta.json or a list: average seen and unseen apart")
    add("--unseen_videos", type=Path, help="list of the videos with unseen objects, instead of --meta and --seen")
    add("--output", type=Path, help="CSV of the table (default: PRED_ROOT/results.csv)")
    add("--report", type=Path, help="folder of the report (default: PRED_ROOT_report)")
    add("--num_worst", type=amount, default=10, help="objects with pictures in the report (default: %(default)s)")
    return parser


@as_command("sav_evaluator")
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate. Returns the exit status: 0 done, 1 failed."""
    args = make_parser().parse_args(argv)
    try:
        _evaluate(args, _find_trees(args))
    except EvaluationError as error:
        print(f"sav_evaluator: error: {error}", file=sys.stderr)  # one line per problem
        return 1
    except USER_ERRORS as error:
        print(f"sav_evaluator: error: {describe_error(error)}", file=sys.stderr)
        return 1
    return 0


@dataclass(frozen=True)
class _Trees:
    """What is compared and how, and where to find frames and categories; fields as in ``EvaluationSettings``."""

    gt_root: Path
    videos: tuple[str, ...] | None
    images: Path | None
    meta: Path | None
    skip: str
    single_object: bool
    ignore_labels: tuple[int, ...] | None


def _find_trees(args: argparse.Namespace) -> _Trees:
    ignored = None if args.ignore_labels is None else read_ignore_labels(args.ignore_labels)
    if args.dataset is not None:
        if args.data_root is None:
            raise ValueError("--dataset: expected --data_root, too")
        data = open_dataset(args.dataset, args.data_root, args.split, args.images, args.gt_root, args.video_list)
        layout = data.layout
        single = args.single_object or layout.single_object
        return _Trees(data.annotations, data.videos, data.images, args.meta or data.meta, layout.skip, single, ignored)
    if args.gt_root is None:
        raise ValueError("expected --gt_root, or --dataset and --data_root")
    videos = tuple(read_video_list(args.video_list)) if args.video_list else None
    gt_root = annotation_folder(args.gt_root)
    images = args.images or _frames_beside(gt_root)
    return _Trees(gt_root, videos, images, args.meta, "first-last", args.single_object, ignored)


def _frames_beside(gt_root: Path) -> Path | None:
    path = str(gt_root.resolve()).replace("Annotations_6fps", "JPEGImages_24fps")
    images = Path(path.replace("Annotations", "JPEGImages"))
    return images if images.is_dir() and images != gt_root.resolve() else None


def _evaluate(args: argparse.Namespace, trees: _Trees) -> None:
    settings = EvaluationSettings(
        skip="none" if args.do_not_skip_first_and_last_frame else trees.skip,
        strict=args.strict,
        single_object=trees.single_object,
        ignore_labels=trees.ignore_labels,
        num_processes=args.num_processes,
        progress=not args.quiet,
    )
    output, report = _outputs(args)
    for folder in (output.parent, report):
        check_writable(folder)  # rather than after minutes of scoring
    if not args.quiet:
        print(f"Evaluating {args.pred_root}\n{_SKIP_NOTES[settings.skip]}")
    start = time.perf_counter()
    scores = evaluate(trees.gt_root, args.pred_root, settings, trees.videos)
    seconds = time.perf_counter() - start
    for warning in scores.warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    parts = _parts(args, trees, scores)
    if not args.quiet:
        print(f"{len(scores.by_video())} videos, {len(scores.objects)} objects\n{published_table(scores)}")
    print(f"Summary:\nGlobal score: J&F: {scores.jf:.1f} J: {scores.j:.1f} F: {scores.f:.1f}")
    if parts:
        print(group_table(parts))
    print(f"Time taken: {seconds:.2f}s")
    facts = {"gt_root": str(trees.gt_root), "pred_root": str(args.pred_root), "seconds": seconds}
    _save(args, trees, ReportContents(scores, parts, {**facts, **asdict(settings)}))


def _parts(args: argparse.Namespace, trees: _Trees, scores: Scores) -> dict[str, Scores]:
    """Split the scores into seen and unseen objects, if these are given."""
    if args.unseen_videos is not None:
        videos = set(read_video_list(args.unseen_videos))
        return scores.split({score.key for score in scores.objects if score.video in videos})
    if args.seen is None:
        return {}
    if trees.meta is None:
        raise ValueError("--seen: expected --meta, too, with the categories of the objects")
    return scores.split(unseen_objects(trees.meta, read_seen_categories(args.seen)))


def _outputs(args: argparse.Namespace) -> tuple[Path, Path]:
    """The table and the folder of the report."""
    root = args.pred_root.resolve()
    # Next to the predictions, not among them, where every folder is a video.
    return args.output or args.pred_root / "results.csv", args.report or root.with_name(f"{root.name}_report")


def _save(args: argparse.Namespace, trees: _Trees, contents: ReportContents) -> None:
    output, report = _outputs(args)
    pictures = ObjectPictures(trees.gt_root, args.pred_root, trees.images, trees.single_object, trees.ignore_labels)
    print(f"Saving the results to {output}, the report to {report}")
    try:
        write_text(output, published_table(contents.scores))
        write_report(report, contents, pictures, args.num_worst)
    except DiskFullError as error:
        if args.quiet:
            print(published_table(contents.scores))
        error.kept = "the scores of all objects are printed above"
        raise


if __name__ == "__main__":
    sys.exit(main())
